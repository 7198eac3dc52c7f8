"""Numbered calls in processes of their own, whose memory and time are limited."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.fuzz.kinds import KINDS
from tests.fuzz.memory import address_space, limit_growth

LONGEST_CALL = 10  # seconds
MOST_MEMORY = 1 << 30  # bytes that calls may allocate beyond what the first ones did
COMMAND = (sys.executable, "-m", "tests.fuzz.children")
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Of glibc: it reserves no address space for each thread, and gives back what is freed: what is asked for counts.
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "65536",
}
MOST_CRASHES = 20  # after which a part ends


class Part(NamedTuple):
    """Calls of a kind, by numbers from `first` up to `last`."""

    kind: str
    seed: int
    first: int
    last: int


class Result(NamedTuple):
    """What was found, how many calls ended in which way, and the most address space they took, in bytes."""

    findings: list[dict[str, Any]]
    counts: Counter[str]
    memory: int

    def __str__(self) -> str:
        lines = [f"--- call {finding['number']}: {finding['found']}" for finding in self.findings]
        lines += [f"{count:8} {name}" for name, count in sorted(self.counts.items())]
        megabytes = self.memory / 1e6
        return "\n".join([*lines, f"{len(self.findings)} findings, at most {megabytes:.0f} MB more address space"])


def run(kind: str, seed: int, calls: int, first: int = 0) -> Result:
    """Make so many calls of a kind in children; after a crash, in another one behind it."""
    result = Result([], Counter(), 0)
    part = Part(kind, seed, first, first + calls)
    with tempfile.TemporaryDirectory() as folder:
        KINDS[kind].write(Path(folder))
        for _ in range(MOST_CRASHES):
            done, at = _run_child(Path(folder), part)
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            result.findings.extend(line for line in lines if "found" in line)
            for line in lines:
                result.counts.update(line.get("counts", {}))
            result = result._replace(memory=max(result.memory, *(line.get("memory", 0) for line in lines), 0))
            if done.returncode == 0:
                break
            ended = f"ended with status {done.returncode}: {done.stderr[-4000:]}"
            result.findings.append({"number": at, "found": ended})
            part = part._replace(first=at + 1)
    return result


def _run_child(folder: Path, part: Part) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run a child to its end; return also the number of its last call."""
    (folder / "at").write_text(str(part.first))
    done = subprocess.run(
        [*COMMAND, str(folder), *map(str, part)],
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=os.environ | ENVIRONMENT,
        cwd=Path(__file__).resolve().parents[2],
    )
    return done, int((folder / "at").read_text())


def work(folder: Path, part: Part) -> None:
    """Make calls in this process, and print what came of them as lines of JSON."""
    faulthandler.enable()
    warnings.simplefilter("error")
    logging.disable()
    kind = KINDS[part.kind](folder)
    kind.warm_up()
    before = address_space()
    limit_growth(MOST_MEMORY)
    counts: Counter[str] = Counter()
    with (folder / "at").open("wb", buffering=0) as at:
        for number in range(part.first, part.last):
            at.seek(0)
            at.write(b"%20d" % number)
            faulthandler.dump_traceback_later(LONGEST_CALL, exit=True)
            try:
                counts.update(kind.call(Random(f"{part.seed} {number}")))
            except Exception as error:
                found = "".join(traceback.format_exception(error)[-6:])
                print(json.dumps({"number": number, "found": found}), flush=True)
            faulthandler.cancel_dump_traceback_later()
            print_state(counts, before)
            counts.clear()


def print_state(counts: Counter[str], before: int) -> None:
    """Print what a call came to, at once: the next one may end the process."""
    print(json.dumps({"counts": counts, "memory": address_space(peak=True) - before}), flush=True)


if __name__ == "__main__":
    work(Path(sys.argv[1]), Part(sys.argv[2], *map(int, sys.argv[3:])))
