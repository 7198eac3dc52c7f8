"""Layer normalisation, and what is added up before it: the residual, or the embeddings."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gte_np.kernels.language.memory import load, store
from gte_np.kernels.language.types import LANES, Pointer, Vector, kernel
from gte_np.kernels.language.vectors import first_lanes, fma, splat, sum_lanes

_ZERO = np.float32(0)
_ONE = np.float32(1)


# Two accumulators, of every other vector: each addition waits for the one before in its accumulator.
_PAIR = 2 * LANES


class Norm(NamedTuple):
    """The weight and the bias of a layer norm, padded with zeros to a multiple of LANES, its width, and eps."""

    weight: Pointer
    bias: Pointer
    width: int
    eps: np.float32


@kernel
def normalize_row(row: Pointer, total: np.float32, norm: Norm) -> None:
    """Give the values of a row, whose sum is `total`, mean 0 and variance 1, then scale and shift, in place.

    The lanes behind the last value, up to the next multiple of LANES, hold zeros afterwards.
    """
    width = norm.width
    mean = splat(total / np.float32(width))
    variance = squares_around(mean, row, width) / np.float32(width)
    scale = splat(_ONE / np.float32(math.sqrt(variance + norm.eps)))
    for column in range(0, width, LANES):
        centred = load(row, column) - mean
        store(row, column, fma(centred * scale, load(norm.weight, column), load(norm.bias, column)))


@kernel
def squares_around(mean: Vector, row: Pointer, width: int) -> np.float32:
    """The sum of (value - mean)^2."""
    even, odd = splat(_ZERO), splat(_ZERO)
    pairs = width // _PAIR * _PAIR
    for column in range(0, pairs, _PAIR):
        x, y = load(row, column) - mean, load(row, column + LANES) - mean
        even, odd = fma(x, x, even), fma(y, y, odd)
    for column in range(pairs, width, LANES):
        x = first_lanes(load(row, column) - mean, width - column, _ZERO)
        even = fma(x, x, even)
    return sum_lanes(even + odd)


@kernel
def add_row(row: Pointer, added: Pointer, width: int) -> np.float32:
    """row = row + added; return the sum of it."""
    even, odd = splat(_ZERO), splat(_ZERO)
    pairs = width // _PAIR * _PAIR
    for column in range(0, pairs, _PAIR):
        x = load(row, column) + load(added, column)
        y = load(row, column + LANES) + load(added, column + LANES)
        store(row, column, x)
        store(row, column + LANES, y)
        even, odd = even + x, odd + y
    for column in range(pairs, width, LANES):
        x = load(row, column) + load(added, column)
        store(row, column, x)
        even = even + x
    return sum_lanes(even + odd)


@kernel
def add_embeddings(row: Pointer, token_type: Pointer, position: Pointer, width: int) -> np.float32:
    """row = row + token type + position, D values each, read up to a multiple of LANES; return the sum of it."""
    sums = splat(_ZERO)
    for column in range(0, width, LANES):
        total = load(row, column) + load(token_type, column) + load(position, column)
        total = first_lanes(total, width - column, _ZERO)
        store(row, column, total)
        sums = sums + total
    return sum_lanes(sums)
