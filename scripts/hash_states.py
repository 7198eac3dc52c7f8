"""Hash what the kernels compute, bit for bit, to show that a change of the code changes no number.

    python -m scripts.hash_states            # compare with tests/golden/state_hashes.json
    python -m scripts.hash_states --write    # make that file anew

Each row is a checkpoint (all-MiniLM-L6-v2's published weights, or random float16 weights of a GTE model's shape) in
a dtype, on a processor: this one, and older ones whose instructions it has too. Every processor runs in a process of
its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from gte_np import BertModel, TokenBatch
from scripts.fetch_minilm import FOLDER
from tests.samples import SHAPES, ids_of_length, write_shape

HASHES = Path("tests/golden/state_hashes.json")
DTYPES = ("float32", "bfloat16", "int8")
LENGTHS = (1, 2, 5, 12, 33, 128, 14)
_SSE = "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16"
_AVX2 = f"{_SSE},+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe"
PROCESSORS: dict[str, dict[str, str]] = {
    "here": {},
    "haswell": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": _AVX2},
    "nehalem": {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": _SSE},
}


def main() -> int:
    """Run the command line; return 1 if a hash has changed."""
    parser = argparse.ArgumentParser(description="Hash what the kernels compute.")
    parser.add_argument("--write", action="store_true", help="write the hashes instead of comparing them")
    parser.add_argument("--folders", nargs="+", type=Path, help=argparse.SUPPRESS)  # of a process for one processor
    options = parser.parse_args()
    if options.folders:
        print(json.dumps({folder.name: hashes_of(folder) for folder in options.folders}))
        return 0
    found = hashes_of_all()
    if options.write:
        HASHES.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        return 0
    expected = json.loads(HASHES.read_text(encoding="utf-8"))
    for processor, folders in expected.items():
        for folder, dtypes in folders.items():
            for dtype, digest in dtypes.items():
                same = found[processor][folder][dtype] == digest
                print(f"{processor:8} {folder:18} {dtype:9} {'equal' if same else 'CHANGED'}")
    return int(found != expected)


def hashes_of_all() -> dict[str, dict[str, dict[str, str]]]:
    """Processor -> checkpoint -> dtype -> hash."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = [FOLDER, *(write_shape(name, Path(temporary, name)) for name in SHAPES)]
        return {name: _run(variables, folders) for name, variables in PROCESSORS.items()}


def _run(variables: dict[str, str], folders: list[Path]) -> dict[str, dict[str, str]]:
    command = [sys.executable, "-m", "scripts.hash_states", "--folders", *map(str, folders)]
    done = subprocess.run(command, env=os.environ | variables, check=True, stdout=subprocess.PIPE)
    hashes: dict[str, dict[str, str]] = json.loads(done.stdout)
    return hashes


def hashes_of(folder: Path) -> dict[str, str]:
    """Dtype -> hash of all hidden states of a batch, and of those of the first tokens computed alone."""
    digests = {}
    for dtype in DTYPES:
        model = BertModel.from_folder(folder, backend="numba", dtype=dtype)
        batch = TokenBatch.from_ids([ids_of_length(length, model.config.vocab_size) for length in LENGTHS])
        every_layer = model.encode_batch(batch, keep_layers=True).hidden_states
        first_tokens = model.encode_batch(batch, rows=batch.offsets[:-1]).last_hidden_state
        states = [*(every_layer or []), first_tokens]
        digests[dtype] = hashlib.sha256(b"".join(state.tobytes() for state in states)).hexdigest()[:32]
    return digests


if __name__ == "__main__":
    sys.exit(main())
