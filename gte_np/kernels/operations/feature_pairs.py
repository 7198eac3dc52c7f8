"""Products of bytes by an instruction that cuts off large sums, in an order of the input features that avoids them.

x86's instruction for bytes multiplies two neighbours of x with two weights and adds the products up, but cuts their
sum off at 32767, in 16 bits. No x is beyond 255, and 255 * 128 = 32640. So input features are *safe together* for a
panel if those weights of each output feature that have the same sign add up to 128 at most:

    input features        0    1    2    3
    output feature 0    100   20   90  -30      safe: (0 1), (1 2), (1 3)
    output feature 1     40  -50   30  120      not:  (0 2), since 100 + 90 > 128; (0 3) and (2 3), because of 120

The sum of a safe *pair* is right. The sums of two pairs that are safe together, a *four*, may even be added in 16
bits, before another instruction adds neighbours up in 32 bits: it is then needed half as often.

Sums of integers are exact, so their order is free, as long as x has the same one. Each panel has its own, which
`feature_order` finds when weights are packed, in *windows* of 16 input features: as many bytes as an instruction
shuffles. A window has two *halves* of 8 features, each of two fours or of four pairs. Where the features of a window
cannot all be paired, its products are computed twice: with the low seven bits of x, and with the highest bit. Neither
127 (127 + 127) nor 128 (127 + 127) is beyond 32767. In a panel, halves lie one behind the other by their kinds:

    | repeated ones | pairs          | fours                 |

The *order* of a panel is int32 words behind its constants:

    how many halves are repeated, and how many are not fours, in a cache line
    for each window, the numbers of its 16 features, four in a word
    for each place in the panel, the number of the half that lies there
    for each half, its place
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gte_np.formats.weight_format import DotProductStep
from gte_np.kernels.language.emitter import Emitter, Rows
from gte_np.kernels.language.memory import offset, panel_width, smaller
from gte_np.kernels.language.types import INT32, INT64, LANES, OCTETS, Pointer, kernel, pointer_to
from gte_np.kernels.operations.matmul import (
    Ahead,
    Linear,
    Matrix,
    Operand,
    Panel,
    Product,
    fields,
    matrix_at,
    operand_at,
    part_ahead,
    row_of,
    tiles_of,
)
from gte_np.kernels.operations.records import HALF, ORDER_BEGIN, ROW_GAP, WINDOW

_FEATURES = 4 * WINDOW
# Of a panel, at most. If the first tile alone asked for the next panel's weights, memory would have no work for the
# rest of the time; and to ask for less than a cache line at a time costs as much as for all of it.
_ASKING_TILES = 4


@kernel
def ordered_tiles(rows: int, x: Operand, linear: Linear, out: Matrix, scratch: Pointer) -> None:
    """(rows, in), the first panel of a linear layer -> (rows, panel width), for any number of rows.

    `scratch` gets a tile of rows in the order of the panel's windows.
    """
    tiles, ordered = tiles_of(linear.weight, rows), Matrix(scratch, 2 * linear.steps + ROW_GAP)
    for tile in range(tiles):
        row = rows * tile // tiles
        height = rows * (tile + 1) // tiles - row
        here = operand_at(x, row)
        order_rows(height, here.words, linear, ordered)
        ahead = asked_by(tile, smaller(tiles, _ASKING_TILES), linear)
        ordered_tile(height, Operand(ordered, here.factors), linear, matrix_at(out, row, 0), ahead)


@kernel
def asked_by(tile: int, asking: int, linear: Linear) -> Ahead:
    """What a tile asks for: its part of the next panel, if it is one of the first, or what it reads itself.

    That costs nearly nothing, and less than a branch in the loop.
    """
    words_of_half = HALF * panel_width(linear.weight)
    if tile < asking:
        return part_ahead(tile, asking, words_of_half, linear)
    return Ahead(linear.weight, words_of_half)


@kernel
def order_rows(rows: int, x: Matrix, linear: Linear, ordered: Matrix) -> None:
    """(rows, steps) words of x -> with each window in the order of the first panel; then (rows, 2 steps).

    Behind them are the highest bits of halves that are repeated, as far apart as the row is long.
    """
    order = order_of(linear)
    for row in range(rows):
        source, target = row_of(x, row), row_of(ordered, row)
        for step in range(0, linear.steps, LANES):
            numbers = offset(order, ORDER_BEGIN + step)
            shuffle_windows(linear.weight, offset(source, step), numbers, offset(target, step))
    for place in range(order[0]):
        half = order[ORDER_BEGIN + linear.steps + place]
        for row in range(rows):
            divide_half(matrix_at(ordered, row, half * HALF).data, linear.steps)


@intrinsic
def order_of(typing: Any, linear: Any) -> Any:
    """The order of the first panel of a Linear: a pointer to int32."""
    packed = linear.types[0].dtype

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return _order_behind(Emitter(builder), packed, builder.extract_value(arguments[0], 2))

    return pointer_to(types.int32)(linear), codegen


def _order_behind(emit: Emitter, packed: Any, constants: ir.Value) -> ir.Value:
    own_rows = packed.format.constant_rows(_FEATURES)
    return emit.builder.bitcast(emit.at(constants, own_rows * packed.target.panel), INT32.as_pointer())


@intrinsic
def shuffle_windows(typing: Any, like: Any, source: Any, numbers: Any, target: Any) -> Any:
    """Write 16 words, four windows, with the bytes of each in the order of their numbers.

    `like` is a pointer to packed weights, for its target.
    """
    lanes = like.dtype.target.vector_width

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        emit, (_, *pointers, place) = Emitter(builder), arguments
        octets = [emit.as_octets(emit.load_words(pointer)) for pointer in pointers]
        emit.store_as(emit.shuffled_octets(lanes, *octets), place, 4)
        return context.get_dummy_value()

    return types.void(like, source, numbers, target), codegen


@intrinsic
def divide_half(typing: Any, low: Any, distance: Any) -> Any:
    """Leave the low seven bits of 8 bytes where they are, and write the highest so many words behind."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        emit, (pointer, words) = Emitter(builder), arguments
        octets, low_bits = emit.load_as(pointer, INT64, 4), INT64(0x7F7F7F7F7F7F7F7F)
        emit.store_as(builder.and_(octets, low_bits), pointer, 4)
        emit.store_as(builder.and_(octets, builder.not_(low_bits)), emit.at(pointer, words), 4)
        return context.get_dummy_value()

    return types.void(low, types.intp), codegen


@intrinsic
def ordered_tile(typing: Any, rows: Any, x: Any, linear: Any, out: Any, ahead: Any) -> Any:
    """(rows, in) Operand in the windows' order, the first panel of a Linear -> (rows, panel width) Matrix."""
    packed = linear.types[0].dtype

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        count, operand, layer, target, following = arguments
        emit, (words, factors) = Emitter(builder, packed.target), fields(builder, operand, 2)
        weight, bias, constants, _, steps = fields(builder, layer, 5)
        order = _order_behind(emit, packed, constants)
        panel = _OrderedPanel(packed, weight, INT64(packed.target.panel), bias, constants, order, steps)
        step = packed.format.step(packed.target)
        x_words, asked = fields(builder, words, 2), fields(builder, following, 2)
        product = _OrderedProduct(step, panel, x_words, factors, steps, None, asked)
        product.emit_tiles(emit, count, fields(builder, target, 2))
        return context.get_dummy_value()

    return types.void(types.intp, x, linear, out, ahead), codegen


@dataclass
class _OrderedPanel(Panel):
    """A panel with its order, of so many steps."""

    order: ir.Value
    steps: ir.Value

    def number(self, emit: Emitter, index: ir.Value | int) -> ir.Value:
        """A word of the order."""
        return emit.builder.sext(emit.builder.load(emit.at(self.order, index)), INT64)

    def half_at(self, emit: Emitter, place: ir.Value) -> ir.Value:
        """Which half is at a place in the panel."""
        return self.number(emit, emit.builder.add(place, emit.builder.add(self.steps, INT64(ORDER_BEGIN))))

    def place_of(self, emit: Emitter, feature: ir.Value) -> ir.Value:
        """Where the order has an input feature: in its window, and then that half in the panel."""
        builder = emit.builder
        window, number = builder.lshr(feature, INT64(4)), builder.and_(feature, INT64(_FEATURES - 1))
        numbers = emit.at(emit.at(self.order, ORDER_BEGIN), builder.mul(window, INT64(WINDOW)))
        place = emit.place_of_octet(emit.load_as(numbers, OCTETS, 4), number)
        half = builder.or_(builder.shl(window, INT64(1)), builder.lshr(place, INT64(3)))
        halves = builder.lshr(self.steps, INT64(1))
        place_of_half = self.half_at(emit, builder.add(halves, half))  # behind the halves are their places
        return builder.or_(builder.shl(place_of_half, INT64(3)), builder.and_(place, INT64(4 * HALF - 1)))


@dataclass
class _OrderedProduct(Product):
    """A product while code is emitted, with a panel in its order and rows in that of its windows."""

    step: DotProductStep
    panel: _OrderedPanel
    ahead: list[ir.Value]

    def loop(self, emit: Emitter, start: Rows) -> Rows:
        """Emit the loops over the halves, of pairs, the repeated ones twice, and of fours."""
        builder, x_rows = emit.builder, self.x_rows(emit, len(start))
        repeated, first_four = self.panel.number(emit, 0), self.panel.number(emit, 1)

        def pairs(turn: ir.Value, sums: Rows) -> Rows:
            is_again = builder.icmp_signed("<", turn, repeated)
            place = builder.sub(turn, builder.select(is_again, INT64(0), repeated))
            distance = builder.select(is_again, self.steps, INT64(0))
            return self.add_half(emit, place, [emit.at(row, distance) for row in x_rows], sums, self.add_pairs)

        def fours(place: ir.Value, sums: Rows) -> Rows:
            return self.add_half(emit, place, x_rows, sums, self.step.dot_product.add_fours)

        sums = emit_loop(emit, INT64(0), builder.add(first_four, repeated), start, pairs)
        return emit_loop(emit, first_four, builder.lshr(self.steps, INT64(1)), sums, fours)

    def add_half(
        self, emit: Emitter, place: ir.Value, x_rows: list[Any], sums: Rows, add: Callable[..., ir.Value]
    ) -> Rows:
        """The accumulators after two steps."""
        builder, panel = emit.builder, self.panel
        first_step, offset_of_x = (builder.shl(value, INT64(1)) for value in (place, panel.half_at(emit, place)))
        steps = [first_step, builder.add(first_step, INT64(1))]
        asked, words = self.ahead
        panel.prefetch(emit, emit.at(asked, builder.mul(place, words)), HALF, distance=0)
        weights = [[self.step.load_weights(emit, panel, step, first) for step in steps] for first in panel.vectors]
        found = []
        for row, totals in zip(x_rows, sums, strict=True):
            at = emit.at(row, offset_of_x)
            x = [self.step.load_x(emit, emit.at(at, word)) for word in range(HALF)]
            found.append([add(emit, x, words, total) for words, total in zip(weights, totals, strict=True)])
        return found

    def add_pairs(self, emit: Emitter, x: list[Any], weights: list[Any], total: ir.Value) -> ir.Value:
        """An accumulator and the products of two words each."""
        for value, weight in zip(x, weights, strict=True):
            total = self.step.multiply_add(emit, value, weight, total)
        return total


def emit_loop(
    emit: Emitter, first: ir.Value, end: ir.Value, start: Rows, body: Callable[[ir.Value, Rows], Rows]
) -> Rows:
    """Emit a loop over numbers from one to another: what `body` makes of accumulators, turn by turn.

    Unlike that of `Emitter.loop`, it may have no turn; other products never do, and would get longer code from it.
    """
    builder = emit.builder
    before = builder.block
    head, loop, after = (builder.append_basic_block(name) for name in ("head", "loop", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    turn, sums = builder.phi(INT64), [[builder.phi(value.type) for value in row] for row in start]
    turn.add_incoming(first, before)
    builder.cbranch(builder.icmp_signed("<", turn, end), loop, after)
    builder.position_at_end(loop)
    found = body(turn, sums)
    turn.add_incoming(builder.add(turn, INT64(1)), builder.block)
    for phis, values, following in zip(sums, start, found, strict=True):
        for phi, value, next_value in zip(phis, values, following, strict=True):
            phi.add_incoming(value, before)
            phi.add_incoming(next_value, builder.block)
    emit.forbid_unrolling(builder.branch(head))
    builder.position_at_end(after)
    return sums
