"""The matrix product: nearly all of the encoder's arithmetic.

A tile of the result, TILE_ROWS x PANEL values, stays in registers while one loop runs over the depth of the product:
for each step a row of PANEL weights is loaded, and each row's value is broadcast and multiplied with it. (Goto and
van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008.) So every element is one chain of additions
in the order of the depth, begun with its bias: no other choice, of tiles, blocks or threads, can change a bit of it.

Weights lie in panels of PANEL output features, (out / PANEL, steps, PANEL), as `gte_np.kernels.packing` writes them:
the loop reads them from one end to the other. A step is one input feature in float32 arithmetic, and a word of two
bfloat16 or four int8 else: see `gte_np.kernels.arithmetic`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gte_np.kernels.arithmetic import Arithmetic, arithmetic_of
from gte_np.kernels.plan import FACTORS
from gte_np.kernels.processor import processor
from gte_np.kernels.simd import (
    LANES,
    MATRIX_TYPES,
    PackedType,
    Pointer,
    broadcast,
    element_at,
    filled,
    float32,
    is_float32,
    kernel,
    load_vector,
    multiply_add,
    offset,
    prefetch_bytes,
    store_vector,
    values_of_word,
)

TILE_ROWS, TILE_VECTORS = processor().tile
PANEL = processor().panel

# How far ahead weights are asked for, into the second cache, whose misses can be more than the first one's. Texts of
# few tokens read weights faster than they compute: with 8 KB, 12 rows in int8 run a fifth faster than with none or 2.
PREFETCH_BYTES = 8192

_INT8 = MATRIX_TYPES["int8x4"]
_CACHE_LINE = 64
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)


class Matrix(NamedTuple):
    """Rows in memory: a pointer to the first element, and how many elements each row lies behind the one before."""

    data: Pointer
    stride: int


class Operand(NamedTuple):
    """What a linear layer multiplies with its weights: rows of words, as a matrix of float32 whatever is in them.

    For int8, `factors` has four float32 for each row: see `gte_np.kernels.narrow`.
    """

    words: Matrix
    factors: Pointer


class Linear(NamedTuple):
    """A linear layer: panels of packed weights, the bias, the number of steps and of panels.

    For int8, `scales` has for each panel PANEL scales, then PANEL sums of weights, float32.
    """

    weight: Pointer
    bias: Pointer
    scales: Pointer
    steps: int
    panels: int


@kernel
def matrix_at(matrix: Matrix, row: int, column: int) -> Matrix:
    """The part of a matrix that begins at a row and a column."""
    return Matrix(offset(matrix.data, row * matrix.stride + column), matrix.stride)


@kernel
def operand_at(operand: Operand, row: int) -> Operand:
    """The part of an operand that begins at a row."""
    return Operand(matrix_at(operand.words, row, 0), offset(operand.factors, row * FACTORS))


@kernel
def panels_from(linear: Linear, panel: int) -> Linear:
    """The part of a linear layer that begins at a panel."""
    return Linear(
        offset(linear.weight, panel * PANEL * linear.steps),
        offset(linear.bias, panel * PANEL),
        offset(linear.scales, panel * PANEL * 2),
        linear.steps,
        linear.panels - panel,
    )


@intrinsic
def tile_product(typing: Any, rows: Any, x: Any, weights: Any, steps: Any, bias: Any, out: Any, widened: Any) -> Any:
    """out = x weights + bias: (rows, steps) Matrix, (steps, PANEL) Matrix, (PANEL,) pointer or None -> (rows, PANEL).

    `rows` is from 1 to TILE_ROWS; there is a loop for each number. If `widened` is a pointer and not None, the
    weights are also written there, as float32 and without holes. Not for int8.
    """
    stored = weights.types[0].dtype

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        if stored == _INT8 or (isinstance(stored, PackedType) and not is_none(widened)):
            return context.get_dummy_value()  # never called
        builder.function.attributes.add("noinline")  # one copy of these loops is enough, and compiles faster
        count, x_pair, weights_pair, depth, first, out_pair, kept = arguments
        loop = _Loop(
            arithmetic_of(stored),
            _pair(builder, x_pair),
            _pair(builder, weights_pair),
            depth,
            _step_bytes(stored),
            None if is_none(widened) else kept,
        )
        start = [_first_sum(builder, first, bias, v * LANES) for v in range(TILE_VECTORS)]
        out_rows = _pair(builder, out_pair)

        def tile(tile_rows: int) -> None:
            for row, totals in enumerate(loop.emit(builder, [start] * tile_rows)):
                _store_row(builder, out_rows, row, totals)

        _for_each_count(builder, count, tile)
        return context.get_dummy_value()

    return types.void(types.intp, x, weights, types.intp, bias, out, widened), codegen


@intrinsic
def int8_product(typing: Any, rows: Any, x: Any, linear: Any, out: Any) -> Any:
    """`tile_product` for int8: (rows, in) Operand, the first panel of a Linear -> (rows, PANEL).

    scale scales (sums + rest weights[place] - zero weight_sums) + bias: what a row's outlier has beyond its byte is
    added here, and what the bytes have that stand for zero is taken away.
    """
    stored = linear.types[0].dtype

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        if stored != _INT8:
            return context.get_dummy_value()  # never called
        builder.function.attributes.add("noinline")
        count, operand, layer, out_pair = arguments
        words, factors = (builder.extract_value(operand, place) for place in range(2))
        weight, bias, scales, steps = (builder.extract_value(layer, place) for place in range(4))
        arithmetic = arithmetic_of(stored)
        loop = _Loop(
            arithmetic, _pair(builder, words), (weight, _INT64(PANEL)), steps, _step_bytes(stored), widened=None
        )
        columns = [_Columns(builder, scales, bias, v * LANES) for v in range(TILE_VECTORS)]
        start = [arithmetic.first(builder, column.weight_sums) for column in columns]
        out_rows = _pair(builder, out_pair)

        def tile(tile_rows: int) -> None:
            for row, sums in enumerate(loop.emit(builder, [start] * tile_rows)):
                scaled = _scaled_row(builder, sums, columns, weight, element_at(builder, factors, row * FACTORS))
                _store_row(builder, out_rows, row, scaled)

        _for_each_count(builder, count, tile)
        return context.get_dummy_value()

    return types.void(types.intp, x, linear, out), codegen


def is_none(argument: Any) -> bool:
    """Whether the Numba type of an argument is that of None."""
    return isinstance(argument, types.NoneType)


def _pair(builder: ir.IRBuilder, pair: ir.Value) -> tuple[ir.Value, ir.Value]:
    return builder.extract_value(pair, 0), builder.extract_value(pair, 1)


def _step_bytes(stored: Any) -> int:
    """The size of a step's weights."""
    return PANEL * (4 if stored == float32 else int(stored.bits.width) // 8)


def _first_sum(builder: ir.IRBuilder, pointer: ir.Value, bias: Any, column: int) -> ir.Value:
    if is_none(bias):
        return filled(0.0)
    return load_vector(builder, element_at(builder, pointer, column), float32)


def _for_each_count(builder: ir.IRBuilder, count: ir.Value, emit: Callable[[int], None]) -> None:
    """A switch on the number of rows, with what `emit` builds for each."""
    end = builder.append_basic_block("end")
    switch = builder.switch(count, end)
    for tile_rows in range(1, TILE_ROWS + 1):
        block = builder.append_basic_block(f"rows_{tile_rows}")
        switch.add_case(_INT64(tile_rows), block)
        builder.position_at_end(block)
        emit(tile_rows)
        builder.branch(end)
    builder.position_at_end(end)


class _Loop(NamedTuple):
    """The loop over the steps of a product. A pair is a pointer and a stride."""

    arithmetic: Arithmetic
    x: tuple[ir.Value, ir.Value]
    weights: tuple[ir.Value, ir.Value]
    steps: ir.Value
    step_bytes: int
    widened: ir.Value | None

    def emit(self, builder: ir.IRBuilder, start: Any) -> list[list[ir.Value]]:
        """Build the loop for one number of rows. `start` and the result have vectors of sums, row by row."""
        x, x_stride = self.x
        x_rows = [element_at(builder, x, builder.mul(x_stride, _INT64(row))) for row in range(len(start))]
        before = builder.block
        loop = builder.append_basic_block("loop")
        builder.branch(loop)
        builder.position_at_end(loop)
        step = builder.phi(_INT64)
        step.add_incoming(_INT64(0), before)
        accumulators = [[builder.phi(value.type) for value in row] for row in start]
        columns = self._weights_at(builder, step)
        sums = []
        for row, row_totals in zip(x_rows, accumulators, strict=True):  # row by row: so few registers hold values
            value = self.arithmetic.value(builder, builder.load(element_at(builder, row, step)))
            sums.append(
                [self.arithmetic.add(builder, value, *pair) for pair in zip(columns, row_totals, strict=True)]
            )
        for totals, firsts, nexts in zip(accumulators, start, sums, strict=True):
            for total, first, following in zip(totals, firsts, nexts, strict=True):
                total.add_incoming(first, before)
                total.add_incoming(following, loop)
        following_step = builder.add(step, _INT64(1))
        step.add_incoming(following_step, loop)
        after = builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("<", following_step, self.steps), loop, after)
        builder.position_at_end(after)
        return sums

    def _weights_at(self, builder: ir.IRBuilder, step: ir.Value) -> list[Any]:
        weights, stride = self.weights
        at_step = element_at(builder, weights, builder.mul(step, stride))
        for line in range(0, self.step_bytes, _CACHE_LINE):
            prefetch_bytes(builder, at_step, PREFETCH_BYTES + line)
        vectors = range(0, PANEL, LANES)
        columns = [self.arithmetic.weights(builder, element_at(builder, at_step, column)) for column in vectors]
        if self.widened is not None:
            kept = element_at(builder, self.widened, builder.mul(step, _INT64(PANEL)))
            for column, vector in zip(vectors, columns, strict=True):
                store_vector(builder, vector, element_at(builder, kept, column))
        return columns


def _store_row(builder: ir.IRBuilder, out: tuple[ir.Value, ir.Value], row: int, values: list[ir.Value]) -> None:
    pointer, stride = out
    out_row = element_at(builder, pointer, builder.mul(stride, _INT64(row)))
    for v, value in enumerate(values):
        store_vector(builder, value, element_at(builder, out_row, v * LANES))


class _Columns:
    """What 16 columns of an int8 panel have: the places of its words, scales, sums of weights, biases."""

    def __init__(self, builder: ir.IRBuilder, scales: ir.Value, bias: ir.Value, first: int) -> None:
        self.first = first
        self.scale = load_vector(builder, element_at(builder, scales, first), float32)
        self.weight_sums = load_vector(builder, element_at(builder, scales, PANEL + first), float32)
        self.bias = load_vector(builder, element_at(builder, bias, first), float32)


def _scaled_row(
    builder: ir.IRBuilder, sums: list[ir.Value], columns: list[_Columns], weight: ir.Value, factors: ir.Value
) -> list[ir.Value]:
    """From the whole-number sums of a row to values: vectors of float32."""
    scale, zero, rest, place = (builder.load(element_at(builder, factors, number)) for number in range(FACTORS))
    place = builder.fptosi(place, _INT64)
    word = element_at(builder, weight, builder.mul(builder.lshr(place, _INT64(2)), _INT64(PANEL)))
    byte = builder.trunc(builder.and_(place, _INT64(3)), _INT32)
    shift = broadcast(builder, builder.sub(_INT32(24), builder.shl(byte, _INT32(3))))
    scale, below_zero, rest = (broadcast(builder, value) for value in (scale, builder.fneg(zero), rest))
    scaled = []
    for total, column in zip(sums, columns, strict=True):
        pointer = builder.bitcast(element_at(builder, word, column.first), shift.type.as_pointer())
        weights = builder.ashr(builder.shl(builder.load(pointer, align=4), shift), filled(24, shift.type))
        value = multiply_add(builder, rest, builder.sitofp(weights, _FLOATS), builder.sitofp(total, _FLOATS))
        value = multiply_add(builder, below_zero, column.weight_sums, value)
        scaled.append(multiply_add(builder, value, builder.fmul(scale, column.scale), column.bias))
    return scaled


@kernel
def tiles_in(rows: int) -> int:
    """How many tiles lie one above the other; they have equal numbers of rows, or one more."""
    return (rows + TILE_ROWS - 1) // TILE_ROWS


@kernel
def panel_product(rows: int, x: Matrix, weights: Matrix, steps: int, bias: Pointer | None, out: Matrix) -> None:
    """(rows, steps), (steps, PANEL), (PANEL,) or None -> (rows, PANEL), for any number of rows. Not for int8."""
    tiles = tiles_in(rows)
    for tile in range(tiles):
        row = rows * tile // tiles
        height = rows * (tile + 1) // tiles - row
        tile_product(height, matrix_at(x, row, 0), weights, steps, bias, matrix_at(out, row, 0), None)


@kernel
def linear_panel(rows: int, x: Operand, linear: Linear, out: Matrix, scratch: Pointer) -> None:
    """(rows, in), the first panel of a linear layer -> (rows, PANEL), for any number of rows.

    The first of several tiles leaves weights of 16 bits widened in `scratch`, steps * PANEL float32 values, for the
    others.
    """
    tiles = tiles_in(rows)
    if values_of_word(linear.weight) == 4:
        for tile in range(tiles):
            row = rows * tile // tiles
            height = rows * (tile + 1) // tiles - row
            int8_product(height, operand_at(x, row), linear, matrix_at(out, row, 0))
    elif values_of_word(linear.weight) == 2 or is_float32(linear.weight) == 1 or tiles == 1:
        panel_product(rows, x.words, Matrix(linear.weight, PANEL), linear.steps, linear.bias, out)
    else:
        height = rows // tiles
        tile_product(height, x.words, Matrix(linear.weight, PANEL), linear.steps, linear.bias, out, scratch)
        others = matrix_at(x.words, height, 0)
        widened = Matrix(scratch, PANEL)
        panel_product(rows - height, others, widened, linear.steps, linear.bias, matrix_at(out, height, 0))
