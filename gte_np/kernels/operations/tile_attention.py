"""Attention in float32, for a tile of query tokens at a time: no (T, T) matrix is ever whole."""

from __future__ import annotations

from typing import NamedTuple

from gte_np.kernels.language.memory import offset, panel_width, tile_rows, transpose_block
from gte_np.kernels.language.types import LANES, Pointer, kernel
from gte_np.kernels.operations.attention_head import Head, divide_row, exponentiate_rows, score_scale
from gte_np.kernels.operations.matmul import Matrix, copy_rows, float32_tile, matrix_at, row_of, tiles_of


class Scratch(NamedTuple):
    """Where a head's operands and a tile's results lie, see `gte_np.kernels.runtime.workspace.attention_scratch`."""

    keys: Pointer  # (columns / panel width, head width, panel width): keys transposed, in panels
    values: Matrix  # (keys, head width)
    scores: Matrix  # (tile rows, columns)
    sums: Pointer  # (tile rows,)
    context: Matrix  # (tile rows, head width)


@kernel
def divided(weights: Pointer, head: Head, memory: Pointer) -> Scratch:
    """Scratch memory, divided."""
    rows, width = tile_rows(weights), head.width
    # At least one more than keys: `exponentiate_rows` writes behind them.
    columns = (head.keys // panel_width(weights) + 1) * panel_width(weights)
    values = Matrix(offset(memory, columns * width), width)
    scores = Matrix(offset(values.data, head.keys * width), columns + LANES)
    sums = offset(scores.data, rows * scores.stride)
    return Scratch(memory, values, scores, sums, Matrix(offset(sums, rows), width))


@kernel
def attend_in_tiles(weights: Pointer, head: Head, memory: Pointer) -> None:
    """softmax(query key^T / sqrt(head size)) value, for a tile of queries at a time.

    `weights` is any pointer to packed weights, for its target; `memory` is scratch memory.
    """
    scratch = divided(weights, head, memory)
    transpose_keys(weights, head, scratch.keys)
    copy_rows(head.keys, head.value, head.width, scratch.values)
    tiles = tiles_of(weights, head.queries)
    for tile in range(tiles):
        row = head.queries * tile // tiles
        attend_tile(weights, head, scratch, row, head.queries * (tile + 1) // tiles - row)


@kernel
def attend_tile(weights: Pointer, head: Head, scratch: Scratch, row: int, rows: int) -> None:
    """Attention of so many queries, from number `row` on."""
    panel = panel_width(weights)
    query, scores, context = matrix_at(head.query, row, 0), scratch.scores, scratch.context
    for number in range((head.keys + panel - 1) // panel):  # (rows, K), (K, panel) -> (rows, panel)
        column = number * panel
        keys = Matrix(offset(scratch.keys, column * head.width), panel)
        product(weights, rows, query, keys, head.size, matrix_at(scores, 0, column))
    exponentiate_rows(rows, scores, head.keys, score_scale(head), scratch.sums)
    for number in range(head.width // panel):  # (rows, keys), (keys, panel) -> (rows, panel)
        column = number * panel
        values = matrix_at(scratch.values, 0, column)
        product(weights, rows, scores, values, head.keys, matrix_at(context, 0, column))
    for index in range(rows):
        divide_row(row_of(context, index), scratch.sums[index], head.width, row_of(head.out, row + index))


@kernel
def product(weights: Pointer, rows: int, x: Matrix, y: Matrix, depth: int, out: Matrix) -> None:
    """(rows, depth), (depth, panel) -> (rows, panel), for at most `tile_rows` rows."""
    float32_tile(weights, rows, x, y, depth, out)


@kernel
def transpose_keys(weights: Pointer, head: Head, panels: Pointer) -> None:
    """(keys, K) -> (keys / panel, K, panel): panels whose columns are keys."""
    width = panel_width(weights)
    for row in range(0, head.keys, LANES):
        panel = offset(panels, row // width * width * head.width + row % width)
        for feature in range(0, head.width, LANES):
            block = matrix_at(head.key, row, feature)
            transpose_block(block.data, block.stride, offset(panel, feature * width), width)
