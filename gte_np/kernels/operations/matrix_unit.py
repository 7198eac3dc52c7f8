"""The matrix product by a matrix unit: 32 rows of x and 32 output features, in four registers of sums.

                     weights  w0   w1        a step reads 16 words of each row and of each output feature
    rows  0 to 15    x0       s00  s01
    rows 16 to 31    x1       s10  s11       two registers of x, two of weights, four products

The sums of a linear layer go to scratch memory and are finished from there, as a tile's accumulators are. Rows of x
behind the last one are multiplied, too, whatever they hold; only their sums are left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gte_np.formats.int8 import FACTORS
from gte_np.kernels.language.emitter import Emitter
from gte_np.kernels.language.memory import panel_width, smaller
from gte_np.kernels.language.types import INT64, LANES, Pointer, kernel
from gte_np.kernels.operations.matmul import (
    Linear,
    Matrix,
    Operand,
    Panel,
    fields,
    first_panel,
    matrix_at,
    operand_at,
    row_of,
)
from gte_np.kernels.targets.matrix_units import TILE, UNIT_ROWS, MatrixUnit

_FIRST_X, _FIRST_WEIGHTS = 4, 6  # registers; those before are of sums, row by row


@kernel
def unit_panel(rows: int, x: Operand, linear: Linear, out: Matrix, scratch: Pointer) -> None:
    """(rows, in), the first panel of a linear layer -> (rows, panel width); the depth is a multiple of TILE words."""
    configure_unit(linear.weight)
    sums = Matrix(scratch, panel_width(linear.weight))
    start = row_of(sums, UNIT_ROWS)
    for row in range(0, rows, UNIT_ROWS):
        height = smaller(UNIT_ROWS, rows - row)
        multiply_block(height, operand_at(x, row), linear, sums, start, row == 0)
        finish_block(height, operand_at(x, row), linear, scratch, matrix_at(out, row, 0))
    release_unit(linear.weight)


@kernel
def multiply_tiles(x: Pointer, weights: Pointer, sums: Pointer) -> None:
    """(UNIT_ROWS, TILE), (TILE, panel width) words -> (UNIT_ROWS, panel width), and a row that is zeros before."""
    configure_unit(weights)
    out = Matrix(sums, panel_width(weights))
    start = row_of(out, UNIT_ROWS)
    linear = Linear(weights, sums, sums, 0, TILE)
    multiply_block(UNIT_ROWS, Operand(Matrix(x, TILE), x), linear, out, start, False)
    release_unit(weights)


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


@intrinsic
def multiply_block(typing: Any, rows: Any, x: Any, linear: Any, sums: Any, start: Any, is_first: Any) -> Any:
    """Operand, the first panel of a Linear -> (rows, panel width) sums, for 1 to UNIT_ROWS rows.

    Sums are written for whole tiles of rows. `start` is overwritten with a row of what all sums begin with. The first
    block of a panel asks for weights ahead.
    """
    packed = linear.types[0].dtype

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        count, operand, layer, out, begin, first = arguments
        words, _ = fields(builder, operand, 2)
        panel, x_and_sums = first_panel(builder, packed, layer), (fields(builder, words, 2), fields(builder, out, 2))
        block = _Block(Emitter(builder, packed.target), panel, *x_and_sums, begin, first)
        one = builder.icmp_signed("<=", count, INT64(TILE))
        with builder.if_else(one) as (then, otherwise):
            with then:
                block.emit(1)
            with otherwise:
                block.emit(2)
        return context.get_dummy_value()

    return types.void(types.intp, x, linear, sums, start, types.boolean), codegen


@intrinsic
def finish_block(typing: Any, rows: Any, x: Any, linear: Any, sums: Any, out: Any) -> Any:
    """(rows, panel width) sums in scratch memory -> (rows, panel width) results."""
    packed = linear.types[0].dtype

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        count, operand, layer, memory, target = arguments
        panel, _ = first_panel(builder, packed, layer)
        emit = Emitter(builder, packed.target)
        step = packed.format.step(packed.target)
        columns = step.columns(emit, panel)
        kinds = [value.type for value in step.start(emit, columns)]
        factors = fields(builder, operand, 2)[1]
        pointer, stride = fields(builder, target, 2)
        with cgutils.for_range(builder, count) as loop:
            row = loop.index
            source = emit.at(memory, builder.mul(row, INT64(panel.width)))
            totals = [
                emit.load_as(emit.at(source, first), kind, 4)
                for first, kind in zip(panel.vectors, kinds, strict=True)
            ]
            of_row = emit.at(factors, builder.mul(row, INT64(FACTORS)))
            results = step.finish(emit, totals, columns, panel, of_row)
            panel.store_row(emit, results, emit.at(pointer, builder.mul(stride, row)))
        return context.get_dummy_value()

    return types.void(types.intp, x, linear, sums, out), codegen


class _Block:
    """The products of a block of rows with a panel while code is emitted. `x` and `sums` are pointers and strides.

    `panel` comes with its depth in steps.
    """

    def __init__(
        self,
        emit: Emitter,
        panel: tuple[Panel, ir.Value],
        x: list[ir.Value],
        sums: list[ir.Value],
        start: ir.Value,
        is_first: ir.Value,
    ) -> None:
        self.emitter, self.x, self.sums, self.start, self.is_first = emit, x, sums, start, is_first
        self.panel, self.steps = panel
        packed = self.panel.packed
        unit, product = packed.target.matrix_unit, packed.format.tile_product
        assert unit is not None, "no block is emitted for other targets"
        assert product is not None, "nor for other formats"
        self.unit, self.product = unit, product
        self.vectors = len(self.panel.vectors)
        self.stride = INT64(self.panel.width)

    def emit(self, tiles: int) -> None:
        """Of so many tiles of 16 rows."""
        emit, builder = self.emitter, self.emitter.builder
        places = [(tile, vector) for tile in range(tiles) for vector in range(self.vectors)]
        self._start(places)
        with cgutils.for_range_slice(builder, INT64(0), self.steps, INT64(TILE)) as (step, _):
            self._step(step, tiles, places)
        for tile, vector in places:
            self.unit.store(emit, self._sum(tile, vector), *self._at(self.sums, tile, vector * LANES))

    def _sum(self, tile: int, vector: int) -> int:
        return tile * self.vectors + vector

    def _start(self, places: list[tuple[int, int]]) -> None:
        """All rows begin with the same values."""
        emit, step = self.emitter, self.panel.packed.format.step(self.panel.packed.target)
        starts = step.start(emit, step.columns(emit, self.panel))
        self.panel.store_row(emit, [emit.as_floats(value) for value in starts], self.start)
        for tile, vector in places:
            self.unit.load(emit, self._sum(tile, vector), emit.at(self.start, vector * LANES), INT64(0))

    def _at(self, rows: list[ir.Value], tile: int, column: ir.Value | int) -> tuple[ir.Value, ir.Value]:
        """The pointer to a column of a tile's first row, and how far rows lie apart."""
        emit, (pointer, stride) = self.emitter, rows
        row = emit.at(pointer, emit.builder.mul(stride, INT64(tile * TILE)))
        return emit.at(row, column), stride

    def _step(self, step: ir.Value, tiles: int, places: list[tuple[int, int]]) -> None:
        emit, builder = self.emitter, self.emitter.builder
        start = self.panel.weight_at(emit, step, 0)
        with builder.if_then(self.is_first):
            self.panel.prefetch(emit, start, TILE)
        for tile in range(tiles):
            self.unit.load(emit, _FIRST_X + tile, *self._at(self.x, tile, step))
        for vector, first in enumerate(self.panel.vectors):
            self.unit.load(emit, _FIRST_WEIGHTS + vector, emit.at(start, first), self.stride)
        for tile, vector in places:
            registers = self._sum(tile, vector), _FIRST_X + tile, _FIRST_WEIGHTS + vector
            self.unit.multiply_add(emit, self.product, *registers)
