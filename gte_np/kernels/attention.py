"""Attention in one head of one text, for a tile of query tokens at a time: no (T, T) matrix is ever whole."""

from __future__ import annotations

import math

import numpy as np

from gte_np.kernels.functions import exp2
from gte_np.kernels.matmul import PANEL, TILE_ROWS, Matrix, matrix_at, tile_product, tiles_in
from gte_np.kernels.simd import (
    LANES,
    Pointer,
    first_lanes,
    fma,
    kernel,
    load,
    max_lanes,
    maximum,
    offset,
    splat,
    store,
    sum_lanes,
    transpose_block,
)

_LOWEST = np.float32(np.finfo(np.float32).min)
_ZERO = np.float32(0)
_ONE = np.float32(1)
_LOG2_E = np.float32(math.log2(math.e))


@kernel
def attend(
    queries: int,
    query: Matrix,
    keys: int,
    key: Matrix,
    value: Matrix,
    head_size: int,
    head_width: int,
    out: Matrix,
    scratch: Pointer,
) -> None:
    """softmax(Q K^T / sqrt(K)) V: (queries, K), (keys, K), (keys, K) -> (queries, K).

    Columns are padded from `head_size` to `head_width`, a multiple of PANEL. Rows of `key` are read up to the next
    multiple of LANES, whatever they hold. `scratch` is of `gte_np.kernels.workspace.attention_scratch`.
    """
    columns = (keys // PANEL + 1) * PANEL  # at least one more than keys, for `exponentiate`
    transposed = scratch  # (columns / PANEL, head_width, PANEL)
    values = Matrix(offset(transposed, columns * head_width), head_width)  # (keys, head_width)
    scores = Matrix(offset(values.data, keys * head_width), columns + LANES)  # (TILE_ROWS, columns)
    sums = offset(scores.data, TILE_ROWS * scores.stride)  # (TILE_ROWS,)
    context = Matrix(offset(sums, TILE_ROWS), head_width)  # (TILE_ROWS, head_width)
    transpose_keys(keys, key, head_width, transposed)
    copy_rows(keys, value, head_width, values)

    scale = np.float32(_ONE / np.float32(math.sqrt(head_size)))
    tiles = tiles_in(queries)
    for tile in range(tiles):
        row = queries * tile // tiles
        rows = queries * (tile + 1) // tiles - row
        tile_query = matrix_at(query, row, 0)
        for column in range(0, keys, PANEL):  # (rows, K), (K, PANEL) -> (rows, PANEL)
            panel = Matrix(offset(transposed, column * head_width), PANEL)
            product(rows, tile_query, panel, head_size, matrix_at(scores, 0, column))
        for index in range(rows):
            sums[index] = exponentiate(offset(scores.data, index * scores.stride), keys, scale)
        for column in range(0, head_width, PANEL):  # (rows, keys), (keys, PANEL) -> (rows, PANEL)
            product(rows, scores, matrix_at(values, 0, column), keys, matrix_at(context, 0, column))
        for index in range(rows):
            divide_row(
                offset(context.data, index * head_width), sums[index], head_width, matrix_at(out, row + index, 0)
            )


@kernel
def product(rows: int, x: Matrix, y: Matrix, depth: int, out: Matrix) -> None:
    """(rows, depth), (depth, PANEL) -> (rows, PANEL), for at most TILE_ROWS rows."""
    tile_product(rows, x, y, depth, None, out, None)


@kernel
def transpose_keys(keys: int, key: Matrix, head_width: int, transposed: Pointer) -> None:
    """(keys, K) -> (keys / PANEL, K, PANEL): panels whose columns are keys."""
    for row in range(0, keys, LANES):
        panel = offset(transposed, row // PANEL * PANEL * head_width + row % PANEL)
        for feature in range(0, head_width, LANES):
            block = matrix_at(key, row, feature)
            transpose_block(block.data, block.stride, offset(panel, feature * PANEL), PANEL)


@kernel
def copy_rows(rows: int, source: Matrix, width: int, target: Matrix) -> None:
    """(rows, width) -> (rows, width); the width is a multiple of LANES."""
    for row in range(rows):
        for column in range(0, width, LANES):
            store(target.data, row * target.stride + column, load(source.data, row * source.stride + column))


@kernel
def exponentiate(scores: Pointer, count: int, scale: np.float32) -> np.float32:
    """Replace each score by exp(scale (score - largest)), so that none overflows, and return their sum.

    LANES values behind the scores may be changed. The order of the sum depends on `count` alone. `scale` is positive.
    """
    whole = count // LANES * LANES
    largest = first_lanes(load(scores, whole), count - whole, _LOWEST)
    for index in range(0, whole, LANES):
        largest = maximum(load(scores, index), largest)
    factor = scale * _LOG2_E
    # The rounding of the shift is the same for all, so it is gone when they are divided by their sum.
    factors, shift = splat(factor), splat(max_lanes(largest) * -factor)
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
def divide_row(row: Pointer, divisor: np.float32, width: int, out: Matrix) -> None:
    """out = row / divisor, of a width that is a multiple of LANES."""
    factor = splat(_ONE / divisor)
    for column in range(0, width, LANES):
        store(out.data, column, load(row, column) * factor)
