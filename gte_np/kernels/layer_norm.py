"""Layer normalisation, with what is added up before it, and the embeddings, which end with one."""

from __future__ import annotations

import math

import numpy as np

from gte_np.kernels.matmul import Matrix
from gte_np.kernels.simd import (
    LANES,
    Pointer,
    Vector,
    first_lanes,
    fma,
    kernel,
    load,
    offset,
    splat,
    store,
    sum_lanes,
)

_ZERO = np.float32(0)
_ONE = np.float32(1)


# Two sums of every other vector: each addition waits for the one before in its sum.
_PAIR = 2 * LANES


@kernel
def normalize_row(
    row: Pointer, total: np.float32, width: int, weight: Pointer, bias: Pointer, eps: np.float32
) -> None:
    """Give `width` values, whose sum is `total`, mean 0 and variance 1, then scale and shift, in place.

    The lanes behind the last value, up to the next multiple of LANES, hold zeros afterwards: `weight` and `bias` are
    padded with zeros.
    """
    mean = splat(total / np.float32(width))
    variance = squares_around(mean, row, width) / np.float32(width)
    scale = splat(_ONE / np.float32(math.sqrt(variance + eps)))
    for column in range(0, width, LANES):
        centred = load(row, column) - mean
        store(row, column, fma(centred * scale, load(weight, column), load(bias, column)))


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
def add_and_normalize(
    rows: int, x: Matrix, added: Matrix, width: int, weight: Pointer, bias: Pointer, eps: np.float32
) -> None:
    """x = layer_norm(x + added): (rows, D), (rows, D) -> (rows, D). Rows of both are padded with zeros."""
    for index in range(rows):
        row = offset(x.data, index * x.stride)
        total = add_row(row, offset(added.data, index * added.stride), width)
        normalize_row(row, total, width, weight, bias, eps)


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
def embed_token(
    word: Pointer, scale: np.float32, kind: Pointer, position: Pointer, width: int, row: Pointer
) -> np.float32:
    """row = scale word + token type + position: table rows of D values, each read up to a multiple of LANES.

    Return the sum of it.
    """
    sums = splat(_ZERO)
    for column in range(0, width, LANES):
        total = load(word, column) * splat(scale) + load(kind, column) + load(position, column)
        total = first_lanes(total, width - column, _ZERO)
        store(row, column, total)
        sums = sums + total
    return sum_lanes(sums)
