"""What fewer bits cost and buy, on published weights and real sentences: python -m benchmarks.quality.

all-MiniLM-L6-v2 encodes 3,000 sentences with each engine and dtype, each in a process of its own, in turns. Vectors
are compared with those of float32: their cosines, and how alike the rankings are, by the ten nearest sentences of
each and by Spearman's correlation of similarities. The last line is JSON, which is also written to
benchmarks/results/quality.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.compare import BATCH_SIZES, FOLDERS, RESULTS, best_of, environment, take_turns
from benchmarks.engines import FEWER_BITS
from benchmarks.worker import Worker
from scripts.fetch_minilm import FOLDER as MINILM

FLOAT32 = ("gte_np", "onnxruntime", "openvino", "ctranslate2", "transformers")
THREADS = 2
NEAREST = 10
QUERIES = 500  # sentences whose similarities with all others are ranked for Spearman's correlation

FloatArray = NDArray[np.float32]


def main() -> None:
    """Measure, print, write."""
    folder = FOLDERS / MINILM.name
    subprocess.run([sys.executable, "-W", "ignore", "-m", "benchmarks.models", MINILM.name, str(folder)], check=True)
    with ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = [
            stack.enter_context(closing(Worker(engine, MINILM.name, folder, THREADS, cache)))
            for engine in (*FLOAT32, *FEWER_BITS)
        ]
        vectors = {worker.engine: worker.vectors("sentences") for worker in workers}
        times = best_of([take_turns(workers, "sentences", size) for size in BATCH_SIZES])
    exact = vectors["gte_np"]
    engines = {}
    for engine, found in vectors.items():
        speed = len(exact) / times[engine]["seconds"]
        engines[engine] = agreement(found, exact) | {"sentences_per_second": speed}
        print(f"{engine:<24}" + "".join(f"  {name} {value:.5f}" for name, value in engines[engine].items()))
    results = {"environment": environment(THREADS), "sentences": len(exact), "engines": engines}
    (RESULTS / "quality.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results))


def agreement(vectors: FloatArray, exact: FloatArray) -> dict[str, float]:
    """How alike (B, D) vectors of length 1 are to exact ones, and their rankings."""
    cosines = (vectors * exact).sum(axis=1)
    return {
        "cosine_mean": float(cosines.mean()),
        "cosine_worst": float(cosines.min()),
        "top10_overlap": top_overlap(vectors, exact),
        "spearman": spearman(vectors[:QUERIES] @ vectors.T, exact[:QUERIES] @ exact.T),
    }


def top_overlap(vectors: FloatArray, exact: FloatArray) -> float:
    """The mean share of each sentence's nearest ones that are the same."""
    same = [len(np.intersect1d(*pair)) for pair in zip(_nearest(vectors), _nearest(exact), strict=True)]
    return float(np.mean(same)) / NEAREST


def _nearest(vectors: FloatArray) -> Any:
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -2)  # not itself
    return np.argpartition(-similarities, NEAREST, axis=1)[:, :NEAREST]


def spearman(first: FloatArray, second: FloatArray) -> float:
    """The correlation of the ranks of all values; equal values are so rare that their order does not matter."""
    ranks = [values.reshape(-1).argsort().argsort() for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


if __name__ == "__main__":
    main()
