"""Compare two versions of gte_np, or one under two settings: python -m benchmarks.versions.

    git worktree add ../old v0.1.0
    python -m benchmarks.versions ../old .
    python -m benchmarks.versions .,GTE_NP_TARGET=native .

Each version is a checkout, and environment variables behind a comma. Both have a process of their own, which take
turns, run by run, on the same workloads. A ratio is the median of the paired ratios of all turns, second to first:
below 1, the second is faster. The last line is JSON: model -> engine -> workload -> ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks.compare import FOLDERS
from benchmarks.models import SHAPES, ensure_checkpoint
from benchmarks.worker import ROOT, Worker
from benchmarks.workloads import workloads

ENGINES = ("gte_np", "gte_np bfloat16", "gte_np int8")
BLOCK_SECONDS = 0.2  # a turn is as many runs as fit, at least one
WORKLOAD_SECONDS = 6.0  # of each version
TURNS = (5, 25)  # at least and at most


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("versions", nargs=2, metavar="CHECKOUT[,VARIABLE=VALUE]")
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for model in options.models:
        folder = FOLDERS / model
        ensure_checkpoint(model, folder)
        results[model] = {}
        for engine in options.engines:
            results[model][engine] = compare(engine, model, folder, options)
    print(json.dumps(results))


def compare(engine: str, model: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Workload -> ratio, printed as it is known."""
    ratios = {}
    with ExitStack() as stack:
        workers = []
        for version in options.versions:
            cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            worker = _worker(version)(engine, model, folder, options.threads, cache)
            workers.append(stack.enter_context(closing(worker)))
        for name in workloads(model, folder):
            ratios[name] = ratio(workers, name)
            print(f"{model:14} {engine:16} {name:10} {ratios[name]:.3f}", flush=True)
    return ratios


def ratio(workers: list[Worker], workload: str) -> float:
    """The median of the paired ratios of many turns."""
    for worker in workers:
        worker.run(workload, 32)  # warm up
    run = min(min(worker.run(workload, 32)) for worker in workers)
    block = max(1, int(BLOCK_SECONDS / run))
    turns = min(max(TURNS[0], int(WORKLOAD_SECONDS / (block * run))), TURNS[1])
    ratios = []
    for turn in range(turns):
        order = workers if turn % 2 else workers[::-1]
        times = {}
        for worker in order:
            time.sleep(0.02)  # until the threads of the one before have gone to sleep
            times[worker] = statistics.median(worker.run(workload, 32, block))
        ratios.append(times[workers[1]] / times[workers[0]])
    return statistics.median(ratios)


def _worker(version: str) -> type[Worker]:
    checkout, *settings = version.split(",")
    values = dict(setting.split("=", 1) for setting in settings)
    return type("VersionWorker", (Worker,), {"root": (ROOT / checkout).resolve(), "variables": values})


if __name__ == "__main__":
    main()
