"""Compare engines side by side: python -m benchmarks.compare [MODEL ...].

Each engine is in a process of its own, has loaded the same weights and gets the same token ids and the same number of
threads; the processes take turns, round after round, one at work at a time. A batch size is tried for each engine and
workload, and the best one is kept. Prints a table for each model; the last line is JSON, which is also written to
benchmarks/results/compare.json: medians, in seconds and megabytes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines import DISTRIBUTIONS, ENGINES
from benchmarks.models import SHAPES
from benchmarks.worker import ROOT, Worker
from benchmarks.workloads import workloads
from gte_np.doctor import report

RESULTS = Path(__file__).resolve().parent / "results"
FOLDERS = ROOT / ".models" / "benchmarks"
BATCH_SIZES = (8, 32, 128)
DEFAULT_BATCH_SIZE = 32
BLOCK_SECONDS = 0.4  # a turn is as many runs as fit, at least one
ROUNDS = 5
COLD_ROUNDS = 3
SLOW = ("gte_np (NumPy)", "transformers", "sentence-transformers")  # at most three rounds, of one batch size
WITHOUT_COLD = ("gte_np (NumPy)",)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=list(SHAPES), choices=[[], *SHAPES])
    parser.add_argument("--engines", nargs="*", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--output", type=Path, default=RESULTS / "compare.json")
    options = parser.parse_args()
    results: dict[str, Any] = {"environment": environment(options.threads), "models": {}}
    with tempfile.TemporaryDirectory() as cache:
        for model in options.models or SHAPES:  # the first of them finds no compiled kernels
            folder = FOLDERS / model
            subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "benchmarks.models", model, str(folder)], check=True
            )
            if "gte_np" in options.engines and "first_start" not in results:
                results["first_start"] = cold_start("gte_np", model, folder, options.threads, Path(cache))
            result = compare(model, folder, options, Path(cache))
            results["models"][model] = result
            print_table(model, result)
    results["installed_mb"] = {engine: installed_size(names) for engine, names in DISTRIBUTIONS.items()}
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results))


def environment(threads: int) -> dict[str, Any]:
    """What the figures depend on."""
    packages = ["gte_np", *{name for names in DISTRIBUTIONS.values() for name in names}, "numba", "numpy"]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": report()["processor"],
        "kernels": report()["kernels"].split(", compiled")[0],
        "processors": os.cpu_count(),
        "threads": threads,
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in sorted(packages)},
    }


def compare(model: str, folder: Path, options: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """All figures of one model."""
    with ExitStack() as stack:
        workers = []
        for engine in options.engines:
            worker = Worker(engine, model, folder, options.threads, cache)
            workers.append(stack.enter_context(closing(worker)))
        agreement = check_agreement(workers)
        loads = workloads(model, folder)
        times = {name: measure(workers, name, len(load.ids), options.rounds) for name, load in loads.items()}
        times["mixed, batch_size=32"] = take_turns(
            workers, "mixed", dict.fromkeys(options.engines, DEFAULT_BATCH_SIZE), options.rounds
        )
        best = {engine: figure["batch_size"] for engine, figure in times["mixed"].items()}
        times["mixed, from text"] = take_turns(workers, "mixed", best, options.rounds, text=True)
        memory = {worker.engine: worker.memory() | {"load": worker.load["seconds"]} for worker in workers}
    cold = [engine for engine in options.engines if engine not in WITHOUT_COLD]
    return {
        "times": times,
        "tokens": {name: load.tokens for name, load in loads.items()},
        "memory_mb": memory,
        "cold_start": cold_starts(cold, model, folder, options.threads, cache),
        "agreement": agreement,
    }


def check_agreement(workers: list[Worker]) -> float:
    """The smallest cosine between two engines' vectors; also the first, untimed run of each."""
    vectors = [worker.vectors("16 x 128") for worker in workers]
    smallest = min(float((vectors[0] * other).sum(axis=1).min()) for other in vectors)
    assert smallest > 0.9999, f"the engines do not compute the same: cosine {smallest}"
    return smallest


def measure(workers: list[Worker], workload: str, texts: int, rounds: int) -> dict[str, Any]:
    """Figures of each engine at its best batch size."""
    sizes = dict.fromkeys((worker.engine for worker in workers), DEFAULT_BATCH_SIZE)
    if texts > 1:
        sizes |= {worker.engine: best_batch_size(worker, workload) for worker in workers if worker.engine not in SLOW}
    return take_turns(workers, workload, sizes, rounds)


def best_batch_size(worker: Worker, workload: str) -> int:
    """The batch size of the fastest of one run each."""
    return min(BATCH_SIZES, key=lambda size: worker.run(workload, size)[0])


def take_turns(
    workers: list[Worker], workload: str, sizes: dict[str, int], rounds: int, text: bool = False
) -> dict[str, Any]:
    """Median seconds of each engine over all rounds."""
    seconds: dict[str, list[float]] = {worker.engine: [] for worker in workers}
    repeats = {worker.engine: 1 for worker in workers}
    for number in range(rounds + 1):
        for worker in workers:
            engine = worker.engine
            if engine in SLOW and number > min(rounds, 3):
                continue
            time.sleep(0.05)  # until the threads of the one before have gone to sleep
            times = worker.run(workload, sizes[engine], repeats[engine], text)
            repeats[engine] = max(1, int(BLOCK_SECONDS / min(times)))
            if number or min(times) > 5:  # the first round warms up, unless it takes long
                seconds[engine] += times
    return {
        engine: {"seconds": statistics.median(times), "fastest": min(times), "batch_size": sizes[engine]}
        for engine, times in seconds.items()
    }


def cold_starts(engines: list[str], model: str, folder: Path, threads: int, cache: Path) -> dict[str, float]:
    """The median of some cold starts of each engine."""
    seconds: dict[str, list[float]] = {engine: [] for engine in engines}
    for _ in range(COLD_ROUNDS):
        for engine in engines:
            seconds[engine].append(cold_start(engine, model, folder, threads, cache))
    return {engine: statistics.median(times) for engine, times in seconds.items()}


def cold_start(engine: str, model: str, folder: Path, threads: int, cache: Path) -> float:
    """Seconds from the start of a process to the first vector of a text."""
    start = time.perf_counter()
    with closing(Worker(engine, model, folder, threads, cache)) as worker:
        worker.run("1 x 12", 1, text=True)
        return time.perf_counter() - start


def installed_size(names: list[str]) -> float:
    """Megabytes of the files of these distributions and of all that they require."""
    found: dict[str, int] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:  # required on other systems only
            continue
        files = [Path(str(package.locate_file(file))) for file in package.files or []]
        found[name] = sum(file.stat().st_size for file in files if file.is_file())
        waiting += [_name(line) for line in package.requires or [] if "extra ==" not in line]
    if "gte-np" in found:  # installed in place, so its files are not listed
        found["gte-np"] = sum(file.stat().st_size for file in (ROOT / "gte_np").rglob("*.py"))
    return sum(found.values()) / 1e6


def _name(requirement: str) -> str:
    for end in " ;<>=!~[(":
        requirement = requirement.split(end)[0]
    return requirement


def print_table(model: str, result: dict[str, Any]) -> None:
    """Milliseconds, a column for each engine."""
    engines = list(next(iter(result["times"].values())))
    print(f"\n{model:<22}" + "".join(f"{engine:>23}" for engine in engines))
    for workload, figures in result["times"].items():
        cells = (f"{figures[engine]['seconds'] * 1e3:.1f}" for engine in engines)
        print(f"{workload:<22}" + "".join(f"{cell:>23}" for cell in cells), flush=True)
    for key in ("peak", "steady", "load"):
        print(f"{key:<22}" + "".join(f"{result['memory_mb'][engine][key]:>23.1f}" for engine in engines))
    print(
        f"{'cold start, s':<22}" + "".join(f"{result['cold_start'].get(engine, np.nan):>23.2f}" for engine in engines)
    )


if __name__ == "__main__":
    main()
