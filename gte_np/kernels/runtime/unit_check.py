"""A matrix unit is used once it has given the right sums: a virtual machine may show one that does not work.

Kernels that were built ahead of time are checked so, at no cost; those that are compiled here are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gte_np.formats import FORMATS, WeightFormat
from gte_np.formats.stored_tensor import StoredTensor
from gte_np.kernels.targets import Target
from gte_np.kernels.targets.matrix_units import TILE, UNIT_ROWS

_LARGEST = 127  # of whole numbers that every format holds, and whose sums are exact


def unit_functions(target: Target) -> dict[str, WeightFormat]:
    """The names of the compiled functions that multiply tiles in each format whose product the unit has."""
    return {f"multiply_tiles_{each.name}": each for each in FORMATS if target.multiplies_tiles(each.tile_product)}


def unit_is_right(weight_format: WeightFormat, target: Target, multiply_tiles: Callable[..., None]) -> bool:
    """Whether `gte_np.kernels.operations.matrix_unit.multiply_tiles`, compiled, gives the sums that NumPy gives."""
    is_rounded = target.rounds_in_tiles(weight_format.tile_product)
    random = np.random.default_rng(0)
    depth = TILE * weight_format.values_of_word
    x, weights = (random.integers(0, _LARGEST, (rows, depth)) for rows in (UNIT_ROWS, target.panel))
    x_words = _words(weight_format, x)  # (UNIT_ROWS, TILE)
    weight_words = np.ascontiguousarray(_words(weight_format, weights).T)  # (TILE, panel)
    sums = np.zeros((UNIT_ROWS + 1, target.panel), np.float32 if is_rounded else np.int32)
    multiply_tiles(x_words.ctypes.data, weight_words.ctypes.data, sums.ctypes.data)
    return np.array_equal(sums[:UNIT_ROWS], x @ weights.T)


def _words(weight_format: WeightFormat, values: Any) -> Any:
    """(rows, depth) whole numbers as words, (rows, TILE); the first of each row becomes the largest."""
    values[:, 0] = _LARGEST  # so that a format with a scale for each row stores the numbers themselves
    matrix = weight_format.encode(StoredTensor("float32", values.astype(np.float32)))
    return weight_format.words(matrix.parts, slice(None))
