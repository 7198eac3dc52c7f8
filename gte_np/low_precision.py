"""Weights in fewer bits: what dtype "bfloat16" and "int8" make of a matrix, and which matrices.

Everything else, such as biases and layer norms, stays as it was published.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gte_np.checkpoint.names import LAYER, WORDS
from gte_np.checkpoint.stored_tensor import StoredTensor

# Names in a layer, or among the embeddings, of what is stored in fewer bits.
MATRICES = (WORDS, *(name for name, axes in LAYER.items() if len(axes) == 2))

# The most input features of an int8 matrix: 32 bits hold the sum of so many products of 255 and -128.
MOST_FEATURES = 2**31 // (255 * 128)

_LARGEST = 127
_SMALLEST_SCALE = np.float32(1e-30)  # of a row of zeros, say
_ELEMENTS_AT_ONCE = 1 << 18  # they stay in a cache


def to_dtype(tensor: StoredTensor, dtype: str) -> StoredTensor:
    """The (out, in) matrix in "bfloat16" or "int8"; itself if it is so already, or for "float32"."""
    if dtype in ("float32", tensor.dtype):
        return tensor
    data = np.empty(tensor.shape, np.uint16 if dtype == "bfloat16" else np.int8)
    scale = np.empty(len(data), np.float32)
    step = max(1, _ELEMENTS_AT_ONCE // data.shape[1])
    for start in range(0, len(data), step):
        rows = slice(start, start + step)
        part = tensor.rows(rows).to_float32()
        if dtype == "bfloat16":
            data[rows] = round_to_bfloat16(part)
        else:
            data[rows], scale[rows] = quantize_rows(part)
    return StoredTensor(dtype, data, None if dtype == "bfloat16" else scale)


def round_to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The 16-bit patterns of the nearest bfloat16 values, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)


def quantize_rows(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(out, in) -> whole numbers from -127 to 127, (out, in), and a scale for each row, (out,): values / scale."""
    largest = np.abs(values).max(axis=1, keepdims=True)
    scale = np.maximum(largest / np.float32(_LARGEST), _SMALLEST_SCALE)
    return np.rint(values / scale).astype(np.int8), scale[:, 0]
