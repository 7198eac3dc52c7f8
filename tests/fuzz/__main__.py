"""The command line: see `tests.fuzz`."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from tests.fuzz.callers import call_at_once
from tests.fuzz.children import run
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
    logging.disable()
    start = time.monotonic()
    if options.kind == "callers":
        report = call_at_once(options.seconds)
        print(report)
        failed = report.is_wrong()
    else:
        result = run(options.kind, options.seed, options.calls, options.first)
        print(result)
        failed = bool(result.findings)
    print(f"{time.monotonic() - start:.0f} s")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
