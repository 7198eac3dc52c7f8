"""Time from the start of a process to its first vector: python -m benchmarks.cold_start.

The environment must have gte_np as a wheel installs it, with kernels that were built ahead of time, and the peers.
Each engine is a program of a few lines, as its users would write it, which loads a model and encodes one text;
programs take turns, each in a new process, with all files in the system's cache. "onnxruntime" is what fastembed
does: a tokenizer of the tokenizers library, a session, pooling by NumPy.

Prints medians in seconds; the last line is JSON, which is also written to benchmarks/results/cold_start.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.compare import FOLDERS, RESULTS, environment
from benchmarks.models import SHAPES, prepare
from gte_np import EmbeddingModel, Tokenizer

TEXT = "How long does it take until the first vector is there?"
THREADS = 2

GTE_NP = "from gte_np import EmbeddingModel\nprint(EmbeddingModel(sys.argv[1]).encode(TEXT)[:2])"
SENTENCE_TRANSFORMERS = """
from sentence_transformers import SentenceTransformer
print(SentenceTransformer(sys.argv[1], device="cpu").encode(TEXT)[:2])
"""
TOKENIZE = """
import numpy as np
from pathlib import Path
from tokenizers import Tokenizer
folder = Path(sys.argv[1])
ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids
"""
ONNXRUNTIME = """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = THREADS
session = onnxruntime.InferenceSession(folder / FILE, options, providers=["CPUExecutionProvider"])
feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
feeds["token_type_ids"] = np.zeros_like(feeds["attention_mask"])
wanted = {value.name for value in session.get_inputs()}
hidden = session.run(None, {name: value for name, value in feeds.items() if name in wanted})[0][0]
"""
CTRANSLATE2 = """
import ctranslate2
encoder = ctranslate2.Encoder(str(folder / "ctranslate2"), compute_type=TYPE, intra_threads=THREADS, inter_threads=1)
batch = ctranslate2.StorageView.from_array(np.array([ids], np.int32))
lengths = ctranslate2.StorageView.from_array(np.array([len(ids)], np.int32))
hidden = np.array(encoder.forward_batch(batch, lengths).last_hidden_state)[0]
"""
POOL = "vector = hidden.mean(0)\nprint((vector / np.linalg.norm(vector))[:2])"

# Engine -> its program, and the folder in a model's folder that it reads.
ENGINES = {
    "gte_np": (GTE_NP, ""),
    "gte_np int8": (GTE_NP, "int8"),
    "onnxruntime": (TOKENIZE + ONNXRUNTIME.replace("FILE", '"model.onnx"') + POOL, ""),
    "onnxruntime int8": (TOKENIZE + ONNXRUNTIME.replace("FILE", '"model_int8.onnx"') + POOL, ""),
    "ctranslate2": (TOKENIZE + CTRANSLATE2.replace("TYPE", '"float32"') + POOL, ""),
    "ctranslate2 int8": (TOKENIZE + CTRANSLATE2.replace("TYPE", '"int8"') + POOL, ""),
    "sentence-transformers": (SENTENCE_TRANSFORMERS, ""),
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["gte-small", "gte-large-zh"], choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    results = {"environment": environment(THREADS), "rounds": options.rounds, "models": {}}
    for model in options.models:
        folder = FOLDERS / model
        prepare_folders(model, folder)
        seconds = measure(folder, options.rounds)
        results["models"][model] = {name: statistics.median(times) for name, times in seconds.items()}
        for name, times in seconds.items():
            print(f"{model:14} {name:22} {statistics.median(times):.3f} s  (fastest {min(times):.3f})", flush=True)
    (RESULTS / "cold_start.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results))


def prepare_folders(model: str, folder: Path) -> None:
    """Write a model's files, for each engine, and the folder that gte_np saves in int8."""
    prepare(model, folder)
    if not (folder / "tokenizer.json").exists():
        Tokenizer.from_folder(folder)._encoder.backend.save(str(folder / "tokenizer.json"))
    saved = folder.with_name(f"{model}-int8")
    if not saved.exists():
        EmbeddingModel(folder, dtype="int8").save_pretrained(saved)


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each engine's processes, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ENGINES}
    for number in range(rounds + 1):
        for name, (program, saved) in ENGINES.items():
            place = folder.with_name(f"{folder.name}-{saved}") if saved else folder
            elapsed = run(program, place)
            if number:
                seconds[name].append(elapsed)
    return seconds


def run(program: str, folder: Path) -> float:
    """Seconds that a new process takes."""
    start = f"import sys\nTEXT, THREADS = {TEXT!r}, {THREADS}\n"
    with tempfile.TemporaryDirectory() as elsewhere:  # not beside this checkout's source
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", start + program, str(folder)],
            cwd=elsewhere,
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - begin


if __name__ == "__main__":
    main()
