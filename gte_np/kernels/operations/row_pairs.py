"""The matrix product by an instruction for two rows of x and two output features, two words of each.

Rows go in pairs, and so do steps: weights are arranged once, in scratch memory, so that the words that two steps have
for an output feature are side by side. Registers have four words:

    panel                  arranged                x                  its sums
    step 0  a0 b0 c0 d0    a0 a1 b0 b1             row 0  x0 x1       xa xb ya yb
    step 1  a1 b1 c1 d1    c0 c1 d0 d1             row 1  y0 y1       xc xd yc yd

Here xa = x0 a0 + x1 a1, and so on: half as many instructions multiply as with dot products, for the same sums. An odd
last row has itself beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gte_np.kernels.language.emitter import Emitter
from gte_np.kernels.language.memory import smaller
from gte_np.kernels.language.types import INT64, LANES, Pointer, kernel
from gte_np.kernels.operations.matmul import (
    Linear,
    Matrix,
    Operand,
    Product,
    choices,
    fields,
    first_panel,
    matrix_at,
    operand_at,
    tiles_of,
)


@kernel
def paired_tiles(rows: int, x: Operand, linear: Linear, out: Matrix, arranged: Pointer) -> None:
    """(rows, in), the first panel of a linear layer -> (rows, panel width), for any number of rows.

    Weights are those that `arrange_weights` has made. Tiles have equal numbers of pairs, or one more.
    """
    tiles, pairs = tiles_of(linear.weight, rows), (rows + 1) // 2
    for tile in range(tiles):
        row = 2 * (pairs * tile // tiles)
        height = smaller(2 * (pairs * (tile + 1) // tiles), rows) - row
        paired_tile(height, operand_at(x, row), linear, matrix_at(out, row, 0), arranged)


@kernel
def arrange_weights(linear: Linear, arranged: Pointer) -> None:
    """The first panel of a Linear, of an even number of steps -> words by twos: (steps / 2, panel width, 2)."""
    for step in range(0, linear.steps, 2):
        arrange_two_steps(linear, step, arranged)


@intrinsic
def arrange_two_steps(typing: Any, linear: Any, step: Any, arranged: Any) -> Any:
    """The words of two steps of a panel, side by side."""
    packed = linear.types[0].dtype

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        layer, first_step, target = arguments
        emit, (panel, _) = Emitter(builder, packed.target), first_panel(builder, packed, layer)
        panel.prefetch(emit, panel.weight_at(emit, first_step, 0), 2)
        target = emit.at(target, builder.mul(first_step, INT64(panel.width)))
        for first in panel.vectors:
            start = panel.weight_at(emit, first_step, first)
            words, next_words = emit.load_words(start), emit.load_words(emit.at(start, panel.width))
            for half, pairs in enumerate(emit.zipped(words, next_words, 1)):
                emit.store_floats(emit.as_floats(pairs), emit.at(target, 2 * first + half * LANES))
        return context.get_dummy_value()

    return types.void(linear, types.intp, arranged), codegen


@intrinsic
def paired_tile(typing: Any, rows: Any, x: Any, linear: Any, out: Any, arranged: Any) -> Any:
    """(rows, in) Operand, the first panel of a Linear -> (rows, panel width) Matrix, for 1 to `tile_rows` rows."""
    packed = linear.types[0].dtype

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        count, operand, layer, target, weights = arguments
        words, factors = fields(builder, operand, 2)
        panel, steps = first_panel(builder, packed, layer)
        steps = builder.lshr(steps, INT64(1))
        step = packed.format.pair_step(packed.target)
        product = _PairedProduct(step, panel, fields(builder, words, 2), factors, steps, None, weights, count)
        product.emit_tiles(Emitter(builder, packed.target), count, fields(builder, target, 2))
        return context.get_dummy_value()

    return types.void(types.intp, x, linear, out, arranged), codegen


@dataclass
class _PairedProduct(Product):
    """A product in pairs of rows while code is emitted, of so many rows, with weights that are arranged for it.

    What a `Product` has for a row, this has for a pair of them: sums are two vectors for each of the panel's.
    """

    arranged: ir.Value
    rows: ir.Value

    def emit_tiles(self, emit: Emitter, count: ir.Value, out: list[ir.Value]) -> None:
        """Emit a loop for every number of pairs, and the choice among them."""
        builder = emit.builder
        columns = self.step.columns(emit, self.panel)
        start = [half for vector in self.step.start(emit, columns) for half in emit.zipped(vector, vector, 2)]
        number = builder.lshr(builder.add(count, INT64(1)), INT64(1))
        for pairs in choices(builder, number, self.panel.packed.target.tile_rows // 2):
            *rows, last = [row for sums in self.loop(emit, [start] * pairs) for row in _rows_of(emit, sums)]
            for row, accumulators in enumerate(rows):
                self.finish_row(emit, row, accumulators, columns, out)
            with builder.if_then(builder.icmp_signed("==", count, INT64(2 * pairs))):
                self.finish_row(emit, len(rows), last, columns, out)

    def x_rows(self, emit: Emitter, count: int) -> list[Any]:
        """Pointers to both rows of the first pairs."""
        builder, (x, x_stride) = emit.builder, self.x
        last = builder.sub(self.rows, INT64(1))
        pairs = []
        for row in range(0, 2 * count, 2):
            is_there = builder.icmp_signed("<", INT64(row), last)
            numbers = INT64(row), builder.select(is_there, INT64(row + 1), INT64(row))
            pairs.append([emit.at(x, builder.mul(x_stride, number)) for number in numbers])
        return pairs

    def one_step(
        self, emit: Emitter, step: ir.Value, x_rows: list[Any], accumulators: list[list[Any]]
    ) -> list[list[Any]]:
        """The accumulators after two steps."""
        builder, sums = emit.builder, list[list[Any]]()
        place = builder.shl(step, INT64(1))  # `step` counts them by twos
        start = emit.at(self.arranged, builder.mul(place, INT64(self.panel.width)))
        values = [emit.repeated(*(emit.load_as(emit.at(row, place), INT64, 4) for row in rows)) for rows in x_rows]
        for number, totals in enumerate(zip(*accumulators, strict=True)):  # by weights: few registers hold them
            weights = emit.load_words(emit.at(start, number * LANES))
            pairs = zip(values, totals, strict=True)
            sums.append([self.step.multiply_add(emit, value, weights, total) for value, total in pairs])
        return [list(pair) for pair in zip(*sums, strict=True)]


def _rows_of(emit: Emitter, sums: list[Any]) -> list[list[Any]]:
    """The sums of both rows of a pair."""
    vectors = [emit.unzipped(sums[at], sums[at + 1], 2) for at in range(0, len(sums), 2)]
    return [list(row) for row in zip(*vectors, strict=True)]
