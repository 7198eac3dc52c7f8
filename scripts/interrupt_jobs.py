"""Interrupt jobs at random instants, let them go on, and compare the bytes: python -m scripts.interrupt_jobs.

Each job is killed again and again until it has finished; then another one begins, until there were so many kills. An
output must be that of a job that nobody disturbed, file by file.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

from gte_np.files import sha256_of
from tests.checkpoints import small_model

FORMATS = ("npy", "parquet", "jsonl")
SIGNALS = ("SIGKILL", "SIGINT", "SIGTERM")
ROWS, ROWS_PER_SHARD = 20_000, 500


class Outcome(NamedTuple):
    """How many runs were interrupted, how many jobs finished, and the differences that were found."""

    kills: int
    jobs: int
    differences: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of each format and signal")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--signals", nargs="+", choices=SIGNALS, default=SIGNALS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else a shell's background jobs ignore it, and theirs
    failed = False
    with TemporaryDirectory() as folder:
        work = Path(folder)
        model = small_model(work / "model")
        for name in options.signals:
            for output_format in options.formats:
                command = write_job(work, model, output_format, options.rows)
                outcome = interrupt(command, work / output_format, getattr(signal, name), options.kills, options.seed)
                found = f"{outcome.kills} kills, {outcome.jobs} jobs, {outcome.differences}"
                print(f"{name} {output_format}: {found}", flush=True)
                failed = failed or bool(outcome.differences)
    return int(failed)


def write_job(work: Path, model: Path, output_format: str, rows: int) -> list[str]:
    """Write an input in the folder of a format; return the command of a job with an output in `out`."""
    folder = work / output_format
    folder.mkdir(exist_ok=True)
    random = Random(0)
    with (folder / "texts.txt").open("w", encoding="utf-8") as file:
        for number in range(rows):
            file.write(f"happy person {number % (rows // 2)} " + "today " * random.randrange(8) + "\n")
    options = ["--rows-per-shard", str(ROWS_PER_SHARD)]
    output = folder / "out" / f"vectors.{output_format}"
    output.parent.mkdir(exist_ok=True)
    return [
        sys.executable,
        "-m",
        "gte_np",
        "embed",
        str(model),
        str(folder / "texts.txt"),
        "-o",
        str(output),
        *options,
    ]


def interrupt(command: Sequence[str], folder: Path, number: int, kills: int, seed: int) -> Outcome:
    """Interrupt jobs until there were so many kills, and compare their outputs with that of an undisturbed one."""
    output = folder / "out"
    begin = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.monotonic() - begin
    expected = digests(output)
    _empty(output)
    random = Random(seed)
    killed, jobs, differences = 0, 0, []
    while killed < kills:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, said = process.communicate(timeout=random.uniform(0, seconds * 0.7))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            _, said = process.communicate(timeout=100)
        if process.returncode != 0:
            killed += 1
            differences += [] if number == signal.SIGKILL or _is_quiet(said) else [said.decode()]
            continue
        jobs += 1
        if digests(output) != expected:
            differences.append(f"job {jobs} after {killed} kills")
        _empty(output)
    subprocess.run(command, check=True, capture_output=True)
    if digests(output) != expected:
        differences.append("the last job")
    return Outcome(killed, jobs + 1, differences)


def _is_quiet(said: bytes) -> bool:
    """Whether no traceback of the command was said. While Python imports its modules, nobody can prevent one."""
    return not re.search(rb'gte_np[/\\]cli\.py", line \d+, in main', said)


def digests(folder: Path) -> dict[str, str]:
    return {os.fspath(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def _empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


if __name__ == "__main__":
    sys.exit(main())
