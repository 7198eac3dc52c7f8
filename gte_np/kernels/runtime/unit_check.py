"""A matrix unit is used once it has given the right sums: a virtual machine may show one that does not work.

Kernels that were built ahead of time are checked so, at no cost; those that are compiled here are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gte_np.formats import WeightFormat
from gte_np.formats.bfloat16 import round_to_bfloat16
from gte_np.formats.stored_tensor import NUMPY_DTYPES, StoredTensor
from gte_np.kernels.targets.matrix_units import TILE

_LARGEST = 100  # of whole numbers that every product takes, and whose sums are exact


def unit_is_right(weight_format: WeightFormat, panel: int, multiply_tiles: Callable[..., None]) -> bool:
    """Whether `gte_np.kernels.operations.matrix_unit.multiply_tiles`, compiled, gives the sums that NumPy gives."""
    random = np.random.default_rng(0)
    depth = TILE * weight_format.values_of_word
    x, weights = (random.integers(0, _LARGEST, (rows, depth)) for rows in (2 * TILE, panel))
    x_words = _words(weight_format, x)  # (rows, TILE)
    weight_words = np.ascontiguousarray(_words(weight_format, weights).T)  # (TILE, panel)
    sums = np.zeros((2 * TILE + 1, panel), np.float32)
    multiply_tiles(x_words.ctypes.data, weight_words.ctypes.data, sums.ctypes.data)
    found = sums if weight_format.stored == "bfloat16" else sums.view(np.int32)
    return np.array_equal(found[: 2 * TILE], x @ weights.T)


def _words(weight_format: WeightFormat, values: Any) -> Any:
    stored = weight_format.stored
    is_bfloat16 = stored == "bfloat16"
    data = round_to_bfloat16(values.astype(np.float32)) if is_bfloat16 else values.astype(NUMPY_DTYPES[stored])
    return weight_format.words({"": StoredTensor(stored, data)}, slice(None))
