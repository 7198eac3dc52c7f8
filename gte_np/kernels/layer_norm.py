"""Layer normalisation, with what is added up before it, and the embeddings, which end with one."""

from __future__ import annotations

import math

import numpy as np

from gte_np.kernels.matmul import Matrix
from gte_np.kernels.simd import LANES, Pointer, first_lanes, fma, kernel, load, offset, splat, store, sum_lanes

_ZERO = np.float32(0)
_ONE = np.float32(1)


@kernel
def normalize_row(row: Pointer, width: int, weight: Pointer, bias: Pointer, eps: np.float32) -> None:
    """Give `width` values mean 0 and variance 1, then scale and shift, in place.

    The lanes behind the last value, up to the next multiple of LANES, must hold zeros, and do so afterwards: `weight`
    and `bias` are padded with zeros.
    """
    total = splat(_ZERO)
    for column in range(0, width, LANES):
        total = total + load(row, column)
    mean = splat(sum_lanes(total) / np.float32(width))
    squares = splat(_ZERO)
    for column in range(0, width, LANES):
        centred = first_lanes(load(row, column) - mean, width - column, _ZERO)
        squares = fma(centred, centred, squares)
    variance = sum_lanes(squares) / np.float32(width)
    scale = splat(_ONE / np.float32(math.sqrt(variance + eps)))
    for column in range(0, width, LANES):
        centred = load(row, column) - mean
        store(row, column, fma(centred * scale, load(weight, column), load(bias, column)))


@kernel
def add_and_normalize(
    rows: int, x: Matrix, added: Matrix, width: int, weight: Pointer, bias: Pointer, eps: np.float32
) -> None:
    """x = layer_norm(x + added): (rows, D), (rows, D) -> (rows, D)."""
    for index in range(rows):
        row = offset(x.data, index * x.stride)
        added_row = offset(added.data, index * added.stride)
        for column in range(0, width, LANES):
            store(row, column, load(row, column) + load(added_row, column))
        normalize_row(row, width, weight, bias, eps)


@kernel
def embed_token(word: Pointer, kind: Pointer, position: Pointer, width: int, row: Pointer) -> None:
    """row = word + token type + position: three table rows of D values, each read up to a multiple of LANES."""
    for column in range(0, width, LANES):
        total = load(word, column) + load(kind, column) + load(position, column)
        store(row, column, first_lanes(total, width - column, _ZERO))
