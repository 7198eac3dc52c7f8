"""The matrix product: nearly all of the encoder's arithmetic.

A tile of the result, TILE_ROWS x PANEL values, stays in registers while one loop runs over the depth of the product:
for each step a row of PANEL weights is loaded, and each row's value is broadcast and multiplied with it. (Goto and
van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008.) So every element is one chain of additions
in the order of the depth, begun with its bias: no other choice, of tiles, blocks or threads, can change a bit of it.

Weights lie in panels of PANEL output features, (out / PANEL, in, PANEL), as `gte_np.kernels.packing` writes them: the
loop reads them from one end to the other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gte_np.kernels.processor import processor
from gte_np.kernels.simd import (
    LANES,
    Pointer,
    broadcast,
    element_at,
    filled,
    float32,
    kernel,
    load_vector,
    multiply_add,
    offset,
    prefetch_bytes,
    store_vector,
)

TILE_ROWS, TILE_VECTORS = processor().tile
PANEL = processor().panel

# How far ahead weights are asked for. Texts of few tokens read weights faster than they compute: 2 KB ahead they
# reach 85 %, 8 KB ahead all of the speed that the data could have from the nearest cache.
PREFETCH_BYTES = 8192

_CACHE_LINE = 64
_INT64 = ir.IntType(64)


class Matrix(NamedTuple):
    """Rows in memory: a pointer to the first element, and how many elements each row lies behind the one before."""

    data: Pointer
    stride: int


@kernel
def matrix_at(matrix: Matrix, row: int, column: int) -> Matrix:
    """The part of a matrix that begins at a row and a column."""
    return Matrix(offset(matrix.data, row * matrix.stride + column), matrix.stride)


@intrinsic
def tile_product(typing: Any, rows: Any, x: Any, weights: Any, depth: Any, bias: Any, out: Any, widened: Any) -> Any:
    """out = x weights + bias: (rows, depth) Matrix, (depth, PANEL) Matrix, (PANEL,) pointer or None -> (rows, PANEL).

    `rows` is from 1 to TILE_ROWS; there is a loop for each number. If `widened` is a pointer and not None, the
    weights are also written there, as float32 and without holes.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        builder.function.attributes.add("noinline")  # one copy of these loops is enough, and compiles faster
        count, x_pair, weights_pair, steps, first, out_pair, kept = arguments
        operands = [
            (builder.extract_value(pair, 0), builder.extract_value(pair, 1))
            for pair in (x_pair, weights_pair, out_pair)
        ]
        start = [_first_sum(builder, first, bias, v * LANES) for v in range(TILE_VECTORS)]
        end = builder.append_basic_block("end")
        switch = builder.switch(count, end)
        for tile_rows in range(1, TILE_ROWS + 1):
            block = builder.append_basic_block(f"rows_{tile_rows}")
            switch.add_case(_INT64(tile_rows), block)
            builder.position_at_end(block)
            stored = weights.types[0].dtype
            _emit_tile(builder, [start] * tile_rows, operands, steps, stored, None if is_none(widened) else kept)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(types.intp, x, weights, types.intp, bias, out, widened), codegen


def is_none(argument: Any) -> bool:
    """Whether the Numba type of an argument is that of None."""
    return isinstance(argument, types.NoneType)


def _first_sum(builder: ir.IRBuilder, pointer: ir.Value, bias: Any, column: int) -> ir.Value:
    if is_none(bias):
        return filled(0.0)
    return load_vector(builder, element_at(builder, pointer, column), float32)


def _emit_tile(
    builder: ir.IRBuilder, start: Any, operands: Any, steps: ir.Value, stored: Any, widened: ir.Value | None
) -> None:
    """The loop over the depth for one number of rows; `start` has the accumulators' first values, row by row."""
    (x, x_stride), (weights, weights_stride), (out, out_stride) = operands
    x_rows = [element_at(builder, x, builder.mul(x_stride, _INT64(row))) for row in range(len(start))]
    before = builder.block
    loop = builder.append_basic_block("loop")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(_INT64)
    step.add_incoming(_INT64(0), before)
    accumulators = [[builder.phi(value.type) for value in row] for row in start]

    at_step = element_at(builder, weights, builder.mul(step, weights_stride))
    for line in range(0, PANEL * _size(stored), _CACHE_LINE):
        prefetch_bytes(builder, at_step, PREFETCH_BYTES + line)
    columns = [load_vector(builder, element_at(builder, at_step, v * LANES), stored) for v in range(TILE_VECTORS)]
    if widened is not None:
        kept = element_at(builder, widened, builder.mul(step, _INT64(PANEL)))
        for v, column in enumerate(columns):
            store_vector(builder, column, element_at(builder, kept, v * LANES))
    values = [broadcast(builder, builder.load(element_at(builder, row, step))) for row in x_rows]
    sums = [
        [multiply_add(builder, value, column, total) for column, total in zip(columns, row, strict=True)]
        for value, row in zip(values, accumulators, strict=True)
    ]

    for totals, firsts, nexts in zip(accumulators, start, sums, strict=True):
        for total, first, following in zip(totals, firsts, nexts, strict=True):
            total.add_incoming(first, before)
            total.add_incoming(following, loop)
    following_step = builder.add(step, _INT64(1))
    step.add_incoming(following_step, loop)
    after = builder.append_basic_block("store")
    builder.cbranch(builder.icmp_signed("<", following_step, steps), loop, after)
    builder.position_at_end(after)
    for row, totals in enumerate(sums):
        out_row = element_at(builder, out, builder.mul(out_stride, _INT64(row)))
        for v, total in enumerate(totals):
            store_vector(builder, total, element_at(builder, out_row, v * LANES))


def _size(stored: Any) -> int:
    return 4 if stored == float32 else 2


@kernel
def tiles_in(rows: int) -> int:
    """How many tiles lie one above the other; they have equal numbers of rows, or one more."""
    return (rows + TILE_ROWS - 1) // TILE_ROWS


@kernel
def panel_product(rows: int, x: Matrix, weights: Matrix, depth: int, bias: Pointer | None, out: Matrix) -> None:
    """(rows, depth), (depth, PANEL), (PANEL,) or None -> (rows, PANEL), for any number of rows."""
    tiles = tiles_in(rows)
    for tile in range(tiles):
        row = rows * tile // tiles
        height = rows * (tile + 1) // tiles - row
        tile_product(height, matrix_at(x, row, 0), weights, depth, bias, matrix_at(out, row, 0), None)


@kernel
def linear_panel(
    rows: int, x: Matrix, panel: Pointer, depth: int, bias: Pointer, out: Matrix, scratch: Pointer
) -> None:
    """`panel_product` with a packed panel of stored weights.

    The first of several tiles leaves the weights in `scratch`, depth * PANEL float32 values, for the others.
    """
    tiles = tiles_in(rows)
    if is_stored_wide(panel) or tiles == 1:
        panel_product(rows, x, Matrix(panel, PANEL), depth, bias, out)
    else:
        height = rows // tiles
        tile_product(height, x, Matrix(panel, PANEL), depth, bias, out, scratch)
        others = matrix_at(x, height, 0)
        panel_product(rows - height, others, Matrix(scratch, PANEL), depth, bias, matrix_at(out, height, 0))


@intrinsic
def is_stored_wide(typing: Any, pointer: Any) -> Any:
    """Whether a pointer is to float32 values; known when the kernel is compiled."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return context.get_constant(types.boolean, pointer.dtype == float32)

    return types.boolean(pointer), codegen
