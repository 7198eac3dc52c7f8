"""Products of bytes by an instruction that cuts off large sums, in an order of the input features that avoids them.

x86's instruction for bytes multiplies two neighbours of x with two weights and adds the products up, but cuts their
sum off at 32767, in 16 bits. No x is beyond 255, and 255 * 128 = 32640. So input features are *safe together* for a
panel if those weights of each output feature that have the same sign add up to 128 at most:

    input features        0    1    2    3
    output feature 0    100   20   90  -30      safe: (0 1), (0 3), (1 2), (1 3), (2 3), (0 1 3)
    output feature 1     40  -50   30  120      not:  (0 2), since 100 + 90 > 128

The sum of a safe *pair* is right. The sums of two pairs that are safe together, a *four*, may even be added in 16
bits, before another instruction adds neighbours up in 32 bits: it is then needed half as often.

Sums of integers are exact, so their order is free, as long as x has the same one. Each panel has its own, which is
found when weights are packed, in *windows* of 16 input features: as many bytes as an instruction shuffles. A window
has two *halves* of 8 features, each of two fours or of four pairs. Where the features of a window cannot all be
paired, its products are computed twice: with the low seven bits of x, and with the highest bit. Neither
127 (127 + 127) nor 128 (127 + 127) is beyond 32767. In a panel, halves lie one behind the other by their kinds:

    | repeated ones | pairs          | fours                 |

The *order* of a panel is int32 words behind its constants:

    how many halves are repeated, and how many are not fours
    for each window, the numbers of its 16 features, four in a word
    for each place in the panel, the number of the half that lies there
    for each half, its place
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import int64, types
from numba.extending import intrinsic

from gte_np.formats.weight_format import OrderedStep
from gte_np.kernels.language.emitter import Emitter
from gte_np.kernels.language.memory import larger, load, offset, store
from gte_np.kernels.language.types import INT32, INT64, LANES, OCTETS, Pointer, kernel, pointer_to
from gte_np.kernels.language.vectors import max_lanes, maximum
from gte_np.kernels.operations.matmul import (
    Linear,
    Matrix,
    Operand,
    Panel,
    Product,
    fields,
    matrix_at,
    operand_at,
    tiles_of,
)
from gte_np.kernels.operations.records import ORDER_BEGIN, WINDOW

Ordering = Any  # a record of gte_np.kernels.operations.records.ORDERING
Vectors = list[list[ir.Value]]  # row by row

_FEATURES = 16  # of a window
_PAIRS = _FEATURES // 2
_HALF = 2  # words
_REPEATED, _PAIRED, _FOURS = 0, 1, 2  # kinds of halves, in their order
_LARGEST_SUM = np.float32(128)  # of the sizes of weights that are safe together
_ATTEMPTS, _ROUNDS = 4, 2  # to exchange features between fours; twice as many give 2 % more of them
_TRIALS = 1000  # of partners in a window
_NONE = -1
_GAP = 16  # words between rows of x, which would compete for the same cache lines
_ZERO = np.float32(0)


# --- when weights are packed --------------------------------------------------------------------------------------


@kernel
def order_features(natural: Pointer, panels: Pointer, orders: Pointer, sizes: Pointer, layout: Ordering) -> None:
    """(panels, steps, width, 4) bytes in the order of the input features -> the same in that of each panel.

    The orders are written, too. All by a record of ORDERING; `sizes` is memory of (22, 2, width) zeros, float32.
    """
    for panel in range(layout.panels):
        place, order = panel * layout.steps * layout.width * 4, offset(orders, panel * layout.order_stride)
        find_order(offset(natural, place), order, sizes, layout)
        move_features(offset(natural, place), offset(panels, place), order, layout)


@kernel
def find_order(panel: Pointer, order: Pointer, sizes: Pointer, layout: Ordering) -> None:
    """Pair the features of each window, and find a place for each half, by its kind."""
    steps, halves = layout.steps, layout.steps // _HALF
    places = offset(order, ORDER_BEGIN + steps + halves)  # until they are found, the kinds
    repeated, fours = 0, 0
    for window in range(steps // WINDOW):
        part_by_sign(offset(panel, window * WINDOW * layout.width * 4), layout.width, sizes)
        found = order_window(sizes, 2 * layout.width, offset(order, ORDER_BEGIN + WINDOW * window))
        for half in range(2):
            places[2 * window + half] = _REPEATED if found < 0 else (_FOURS if half < found else _PAIRED)
        repeated += 2 if found < 0 else 0
        fours += larger(found, 0)
    order[0], order[1] = repeated, halves - fours
    place = 0
    for kind in range(_REPEATED, _FOURS + 1):
        for half in range(halves):
            if order[ORDER_BEGIN + steps + halves + half] == kind:
                order[ORDER_BEGIN + steps + place] = half
                place += 1
    for place in range(halves):
        places[order[ORDER_BEGIN + steps + place]] = place


@kernel
def part_by_sign(window: Pointer, width: int, sizes: Pointer) -> None:
    """The sizes of a window's weights, (16 features, 2, width): of those above zero, and of those below."""
    for feature in range(_FEATURES):
        size = offset(sizes, feature * 2 * width)
        for output in range(width):
            weight = np.float32(window[(feature // 4 * width + output) * 4 + feature % 4])
            size[output] = weight if weight > _ZERO else _ZERO
            size[width + output] = -weight if weight < _ZERO else _ZERO


@kernel
def order_window(sizes: Pointer, count: int, numbers: Pointer) -> int:
    """Write the numbers of a window's features in their order. `count` is two widths, the sizes of a feature.

    Returns how many halves are of fours, or -1 if the features cannot be paired.
    """
    best = -1
    write_numbers(numbers, 0xFEDCBA9876543210)
    for attempt in range(_ATTEMPTS):
        safe, features = find_fours(sizes, count, attempt)
        for halves in range(safe // 2, best, -1):
            used = 0
            for place in range(_PAIRS * halves):
                used |= 1 << (features >> 4 * place & 15)
            pairs = pair_features(sizes, count, used)
            if pairs != _NONE:
                write_numbers(numbers, joined(features, halves, pairs))
                best = halves
                break
        if best == 2:
            break
    return best


@kernel
def write_numbers(numbers: Pointer, features: int) -> None:
    """16 numbers of four bits as bytes."""
    for word in range(WINDOW):
        four = features >> 16 * word
        numbers[word] = four & 15 | (four >> 4 & 15) << 8 | (four >> 8 & 15) << 16 | (four >> 12 & 15) << 24


@kernel
def joined(features: int, halves: int, pairs: int) -> int:
    """The order of all features: halves of fours, and then pairs.

    Two fours, (a b) (c d) and (e f) (g h), lie as a b e f c d g h: what is added in 16 bits lies a word apart.
    """
    order = pairs << 32 if halves == 1 else pairs
    for half in range(halves):
        first, second = features >> 32 * half & 0xFFFF, features >> 32 * half + 16 & 0xFFFF
        order |= (first & 255 | (second & 255) << 8 | first >> 8 << 16 | second >> 8 << 24) << 32 * half
    return order


@kernel
def find_fours(sizes: Pointer, count: int, attempt: int) -> tuple[int, int]:
    """How many fours of a window are safe, and the numbers of their features, four bits each: safe fours first.

    Features of two fours are exchanged where that makes more of them safe, or what is too large smaller, beginning
    with an order that depends on the attempt.
    """
    features = 0
    for place in range(_FEATURES):
        features |= place * (2 * attempt + 1) % _FEATURES << 4 * place
    sums, excesses = offset(sizes, _FEATURES * count), offset(sizes, (_FEATURES + 4) * count)
    for four in range(4):
        add_four(sizes, count, features >> 16 * four, offset(sums, four * count))
        excesses[four] = excess_of(offset(sums, four * count), sizes, sizes, count)
    for _ in range(_ROUNDS):
        for place in range(_FEATURES):
            for other in range(_FEATURES):
                if place // 4 != other // 4 and excesses[place // 4] > _ZERO:
                    features = exchange(sizes, count, features, place, other)
    safe, order = 0, 0
    for four in range(4):
        if excesses[four] == _ZERO:
            order |= (features >> 16 * four & 0xFFFF) << 16 * safe
            safe += 1
    place = safe
    for four in range(4):
        if excesses[four] > _ZERO:
            order |= (features >> 16 * four & 0xFFFF) << 16 * place
            place += 1
    return safe, order


@kernel
def add_four(sizes: Pointer, count: int, features: int, total: Pointer) -> None:
    """The sums of the sizes of four features."""
    for place in range(0, count, LANES):
        first, second = (features & 15) * count + place, (features >> 4 & 15) * count + place
        third, fourth = (features >> 8 & 15) * count + place, (features >> 12 & 15) * count + place
        store(total, place, (load(sizes, first) + load(sizes, second)) + (load(sizes, third) + load(sizes, fourth)))


@kernel
def exchange(sizes: Pointer, count: int, features: int, place: int, other: int) -> int:
    """The features of a window with two of different fours exchanged, if that is better; else as they were."""
    sums, excesses = offset(sizes, _FEATURES * count), offset(sizes, (_FEATURES + 4) * count)
    one, two = features >> 4 * place & 15, features >> 4 * other & 15
    ours, theirs = offset(sizes, one * count), offset(sizes, two * count)
    here, there = offset(sums, place // 4 * count), offset(sums, other // 4 * count)
    excess, their_excess = excess_of(here, theirs, ours, count), excess_of(there, ours, theirs, count)
    before, their_before = excesses[place // 4], excesses[other // 4]
    more = (1 if excess == _ZERO else 0) + (1 if their_excess == _ZERO else 0) - (1 if their_before == _ZERO else 0)
    if more < 0 or (more == 0 and excess + their_excess >= before + their_before):
        return features
    excesses[place // 4], excesses[other // 4] = excess, their_excess
    for at in range(0, count, LANES):
        difference = load(theirs, at) - load(ours, at)
        store(here, at, load(here, at) + difference)
        store(there, at, load(there, at) - difference)
    return features ^ (one ^ two) << 4 * place ^ (one ^ two) << 4 * other


@kernel
def excess_of(sums: Pointer, added: Pointer, removed: Pointer, count: int) -> np.float32:
    """How much too large the largest of so many sums is, once sizes are added and others removed; 0 if it is not."""
    largest = load(sums, 0) + (load(added, 0) - load(removed, 0))
    for place in range(LANES, count, LANES):
        largest = maximum(largest, load(sums, place) + (load(added, place) - load(removed, place)))
    excess = max_lanes(largest) - _LARGEST_SUM
    return excess if excess > _ZERO else _ZERO


@kernel
def pair_features(sizes: Pointer, count: int, used: int) -> int:
    """The numbers of a window's features, but of those whose bits are used, four bits each, pair by pair.

    The first feature that has no partner gets the next one that is safe and free. If there is none, the last pair is
    given up, and its first feature looks on. If that takes long, there are none, _NONE.
    """
    found, pairs, trials, first = 0, 0, 0, 0
    while used >> first & 1 == 1:
        first += 1
    partner = first + 1
    while first < _FEATURES and trials < _TRIALS:
        while partner < _FEATURES and (used >> partner & 1 == 1 or not is_pair(sizes, count, first, partner)):
            partner += 1
        trials += 1
        if partner < _FEATURES:
            found |= (first | partner << 4) << 8 * pairs
            used |= 1 << first | 1 << partner
            pairs += 1
            while used >> first & 1 == 1:
                first += 1
            partner = first + 1
        elif pairs > 0:
            pairs -= 1
            first, partner = found >> 8 * pairs & 15, found >> 8 * pairs + 4 & 15
            found &= (1 << 8 * pairs) - 1
            used &= ~(1 << first | 1 << partner)
            partner += 1
        else:
            trials = _TRIALS
    return found if first == _FEATURES else _NONE


@kernel
def is_pair(sizes: Pointer, count: int, first: int, second: int) -> bool:
    """Whether two features are a safe pair."""
    zeros = offset(sizes, (_FEATURES + 5) * count)
    return excess_of(offset(sizes, first * count), offset(sizes, second * count), zeros, count) == _ZERO


@kernel
def move_features(natural: Pointer, panel: Pointer, order: Pointer, layout: Ordering) -> None:
    """Write a panel's weights in its order."""
    steps, width, halves = layout.steps, layout.width, layout.steps // _HALF
    for place in range(halves):
        half = int64(order[ORDER_BEGIN + steps + place])
        for byte in range(_PAIRS):
            at = half % 2 * _PAIRS + byte  # in the window
            feature = order[ORDER_BEGIN + half // 2 * WINDOW + at // 4] >> 8 * (at % 4) & 15
            source = offset(natural, ((half // 2 * WINDOW + feature // 4) * width) * 4 + feature % 4)
            target = offset(panel, ((place * _HALF + byte // 4) * width) * 4 + byte % 4)
            for output in range(width):
                target[4 * output] = source[4 * output]


# --- when they are multiplied -------------------------------------------------------------------------------------


@kernel
def ordered_tiles(rows: int, x: Operand, linear: Linear, out: Matrix, scratch: Pointer) -> None:
    """(rows, in), the first panel of a linear layer -> (rows, panel width), for any number of rows.

    `scratch` gets a tile of rows in the order of the panel's windows.
    """
    tiles, ordered = tiles_of(linear.weight, rows), Matrix(scratch, 2 * linear.steps + _GAP)
    for tile in range(tiles):
        row = rows * tile // tiles
        height = rows * (tile + 1) // tiles - row
        here = operand_at(x, row)
        order_rows(height, here.words, linear, ordered)
        ordered_tile(height, Operand(ordered, here.factors), linear, matrix_at(out, row, 0))


@kernel
def order_rows(rows: int, x: Matrix, linear: Linear, ordered: Matrix) -> None:
    """(rows, steps) words of x -> with each window in the order of the first panel; then (rows, 2 steps).

    Behind them are the highest bits of halves that are repeated, as far apart as the row is long.
    """
    order = order_of(linear)
    for row in range(rows):
        source, target = matrix_at(x, row, 0).data, matrix_at(ordered, row, 0).data
        for step in range(0, linear.steps, LANES):
            numbers = offset(order, ORDER_BEGIN + step)
            shuffle_windows(linear.weight, offset(source, step), numbers, offset(target, step))
    for place in range(order[0]):
        half = order[ORDER_BEGIN + linear.steps + place]
        for row in range(rows):
            divide_half(matrix_at(ordered, row, half * _HALF).data, linear.steps)


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
def ordered_tile(typing: Any, rows: Any, x: Any, linear: Any, out: Any) -> Any:
    """(rows, in) Operand in the windows' order, the first panel of a Linear -> (rows, panel width) Matrix."""
    packed = linear.types[0].dtype

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        count, operand, layer, target = arguments
        emit, (words, factors) = Emitter(builder, packed.target), fields(builder, operand, 2)
        weight, bias, constants, _, steps = fields(builder, layer, 5)
        order = _order_behind(emit, packed, constants)
        panel = _OrderedPanel(packed, weight, INT64(packed.target.panel), bias, constants, order, steps)
        step = packed.format.step(packed.target)
        product = _OrderedProduct(step, panel, fields(builder, words, 2), factors, steps, widened=None)
        product.emit_tiles(emit, count, fields(builder, target, 2))
        return context.get_dummy_value()

    return types.void(types.intp, x, linear, out), codegen


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
        return builder.or_(builder.shl(place_of_half, INT64(3)), builder.and_(place, INT64(_PAIRS - 1)))


@dataclass
class _OrderedProduct(Product):
    """A product while code is emitted, with a panel in its order and rows in that of its windows."""

    step: OrderedStep
    panel: _OrderedPanel

    def loop(self, emit: Emitter, start: Vectors) -> Vectors:
        """Emit the loops over the halves, of pairs, the repeated ones twice, and of fours."""
        builder, x_rows = emit.builder, self.x_rows(emit, len(start))
        repeated, first_four = self.panel.number(emit, 0), self.panel.number(emit, 1)

        def pairs(turn: ir.Value, sums: Vectors) -> Vectors:
            is_again = builder.icmp_signed("<", turn, repeated)
            place = builder.sub(turn, builder.select(is_again, INT64(0), repeated))
            distance = builder.select(is_again, self.steps, INT64(0))
            return self.add_half(emit, place, [emit.at(row, distance) for row in x_rows], sums, self.add_pairs)

        def fours(place: ir.Value, sums: Vectors) -> Vectors:
            return self.add_half(emit, place, x_rows, sums, self.add_fours)

        sums = emit_loop(emit, INT64(0), builder.add(first_four, repeated), start, pairs)
        return emit_loop(emit, first_four, builder.lshr(self.steps, INT64(1)), sums, fours)

    def add_half(
        self, emit: Emitter, place: ir.Value, x_rows: list[Any], sums: Vectors, add: Callable[..., ir.Value]
    ) -> Vectors:
        """The accumulators after two steps."""
        builder, panel = emit.builder, self.panel
        first_step, offset_of_x = (builder.shl(value, INT64(1)) for value in (place, panel.half_at(emit, place)))
        steps = [first_step, builder.add(first_step, INT64(1))]
        for step in steps:
            panel.prefetch(emit, panel.weight_at(emit, step, 0), 1)
        weights = [[self.step.load_weights(emit, panel, step, first) for step in steps] for first in panel.vectors]
        found = []
        for row, totals in zip(x_rows, sums, strict=True):
            at = emit.at(row, offset_of_x)
            x = [self.step.load_x(emit, emit.at(at, word)) for word in range(_HALF)]
            found.append([add(emit, x, words, total) for words, total in zip(weights, totals, strict=True)])
        return found

    def add_pairs(self, emit: Emitter, x: list[Any], weights: list[Any], total: ir.Value) -> ir.Value:
        """An accumulator and the products of two words each."""
        for value, weight in zip(x, weights, strict=True):
            total = self.step.multiply_add(emit, value, weight, total)
        return total

    def add_fours(self, emit: Emitter, x: list[Any], weights: list[Any], total: ir.Value) -> ir.Value:
        """The same, added up in 16 bits first."""
        return self.step.multiply_add_fours(emit, x, weights, total)


def emit_loop(
    emit: Emitter, first: ir.Value, end: ir.Value, start: Vectors, body: Callable[[ir.Value, Vectors], Vectors]
) -> Vectors:
    """Emit a loop over numbers from one to another: what `body` makes of accumulators, turn by turn."""
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
