"""Compare engines side by side: python -m benchmarks.compare.

Each engine is in a process of its own, has loaded the same weights, gets the same token ids and as many threads;
the processes take turns, round after round, one at work at a time. Each engine has its best batch size. Prints a
table for each model; the last line is JSON, which is also written to benchmarks/results/compare.json: medians, in
seconds and megabytes. With --fewer-bits, engines in bfloat16 and int8, and compare_fewer_bits.json.
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

from benchmarks.engines import DISTRIBUTIONS, ENGINES, FEWER_BITS
from benchmarks.models import SHAPES
from benchmarks.worker import ROOT, Worker
from benchmarks.workloads import workloads
from gte_np.doctor import report

RESULTS = Path(__file__).resolve().parent / "results"
FOLDERS = ROOT / ".models" / "benchmarks"
DEFAULT_BATCH_SIZE = 32
BATCH_SIZES = (DEFAULT_BATCH_SIZE, 8)
BLOCK_SECONDS = 0.3  # a turn is as many runs as fit, at least one
ENGINE_SECONDS = 5.0  # of a workload; what takes longer has fewer rounds, at least one
ROUNDS = 5
COLD_ROUNDS = 3
SLOW = (
    "gte_np (NumPy)",
    "transformers",
    "sentence-transformers",
    "transformers bfloat16",
)  # they have one batch size
WITHOUT_COLD = ("gte_np (NumPy)",)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--engines", nargs="*", choices=list(ENGINES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fewer-bits", action="store_true")
    options = parser.parse_args()
    output = RESULTS / ("compare_fewer_bits.json" if options.fewer_bits else "compare.json")
    if options.engines is None:
        options.engines = [name for name in ENGINES if (name in FEWER_BITS) == options.fewer_bits]
    results: dict[str, Any] = {"environment": environment(options.threads), "models": {}}
    with tempfile.TemporaryDirectory() as cache:
        for model in options.models:  # the first of them finds no compiled kernels
            folder = FOLDERS / model
            subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "benchmarks.models", model, str(folder)], check=True
            )
            if "first_start" not in results:
                compiled = [
                    name for name in options.engines if name.startswith("gte_np") and name not in WITHOUT_COLD
                ]
                starts = {name: cold_start(name, model, folder, options.threads, Path(cache)) for name in compiled}
                results["first_start"] = max(starts.values(), default=0.0)
            result = compare(model, folder, options, Path(cache))
            results["models"][model] = result
            print_table(model, result)
    results["installed_mb"] = {engine: installed_size(names) for engine, names in DISTRIBUTIONS.items()}
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
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
        "packages": {name: version(name) for name in sorted(packages) if installed_size([name])},
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
        times = {}
        for name, load in loads.items():
            sizes = BATCH_SIZES if len(load.ids) > 1 else BATCH_SIZES[:1]
            by_size = [take_turns(workers, name, size) for size in sizes]
            times[name] = best_of(by_size)
        times["mixed, batch_size=32"] = by_size[0]
        times["mixed, from text"] = take_turns(workers, "mixed", DEFAULT_BATCH_SIZE, text=True)
        memory = {worker.engine: worker.memory() | {"load": worker.load["seconds"]} for worker in workers}
    cold = [engine for engine in options.engines if engine not in (*WITHOUT_COLD, *FEWER_BITS)]
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
    assert smallest > (0.9 if set(FEWER_BITS) & {worker.engine for worker in workers} else 0.9999), (
        f"the engines do not compute the same: cosine {smallest}"
    )
    return smallest


def best_of(by_size: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of each engine at its best batch size."""
    return {
        engine: min(
            (figures[engine] for figures in by_size if engine in figures), key=lambda figure: figure["seconds"]
        )
        for engine in by_size[0]
    }


def take_turns(workers: list[Worker], workload: str, batch_size: int, text: bool = False) -> dict[str, Any]:
    """Median seconds of each engine over all rounds."""
    taking_part = [worker for worker in workers if batch_size == DEFAULT_BATCH_SIZE or worker.engine not in SLOW]
    first = {worker.engine: worker.run(workload, batch_size, text=text) for worker in taking_part}
    # The first run warms up; if it takes so long that there can be few others, it counts.
    seconds = {engine: times if times[0] > ENGINE_SECONDS / ROUNDS else [] for engine, times in first.items()}
    for number in range(1, ROUNDS + 1):
        for worker in taking_part:
            run = first[worker.engine][0]
            if (number + 1) * run > ENGINE_SECONDS and seconds[worker.engine]:
                continue
            time.sleep(0.05)  # until the threads of the one before have gone to sleep
            seconds[worker.engine] += worker.run(workload, batch_size, max(1, int(BLOCK_SECONDS / run)), text)
    return {
        engine: {
            "seconds": statistics.median(times),
            "fastest": min(times),
            "runs": len(times),
            "batch_size": batch_size,
        }
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
