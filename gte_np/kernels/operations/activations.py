"""Rows of float32 -> what a linear layer in bfloat16 or int8 multiplies with its weights.

A token is quantised by itself, so that its vector depends on no other. See `gte_np.formats.int8` for the numbers.
"""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from gte_np.kernels.language.emitter import ROUNDER
from gte_np.kernels.language.memory import load, offset, store_bfloat16, store_uint8
from gte_np.kernels.language.types import LANES, Pointer, Vector, kernel
from gte_np.kernels.language.vectors import (
    find_lane,
    fma,
    max_lanes,
    maximum,
    min_lanes,
    minimum,
    splat,
    sum_lanes,
    where_equal,
)
from gte_np.kernels.operations.matmul import Operand, operand_at

_ZERO = np.float32(0)
_ONE = np.float32(1)
_STEPS = np.float32(255)
_SMALLEST_SCALE = np.float32(1e-30)  # of a row whose values are zeros, say
_ROUNDER = np.float32(ROUNDER)


def write_operand(weights: Pointer, row: Pointer, width: int, operand: Operand, index: int) -> None:
    """Write row number `index` of an operand of products with `weights`; nothing if they take float32 as it is.

    `row` has values up to the next multiple of LANES behind `width`.
    """


@overload(write_operand, jit_options={"error_model": "numpy"})
def _write_operand(weights, row, width, operand, index):  # type: ignore[no-untyped-def]  # Numba compares signatures
    return ACTIVATIONS[weights.dtype.format.activations]


def _write_nothing(weights, row, width, operand, index):  # type: ignore[no-untyped-def]
    pass


def _write_bfloat16(weights, row, width, operand, index):  # type: ignore[no-untyped-def]
    words = offset(operand.words.data, index * operand.words.stride)
    for column in range(0, width, LANES):
        store_bfloat16(words, column, load(row, column))


def _write_uint8(weights, row, width, operand, index):  # type: ignore[no-untyped-def]
    quantize_row(row, width, operand_at(operand, index))


# By the names of `WeightFormat.activations`.
ACTIVATIONS = {"float32": _write_nothing, "bfloat16": _write_bfloat16, "uint8": _write_uint8}


@kernel
def quantize_row(row: Pointer, width: int, operand: Operand) -> None:
    """x = scale (byte - zero), and at one place, that of the largest |x|, scale rest more.

    The range of the others, and of zero, is spread over 256 steps. The first row of `operand` is written; its factors
    are scale, zero, rest and that place.
    """
    zeros = splat(_ZERO)
    highest, next_highest, lowest, next_lowest = zeros, zeros, zeros, zeros  # of each lane
    total = zeros
    for column in range(0, width, LANES):
        x = load(row, column)
        next_highest = maximum(next_highest, minimum(highest, x))
        highest = maximum(highest, x)
        next_lowest = minimum(next_lowest, maximum(lowest, x))
        lowest = minimum(lowest, x)
        total = total + x
    high, low = max_lanes(highest), min_lanes(lowest)
    outlier = high
    if high >= -low:
        high = max_lanes(without_one(highest, high, next_highest))
    else:
        outlier = low
        low = min_lanes(without_one(lowest, low, next_lowest))

    scale = (high - low) / _STEPS
    if scale < _SMALLEST_SCALE:
        scale = _ONE
    inverse = _ONE / scale
    zero = (-low * inverse + _ROUNDER) - _ROUNDER
    for column in range(0, width, LANES):
        exact = fma(load(row, column), splat(inverse), splat(zero))
        store_uint8(operand.words.data, column, minimum(maximum(exact, zeros), splat(_STEPS)))
    exact_outlier, factors = outlier * inverse + zero, operand.factors
    factors[0] = scale + sum_lanes(total) * _ZERO  # NaN if a value is, which no comparison would tell
    factors[1] = zero
    factors[2] = exact_outlier - ((clipped(exact_outlier) + _ROUNDER) - _ROUNDER)
    factors[3] = place_of(outlier, row, width)


@kernel
def clipped(x: np.float32) -> np.float32:
    """The nearest value that a byte can have, or NaN."""
    if x < _ZERO:
        return _ZERO
    return _STEPS if x > _STEPS else x


@kernel
def without_one(values: Vector, largest: np.float32, runners_up: Vector) -> Vector:
    """The values with the one that equals `largest` replaced by its lane's runner-up; none, if several do."""
    equal = where_equal(values, splat(largest), splat(_ONE), splat(_ZERO))
    if sum_lanes(equal) > _ONE:
        return values
    return where_equal(values, splat(largest), runners_up, values)


@kernel
def place_of(value: np.float32, row: Pointer, width: int) -> np.float32:
    """The number of the first value that is equal; 0 if none is."""
    for column in range(0, width, LANES):
        lane = find_lane(load(row, column), value)
        if lane < LANES:
            return np.float32(column + lane)
    return _ZERO
