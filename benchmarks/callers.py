"""Many callers with a text a call against one call of all texts: python -m benchmarks.callers.

    git worktree add ../before v0.1.0
    python -m benchmarks.callers --before ../before

Each checkout has a process of its own; they take turns, and so do the numbers of callers. Texts a second and seconds
of a call are medians of all turns, ratios are medians of the ratios within a turn: `of_all` to one call of all texts
by the same checkout, `of_before` to the same callers of the other one. With `tasks`, callers are asyncio's and use
`aencode`. The last line is JSON, which is also written to benchmarks/results/callers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.compare import FOLDERS, RESULTS, environment
from benchmarks.models import OTHER_SHAPES, SHAPES, ensure_checkpoint
from benchmarks.worker import ROOT, Worker
from benchmarks.workloads import source

TEXTS = 600
TOKENS = (6, 24)  # of a text, at least and at most
RUNS = (("all", 1), ("threads", 1), ("threads", 8), ("threads", 32), ("tasks", 32))


class CallersWorker(Worker):
    """A process with a model of a checkout."""

    def __init__(self, checkout: Path, folder: Path, threads: int, texts: list[str]) -> None:
        self.engine = str(checkout)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(ROOT / "benchmarks/caller_worker.py"), str(folder), str(threads)],
            env=os.environ | {"PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(texts) + "\n")
        self.process.stdin.flush()
        self._answer()

    def call(self, door: str, callers: int) -> dict[str, Any]:
        """Texts a second, and the median and the 99th percentile of the seconds of a call."""
        answer = self._ask(door=door, callers=callers)
        if answer["wrong"]:
            raise RuntimeError(f"{self.engine}: {answer['wrong']} vectors are wrong with {callers} {door}.")
        of_calls = answer["latencies"] or [answer["seconds"]]
        p50, p99 = np.percentile(of_calls, (50, 99)).tolist()
        return {"texts_per_second": TEXTS / answer["seconds"], "p50": p50, "p99": p99}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--model", default="gte-small-zh", choices=[*SHAPES, *OTHER_SHAPES])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args()
    folder = FOLDERS / options.model
    ensure_checkpoint(options.model, folder)
    lengths = [random.Random(number).randint(*TOKENS) for number in range(TEXTS)]
    texts = source(options.model, folder).workload(lengths).texts
    checkouts = {"after": ROOT} | ({"before": options.before.resolve()} if options.before else {})
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(closing(CallersWorker(root, folder, options.threads, texts)))
            for name, root in checkouts.items()
        }
        turns = [take_turn(workers, number) for number in range(options.turns)]
    results = {"environment": environment(options.threads), "model": options.model, "runs": summary(turns)}
    (RESULTS / "callers.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results))


def take_turn(workers: dict[str, CallersWorker], number: int) -> dict[tuple[str, str, int], dict[str, float]]:
    """Each run of each checkout, once."""
    found = {}
    for door, callers in RUNS:
        for name in sorted(workers, reverse=bool(number % 2)):
            if (name, door) != ("before", "tasks"):
                found[name, door, callers] = workers[name].call(door, callers)
    print(" ".join(f"{figure['texts_per_second']:.0f}" for figure in found.values()), flush=True)
    return found


def summary(turns: list[dict[tuple[str, str, int], dict[str, float]]]) -> list[dict[str, Any]]:
    """The medians, and those of the ratios."""
    runs = []
    for name, door, callers in turns[0]:
        figures = [turn[name, door, callers] for turn in turns]
        run: dict[str, Any] = {"checkout": name, "door": door, "callers": callers}
        run |= {key: median(figure[key] for figure in figures) for key in figures[0]}
        for ratio, other in (("of_all", (name, "all", 1)), ("of_before", ("before", door, callers))):
            if other in turns[0]:
                run[ratio] = median(
                    turn[name, door, callers]["texts_per_second"] / turn[other]["texts_per_second"] for turn in turns
                )
        print(run, flush=True)
        runs.append(run)
    return runs


if __name__ == "__main__":
    main()
