"""Attention by a matrix unit in bfloat16: 32 queries meet 32 keys, and their exponentials 32 features, at a time.

Queries, keys, values and exponentials are rounded to bfloat16; all sums are in float32. A word has two values that
are neighbours along the depth of a product:

    keys     panels of (K/2, 32) words: two features of each of 32 keys       scores = queries keys
    values   panels of (keys/2, 32) words: of two keys, each of 32 features   context = exponentials values

Keys are filled up to whole tiles: with zeros along the depth of the second product, else with whatever is there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gte_np.kernels.language.memory import (
    load,
    offset,
    panel_like,
    panel_width,
    smaller,
    store,
    store_bfloat16,
    store_bfloat16_pairs,
    transpose_block,
)
from gte_np.kernels.language.types import LANES, Pointer, kernel
from gte_np.kernels.language.vectors import splat
from gte_np.kernels.operations.activations import write_operand
from gte_np.kernels.operations.attention_head import Head, divide_row, exponentiate_rows, score_scale
from gte_np.kernels.operations.matmul import Linear, Matrix, Operand, matrix_at, row_of
from gte_np.kernels.operations.matrix_unit import configure_unit, multiply_block, release_unit
from gte_np.kernels.targets.matrix_units import BFLOAT16_DEPTH, UNIT_ROWS

_ZERO = np.float32(0)


class Panels(NamedTuple):
    """(columns / panel width, steps, panel width) words: columns are filled up to whole panels."""

    words: Pointer
    columns: int
    steps: int


class Scratch(NamedTuple):
    """Where a head's operands and the results of a block of queries lie.

    See `gte_np.kernels.runtime.workspace.unit_attention_scratch`.
    """

    keys: Panels  # (keys, K / 2)
    values: Panels  # (head width, keys / 2)
    scores: Matrix  # (UNIT_ROWS, keys), and LANES values behind each row; then words of exponentials
    queries: Matrix  # (UNIT_ROWS, K / 2) words
    context: Matrix  # (UNIT_ROWS, head width)
    sums: Pointer  # (UNIT_ROWS,)
    zeros: Pointer  # (panel width,), what all sums begin with


@kernel
def divided(head: Head, memory: Pointer) -> Scratch:
    """Scratch memory, divided."""
    half = head.width // 2
    columns = (head.keys + BFLOAT16_DEPTH - 1) // BFLOAT16_DEPTH * BFLOAT16_DEPTH  # no panel is wider
    keys = Panels(memory, columns, half)
    values = Panels(offset(memory, columns * half), head.width, columns // 2)
    scores = Matrix(offset(values.words, columns * half), columns + LANES)
    queries = Matrix(row_of(scores, UNIT_ROWS), half)
    context = Matrix(row_of(queries, UNIT_ROWS), head.width)
    sums = row_of(context, UNIT_ROWS)
    return Scratch(keys, values, scores, queries, context, sums, offset(sums, UNIT_ROWS))


@kernel
def attend_by_unit(weights: Pointer, head: Head, memory: Pointer) -> None:
    """softmax(query key^T / sqrt(head size)) value, for UNIT_ROWS queries at a time.

    `weights` is any pointer to packed weights in bfloat16, for its target; `memory` is scratch memory. The head's
    width is a multiple of two tiles.
    """
    scratch = divided(head, memory)
    for column in range(0, panel_width(weights), LANES):
        store(scratch.zeros, column, splat(_ZERO))
    pack_keys(weights, head, scratch)
    pack_values(weights, head, scratch)
    configure_unit(weights)
    for row in range(0, head.queries, UNIT_ROWS):
        attend_block(weights, head, scratch, row, smaller(UNIT_ROWS, head.queries - row))
    release_unit(weights)


@kernel
def pack_keys(weights: Pointer, head: Head, scratch: Scratch) -> None:
    """(keys, K) -> `keys` in panels."""
    panel, words = panel_width(weights), scratch.context  # of 16 keys: not yet in use
    for row in range(0, head.keys, LANES):
        round_rows(weights, LANES, matrix_at(head.key, row, 0), head.width, words)
        out = offset(scratch.keys.words, row // panel * panel * scratch.keys.steps + row % panel)
        for word in range(0, scratch.keys.steps, LANES):
            transpose_block(offset(words.data, word), words.stride, offset(out, word * panel), panel)


@kernel
def pack_values(weights: Pointer, head: Head, scratch: Scratch) -> None:
    """(keys, K) -> `values` in panels, with zeros behind the last key."""
    panel, steps, zero = panel_width(weights), scratch.values.steps, splat(_ZERO)
    for key in range(0, 2 * steps, 2):
        first, second = row_of(head.value, key), row_of(head.value, key + 1)
        for feature in range(0, head.width, LANES):
            place = (feature // panel * steps + key // 2) * panel + feature % panel
            of_first = load(first, feature) if key < head.keys else zero
            of_second = load(second, feature) if key + 1 < head.keys else zero
            store_bfloat16_pairs(scratch.values.words, place, of_first, of_second)


@kernel
def round_rows(weights: Pointer, rows: int, source: Matrix, width: int, words: Matrix) -> None:
    """(rows, width) -> (rows, width / 2) words of bfloat16; the width is a multiple of LANES."""
    for row in range(rows):
        write_operand(weights, row_of(source, row), width, Operand(words, words.data), row)


@kernel
def attend_block(weights: Pointer, head: Head, scratch: Scratch, row: int, rows: int) -> None:
    """Attention of so many queries, from number `row` on."""
    round_rows(weights, rows, matrix_at(head.query, row, 0), head.width, scratch.queries)
    multiply(weights, rows, scratch.queries, scratch.keys, scratch.scores, scratch)
    exponentiate_rows(rows, scratch.scores, head.keys, score_scale(head), scratch.sums)
    for index in range(rows):
        round_exponentials(weights, row_of(scratch.scores, index), head.keys, scratch.keys.columns)
    multiply(weights, rows, scratch.scores, scratch.values, scratch.context, scratch)
    for index in range(rows):
        context, out = row_of(scratch.context, index), row_of(head.out, row + index)
        divide_row(context, scratch.sums[index], head.width, out)


@kernel
def multiply(weights: Pointer, rows: int, x: Matrix, y: Panels, out: Matrix, scratch: Scratch) -> None:
    """(rows, steps) words, panels of (steps, columns) words -> (rows, columns)."""
    zeros = scratch.zeros
    for column in range(0, y.columns, panel_width(weights)):
        words = panel_like(offset(y.words, column * y.steps), weights)
        linear = Linear(words, zeros, zeros, 0, y.steps, 0)
        multiply_block(rows, x, linear, zeros, matrix_at(out, 0, column))


@kernel
def round_exponentials(weights: Pointer, row: Pointer, keys: int, columns: int) -> None:
    """Exponentials -> words of two of them, in place, with zeros behind the last one."""
    write_operand(weights, row, keys, Operand(Matrix(row, columns), row), 0)
    whole = (keys + LANES - 1) // LANES * LANES
    if whole < columns:  # by one vector, since a tile has two; for a loop LLVM would call memset, which is not there
        store_bfloat16(row, whole, splat(_ZERO))
