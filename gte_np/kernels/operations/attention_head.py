"""One head of one text, and what is done row by row with its scores and its context."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gte_np.kernels.language.memory import load, store
from gte_np.kernels.language.types import LANES, Pointer, kernel
from gte_np.kernels.language.vectors import first_lanes, fma, max_lanes, maximum, splat, sum_lanes
from gte_np.kernels.operations.functions import exp2
from gte_np.kernels.operations.matmul import Matrix, row_of

_LOWEST = np.float32(np.finfo(np.float32).min)
_ZERO = np.float32(0)
_ONE = np.float32(1)
_LOG2_E = np.float32(math.log2(math.e))


class Head(NamedTuple):
    """One head of one text: (queries, K), (keys, K), (keys, K) -> (queries, K).

    Columns are padded from `size`, K, to `width`, a multiple of the panel width. Rows of `key` are read up to the
    next multiple of LANES, whatever they hold.
    """

    queries: int
    keys: int
    query: Matrix
    key: Matrix
    value: Matrix
    out: Matrix
    size: int
    width: int


@kernel
def score_scale(head: Head) -> np.float32:
    """What a query's product with a key is multiplied by: 1 / sqrt(K)."""
    return np.float32(_ONE / np.float32(math.sqrt(head.size)))


@kernel
def exponentiate_rows(rows: int, scores: Matrix, count: int, scale: np.float32, sums: Pointer) -> None:
    """Replace each of (rows, count) scores by exp(scale (score - the row's largest)); -> (rows,) sums of them.

    LANES values behind those of a row may be changed. The order of a sum depends on `count` alone, and `scale` is
    positive.
    """
    # First the largest score of every row: exponentials wait for it, and would keep the next row from being begun.
    for row in range(rows):
        sums[row] = largest_of(row_of(scores, row), count)
    for row in range(rows):
        sums[row] = exponentiate(row_of(scores, row), count, scale, sums[row])


@kernel
def largest_of(scores: Pointer, count: int) -> np.float32:
    """The largest of so many scores; LANES values behind them are read, but do not count."""
    whole = count // LANES * LANES
    largest = first_lanes(load(scores, whole), count - whole, _LOWEST)
    for index in range(0, whole, LANES):
        largest = maximum(load(scores, index), largest)
    return max_lanes(largest)


@kernel
def exponentiate(scores: Pointer, count: int, scale: np.float32, largest: np.float32) -> np.float32:
    """Replace each score by exp(scale (score - largest)), so that none overflows, and return their sum.

    LANES values behind the scores may be changed.
    """
    whole = count // LANES * LANES
    factor = scale * _LOG2_E
    # The rounding of the shift is the same for all, so it is gone when they are divided by their sum.
    factors, shift = splat(factor), splat(largest * -factor)
    total = splat(_ZERO)
    for index in range(0, whole, LANES):
        exponential = exp2(fma(load(scores, index), factors, shift))
        store(scores, index, exponential)
        total = total + exponential
    exponential = exp2(fma(load(scores, whole), factors, shift))
    exponential = first_lanes(exponential, count - whole, _ZERO)
    store(scores, whole, exponential)
    return sum_lanes(total + exponential)


@kernel
def divide_row(row: Pointer, divisor: np.float32, width: int, out: Pointer) -> None:
    """out = row / divisor, of a width that is a multiple of LANES."""
    factor = splat(_ONE / divisor)
    for column in range(0, width, LANES):
        store(out, column, load(row, column) * factor)
