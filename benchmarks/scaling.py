"""How the time of gte_np grows with length, batch and threads: python -m benchmarks.scaling.

In the shapes of the GTE models. "of_limit" is the arithmetic of linear layers and attention over the time, against
what all threads together reach in multiply-adds on registers, measured beside it. The last line is JSON, which is
also written to benchmarks/results/scaling.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.compare import FOLDERS, RESULTS, environment
from benchmarks.models import SHAPES
from benchmarks.peaks import Rate, peak
from gte_np import EmbeddingModel, TokenBatch
from gte_np.formats.float_formats import FLOAT32
from gte_np.kernels.targets.host import host_target

LENGTHS = (1, 7, 12, 13, 20, 32, 41, 64, 128, 256, 512)
BATCHES = (1, 4, 16)
BATCH_LENGTH = 128
SECONDS = 1.0


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    options = parser.parse_args()
    results: dict[str, Any] = {"environment": environment(threads=2), "models": {}}
    for model in options.models:
        folder = FOLDERS / model
        subprocess.run([sys.executable, "-W", "ignore", "-m", "benchmarks.models", model, str(folder)], check=True)
        for threads in (1, 2):
            bert = EmbeddingModel(folder, backend="numba", threads=threads).bert
            limit = peak(FLOAT32, host_target(), threads)
            for batch in [[length] for length in LENGTHS] + [[BATCH_LENGTH] * count for count in BATCHES[1:]]:
                figure = measure(bert.encode_batch, model, batch, limit)
                results["models"].setdefault(model, []).append(figure)
                print(model, figure, flush=True)
    (RESULTS / "scaling.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results))


def measure(encode: Callable[[TokenBatch], Any], model: str, lengths: list[int], limit: Rate) -> dict[str, Any]:
    """Seconds of a batch, and its arithmetic against the limit, in multiply-adds."""
    rng = np.random.default_rng(0)
    batch = TokenBatch.from_ids([rng.integers(0, 20000, length, dtype=np.int32) for length in lengths])
    encode(batch)
    times: list[float] = []
    peaks: list[float] = []
    while len(times) < 5 or sum(times) < SECONDS:
        peaks.append(limit())
        start = time.perf_counter()
        encode(batch)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    return {
        "texts": len(lengths),
        "tokens": lengths[0],
        "threads": limit.threads,
        "seconds": seconds,
        "of_limit": arithmetic(model, lengths) / seconds / max(peaks),
    }


def arithmetic(model: str, lengths: list[int]) -> float:
    """Multiply-adds of the linear layers and of attention, with all layers whole."""
    hidden, layers, _, inner, *_ = SHAPES[model]
    linear = sum(lengths) * (4 * hidden * hidden + 2 * hidden * inner)
    attention = 2 * hidden * sum(length * length for length in lengths)
    return float(layers * (linear + attention))


if __name__ == "__main__":
    main()
