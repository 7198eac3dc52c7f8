"""Read a .safetensors file as memory-mapped tensors, in the precision in which they are stored."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from gte_np.checkpoint.mapping import mapping
from gte_np.errors import CheckpointError
from gte_np.formats.stored_tensor import NUMPY_DTYPES, StoredTensor

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Return name -> tensor of a safetensors file; the data are read from the disk when they are used.

    The safetensors library checks the header: sizes, offsets, no holes, no overlaps. It has no bfloat16 for
    NumPy and copies what it reads, so the data are mapped here: tensors without holes follow each other.

    Raises CheckpointError for a file that is damaged or has an unknown dtype.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            headers = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: expected a complete safetensors file, got: {error}. Download the file again."
        ) from error
    with mapping(path):
        content = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)  # slices of a memmap are slow to make
    offset = 8 + int.from_bytes(content[:8].tobytes(), "little")  # the header's length, then the header
    tensors = {}
    for name, (dtype, shape) in headers.items():
        if dtype not in DTYPES:
            raise CheckpointError(f"{path}: expected {name} in one of {', '.join(DTYPES)}, got {dtype}.")
        elements = NUMPY_DTYPES[DTYPES[dtype]]
        size = prod(shape) * elements.itemsize
        try:
            data = content[offset : offset + size].view(elements).reshape(shape)
        except ValueError as error:  # no elements, but dimensions beyond what an array can have
            raise CheckpointError(f"{path}: expected a possible shape of {name!r:.120}, got: {error}.") from error
        tensors[name] = StoredTensor(DTYPES[dtype], data)
        offset += size
    return tensors
