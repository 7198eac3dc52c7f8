"""Map a file into memory, where there may be no room for it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def mapping(path: Path) -> Iterator[None]:
    """Let an error of the system for want of memory be a MemoryError: the file is not to blame."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise MemoryError(f"{path}: expected memory in which to map the file, got: {error.strerror}.") from error
