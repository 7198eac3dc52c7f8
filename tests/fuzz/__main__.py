"""The command line: see `tests.fuzz`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from tests.fuzz.children import ENVIRONMENT, run
from tests.fuzz.kinds import KINDS


def main() -> int:
    """Run the command line; return 1 if there was a finding."""
    parser = argparse.ArgumentParser(description="Fuzz the package.")
    parser.add_argument("kind", choices=[*KINDS, "callers"])
    parser.add_argument("--calls", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="of callers (default: %(default)s)")
    options = parser.parse_args()
    start = time.monotonic()
    if options.kind == "callers":
        command = [sys.executable, "-m", "tests.fuzz.callers", str(options.seconds)]
        failed = bool(subprocess.run(command, check=False, env=os.environ | ENVIRONMENT).returncode)
    else:
        result = run(options.kind, options.seed, options.calls, options.first)
        print(result)
        failed = bool(result.findings)
    print(f"{time.monotonic() - start:.0f} s")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
