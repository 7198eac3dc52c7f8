"""The matrix product by a matrix unit: 32 rows of x and 32 output features, in four registers of sums.

                     weights  w0   w1        a step reads 16 words of each row and of each output feature
    rows  0 to 15    x0       s00  s01
    rows 16 to 31    x1       s10  s11       two registers of x, two of weights, four products

The sums of a block of rows go to scratch memory. They are finished from there, as a tile's accumulators are, while
the unit multiplies the next block: it takes 16 cycles for a product, in which the processor does other things. Rows
of x behind the last one are multiplied, too, whatever they hold; only their sums are left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gte_np.formats.int8 import FACTORS
from gte_np.formats.weight_format import ProductStep
from gte_np.kernels.language.emitter import Emitter
from gte_np.kernels.language.memory import offset, panel_width, smaller
from gte_np.kernels.language.types import INT64, LANES, Pointer, kernel
from gte_np.kernels.operations.functions import emit_gelu, rows_of_gelu, rows_of_gelu_on
from gte_np.kernels.operations.matmul import (
    PREFETCH_BYTES,
    Ahead,
    Linear,
    Matrix,
    Operand,
    Panel,
    fields,
    first_panel,
    matrix_at,
    operand_at,
    part_ahead,
)
from gte_np.kernels.targets.matrix_units import TILE, UNIT_ROWS, MatrixUnit

_FIRST_X, _FIRST_WEIGHTS = 4, 6  # registers; those before are of sums, row by row


class Block(NamedTuple):
    """Up to UNIT_ROWS rows of a product: what is multiplied, where its sums lie, and where the results go."""

    rows: int
    x: Operand
    sums: Matrix
    out: Matrix


@kernel
def unit_panel(rows: int, x: Operand, linear: Linear, out: Matrix, scratch: Pointer) -> None:
    """(rows, in), the first panel of a linear layer -> (rows, panel width); the depth is a multiple of TILE words.

    `scratch` gets the sums of two blocks, and behind them what sums begin with.
    """
    configure_unit(linear.weight)
    width = panel_width(linear.weight)
    start = offset(scratch, 2 * UNIT_ROWS * width)
    write_start(linear, start)
    blocks = (rows + UNIT_ROWS - 1) // UNIT_ROWS
    before = Block(0, x, Matrix(scratch, width), out)
    for block in range(blocks):
        row = block * UNIT_ROWS
        sums = Matrix(offset(scratch, block % 2 * UNIT_ROWS * width), width)
        height = smaller(UNIT_ROWS, rows - row)
        here = Block(height, operand_at(x, row), sums, matrix_at(out, row, 0))
        multiply_beside(here, before, linear, start, asked_by(block, blocks, linear))
        before = here
    for row in range(0, before.rows, rows_of_gelu(linear.weight)):
        finish_rows(linear, before, row)
    release_unit(linear.weight)


@kernel
def asked_by(block: int, blocks: int, linear: Linear) -> Ahead:
    """What a block asks for: its part of the next panel, or, if there are no others, what it reads itself soon."""
    words_of_step = TILE * panel_width(linear.weight)
    if blocks == 1:
        return Ahead(offset(linear.weight, PREFETCH_BYTES // 4), words_of_step)
    return part_ahead(block, blocks, words_of_step, linear)


@kernel
def multiply_beside(here: Block, before: Block, linear: Linear, start: Pointer, ahead: Ahead) -> None:
    """The sums of a block. Meanwhile the block before is finished, a few rows after each step."""
    start_sums(linear.weight, here.rows, start)
    finished = 0
    for step in range(0, linear.steps, TILE):
        for word in range(0, ahead.words, LANES):
            prefetch(ahead.weight, step // TILE * ahead.words + word)
        multiply_step(here.rows, here.x.words, linear, step)
        while finished * linear.steps < before.rows * (step + TILE):
            finish_rows(linear, before, finished)
            finished += rows_of_gelu(linear.weight)
    store_sums(linear.weight, here.rows, here.sums)


@kernel
def multiply_block(rows: int, x: Matrix, linear: Linear, start: Pointer, sums: Matrix) -> None:
    """(rows, in), the first panel of a Linear -> (rows, panel width), for 1 to UNIT_ROWS rows.

    All sums begin with the values of `start`, (panel width,). They are written for whole tiles of rows.
    """
    start_sums(linear.weight, rows, start)
    for step in range(0, linear.steps, TILE):
        multiply_step(rows, x, linear, step)
    store_sums(linear.weight, rows, sums)


@kernel
def multiply_tiles(x: Pointer, weights: Pointer, sums: Pointer) -> None:
    """(UNIT_ROWS, TILE), (TILE, panel width) words -> (UNIT_ROWS, panel width); behind these lies a row of zeros."""
    configure_unit(weights)
    width = panel_width(weights)
    linear = Linear(weights, sums, sums, 0, TILE, 0)
    multiply_block(UNIT_ROWS, Matrix(x, TILE), linear, offset(sums, UNIT_ROWS * width), Matrix(sums, width))
    release_unit(weights)


@intrinsic
def prefetch(typing: Any, weights: Any, word: Any) -> Any:
    """Ask for a word of packed weights."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        emit = Emitter(builder)
        emit.prefetch(emit.at(*arguments), 0)
        return context.get_dummy_value()

    return types.void(weights, types.intp), codegen


def _of_unit(emit: Callable[[MatrixUnit, Emitter], None]) -> Any:
    """The intrinsic that gets a pointer to packed weights, and emits something for the unit of their target."""

    def typed(typing: Any, weights: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            emit(weights.dtype.target.matrix_unit, Emitter(builder))
            return context.get_dummy_value()

        return types.void(weights), codegen

    return intrinsic(typed)


configure_unit = _of_unit(lambda unit, emit: unit.configure(emit))
release_unit = _of_unit(lambda unit, emit: unit.release(emit))


def _row_of(emit: Emitter, matrix: ir.Value, row: ir.Value) -> ir.Value:
    """The pointer to a row of a Matrix."""
    pointer, stride = fields(emit.builder, matrix, 2)
    return emit.at(pointer, emit.builder.mul(stride, row))


def _tiles(builder: ir.IRBuilder, rows: ir.Value, emit_for: Callable[[int], None]) -> None:
    """Emit something for one tile of rows and for two, and the choice between them."""
    with builder.if_else(builder.icmp_signed("<=", rows, INT64(TILE))) as (then, otherwise):
        with then:
            emit_for(1)
        with otherwise:
            emit_for(2)


@intrinsic
def start_sums(typing: Any, weights: Any, rows: Any, start: Any) -> Any:
    """Registers of sums of so many rows, each of which begins with `start`, (panel width,)."""
    target = weights.dtype.target

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        _, count, begin = arguments
        emit, vectors = Emitter(builder), target.panel // LANES

        def load(tiles: int) -> None:
            for register in range(tiles * vectors):
                target.matrix_unit.load(emit, register, emit.at(begin, register % vectors * LANES), INT64(0))

        _tiles(builder, count, load)
        return context.get_dummy_value()

    return types.void(weights, types.intp, start), codegen


@intrinsic
def store_sums(typing: Any, weights: Any, rows: Any, sums: Any) -> Any:
    """Write the registers of sums, whole tiles of rows."""
    target = weights.dtype.target

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        _, count, matrix = arguments
        emit, vectors = Emitter(builder), target.panel // LANES
        _, stride = fields(builder, matrix, 2)

        def store(tiles: int) -> None:
            for register in range(tiles * vectors):
                row = _row_of(emit, matrix, INT64(register // vectors * TILE))
                target.matrix_unit.store(emit, register, emit.at(row, register % vectors * LANES), stride)

        _tiles(builder, count, store)
        return context.get_dummy_value()

    return types.void(weights, types.intp, sums), codegen


@intrinsic
def multiply_step(typing: Any, rows: Any, x: Any, linear: Any, step: Any) -> Any:
    """Add the products of TILE words of so many rows with the first panel of a Linear to the registers of sums."""
    packed = linear.types[0].dtype
    unit, product = packed.target.matrix_unit, packed.format.tile_product

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        count, matrix, layer, place = arguments
        emit, (panel, _) = Emitter(builder, packed.target), first_panel(builder, packed, layer)
        _, stride = fields(builder, matrix, 2)
        weights, vectors = panel.weight_at(emit, place, 0), len(panel.vectors)

        def multiply(tiles: int) -> None:
            for tile in range(tiles):
                row = _row_of(emit, matrix, INT64(tile * TILE))
                unit.load(emit, _FIRST_X + tile, emit.at(row, place), stride)
            for vector, first in enumerate(panel.vectors):
                unit.load(emit, _FIRST_WEIGHTS + vector, emit.at(weights, first), INT64(panel.width))
            for register in range(tiles * vectors):
                tile, vector = divmod(register, vectors)
                unit.multiply_add(emit, product, register, _FIRST_X + tile, _FIRST_WEIGHTS + vector)

        _tiles(builder, count, multiply)
        return context.get_dummy_value()

    return types.void(types.intp, x, linear, types.intp), codegen


@intrinsic
def write_start(typing: Any, linear: Any, start: Any) -> Any:
    """What all sums of the first panel of a Linear begin with, (panel width,)."""
    packed = linear.types[0].dtype

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        layer, begin = arguments
        emit, (panel, _) = Emitter(builder, packed.target), first_panel(builder, packed, layer)
        step = packed.format.step(packed.target)
        panel.store_row(emit, [emit.as_floats(value) for value in step.start(emit, step.columns(emit, panel))], begin)
        return context.get_dummy_value()

    return types.void(linear, start), codegen


@kernel
def finish_rows(linear: Linear, block: Block, row: int) -> None:
    """Finish up to `rows_of_gelu` rows of a block, from number `row` on: its sums become results."""
    _finish_rows(linear, block, row)


@intrinsic
def _finish_rows(typing: Any, linear: Any, block: Any, row: Any) -> Any:
    packed = linear.types[0].dtype
    at_once = rows_of_gelu_on(packed.target)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        layer, of_rows, first = arguments
        builder.function.attributes.add("noinline")  # it is called at two places, from small loops
        emit, (panel, _) = Emitter(builder, packed.target), first_panel(builder, packed, layer)
        results = _Results(packed.format.step(packed.target), panel, *fields(builder, of_rows, 4)[1:])
        last = builder.sub(builder.extract_value(of_rows, 0), INT64(1))
        numbers = [builder.add(first, INT64(number)) for number in range(at_once)]
        # Where there are fewer rows, the last one is done again.
        rows = [builder.select(builder.icmp_signed("<", row, last), row, last) for row in numbers]
        vectors = [vector for row in rows for vector in results.of_row(emit, row)]
        has_gelu = builder.extract_value(layer, Linear._fields.index("gelu"))
        with builder.if_else(builder.icmp_signed("==", has_gelu, INT64(1))) as (gelu, no_gelu):
            with gelu:
                results.store(emit, rows, emit_gelu(emit, vectors))
            with no_gelu:
                results.store(emit, rows, vectors)
        return context.get_dummy_value()

    return types.void(linear, block, types.intp), codegen


@dataclass
class _Results:
    """The results of a block while code is emitted. `x`, `sums` and `out` are tuples, as in a Block."""

    step: ProductStep
    panel: Panel
    x: ir.Value
    sums: ir.Value
    out: ir.Value

    def of_row(self, emit: Emitter, row: ir.Value) -> list[ir.Value]:
        """The vectors of a row."""
        columns, source = self.step.columns(emit, self.panel), _row_of(emit, self.sums, row)
        kinds = [value.type for value in self.step.start(emit, columns)]
        places = zip(self.panel.vectors, kinds, strict=True)
        totals = [emit.load_as(emit.at(source, first), kind, 4) for first, kind in places]
        _, factors = fields(emit.builder, self.x, 2)
        of_row = emit.at(factors, emit.builder.mul(row, INT64(FACTORS)))
        return self.step.finish(emit, totals, columns, self.panel, of_row)

    def store(self, emit: Emitter, rows: list[ir.Value], vectors: list[ir.Value]) -> None:
        """Write rows, and ask for the memory of the next block's, which may be in no near cache."""
        count = len(self.panel.vectors)
        for number, row in enumerate(rows):
            place = _row_of(emit, self.out, row)
            self.panel.store_row(emit, vectors[number * count : (number + 1) * count], place)
            next_place = _row_of(emit, self.out, emit.builder.add(row, INT64(UNIT_ROWS)))
            for first in self.panel.vectors:
                emit.prefetch(emit.at(next_place, first), 0)
