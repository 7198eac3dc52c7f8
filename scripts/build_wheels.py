"""Build the wheels for Linux, one for each processor family, which suit manylinux and musllinux: into dist.

    python -m scripts.build_wheels [--machine x86_64 aarch64] [--out DIR]

pip builds each in an environment of its own, with the compilers that pyproject.toml names. The same commit gives the
same bytes: times of files in a wheel are that of the commit, unless SOURCE_DATE_EPOCH says otherwise.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MACHINES = ("x86_64", "aarch64")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--machine", nargs="+", choices=MACHINES, default=MACHINES)
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR")
    options = parser.parse_args()
    for machine in options.machine:
        print(build(machine, options.out.resolve()), flush=True)


def build(machine: str, out: Path) -> Path:
    """Build the wheel for a processor family; return its path."""
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--quiet", "--no-deps", "--wheel-dir", str(out)]
    platform = f"--config-settings=--build-option=--plat-name=linux_{machine}"
    subprocess.run([*command, platform], check=True, env={"SOURCE_DATE_EPOCH": commit_time()} | os.environ)
    return max(out.glob(f"*_{machine}.whl"), key=lambda path: path.stat().st_mtime)


def commit_time() -> str:
    """When the present commit was made, in seconds since 1970; without git, the beginning of 1980."""
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "315532800"


if __name__ == "__main__":
    main()
