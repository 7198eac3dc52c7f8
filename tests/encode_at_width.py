"""A program: encode a batch with the kernels for the processor that NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name.

Its arguments are checkpoint folders, a .npz file of token ids and their offsets, and a .npz file to write the hidden
states of each folder to, and of the last one in fewer bits. It prints the width of a vector, so many float32 values.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from gte_np.kernels.processor import processor

from gte_np import BertModel, TokenBatch

FEWER = ("bfloat16", "int8")


def main(folders: list[Path], source: Path, target: Path) -> None:
    """Run the program."""
    with np.load(source) as arrays:
        batch = TokenBatch.from_ids(np.split(arrays["ids"], arrays["offsets"][1:-1]))
    states: dict[str, Any] = {}
    for folder, dtype in [*((folder, "float32") for folder in folders), *((folders[-1], dtype) for dtype in FEWER)]:
        model = BertModel.from_folder(folder, backend="numba", dtype=dtype)
        states[folder.name if dtype == "float32" else dtype] = model.encode_batch(batch).last_hidden_state
    np.savez(target, **states)
    print(processor().vector_width)


if __name__ == "__main__":
    *paths, ids, states = map(Path, sys.argv[1:])
    main(paths, ids, states)
