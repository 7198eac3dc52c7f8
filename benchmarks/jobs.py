"""A job of many short texts: its peak memory, and its time beside that of the encoder: python -m benchmarks.jobs.

The model has two layers of all-MiniLM-L6-v2's shape and random weights. `gte-np embed` runs in a process of its own,
for a few texts and for many. The encoder alone gets the token ids of the same texts, in the same windows and batches.

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from gte_np import EmbeddingModel
from gte_np.encoder_interface import FloatArray
from gte_np.pipeline import Steps, process_windows, windows_of
from scripts.fetch_minilm import FOLDER as MINILM
from tests.checkpoints import two_layers

FEW, MANY = 10_000, 1_000_000


class Run(NamedTuple):
    """What a process took: seconds, and megabytes at its peak."""

    seconds: float
    megabytes: float


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=MANY)
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = two_layers(folder / "model", MINILM)
        few, many = (write_texts(folder / f"{count}.txt", count) for count in (FEW, options.texts))
        few_run, many_run = embed(model, few), embed(model, many)
        encoder = encoder_seconds(model, many)
    result = {
        "texts": options.texts,
        "peak_mb": round(many_run.megabytes),
        f"peak_mb_of_{FEW}": round(few_run.megabytes),
        "seconds": round(many_run.seconds, 1),
        "encoder_seconds": round(encoder, 1),
        "beyond_the_encoder": round(many_run.seconds / encoder - 1, 3),
    }
    for key, value in result.items():
        print(f"{key:<22} {value}")
    print(json.dumps(result))


def write_texts(path: Path, count: int) -> Path:
    """Texts of four to twelve words, all different."""
    random = Random(0)
    words = [word for word in (MINILM / "vocab.txt").read_text("utf-8").split() if word.isalpha()]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(" ".join(random.choices(words, k=random.randint(4, 12))) + "\n")
    return path


def embed(model: Path, texts: Path) -> Run:
    """Run the command."""
    output = texts.with_suffix(".npy")
    command = [sys.executable, "-m", "gte_np", "embed", str(model), str(texts), "-o", str(output)]
    begin = time.perf_counter()
    with subprocess.Popen(command) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"gte-np embed ended with status {process.returncode}")
    return Run(time.perf_counter() - begin, usage.ru_maxrss / 1024)


def encoder_seconds(folder: Path, texts: Path) -> float:
    """The time of the encoder and the pooling, given token ids."""
    model = EmbeddingModel(folder)
    windows = list(windows_of(texts.read_text("utf-8").splitlines()))
    tokens = iter([model.tokenize(window) for window in windows])

    steps: Steps[FloatArray] = Steps(lambda window: next(tokens), model.encode_tokens, lambda done: None)
    begin = time.perf_counter()
    for processed in process_windows(windows, steps, batch_size=32):
        np.stack(processed.results)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
