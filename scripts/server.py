"""A server to try, which ends with the block."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def serving(model: str, *options: str, python: str = sys.executable) -> Iterator[str]:
    """Serve a model on a free port, by a Python with gte_np[serve]; the address."""
    command = [python, "-m", "gte_np", "serve", model, "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield next(line.split()[-1] for line in process.stderr if "serving at" in line)
        finally:
            process.terminate()
