"""The order of a panel's input features in which no sum of their products is cut off: see `feature_pairs`.

It is found once, when weights are packed, by kernels, since there are many windows: a million in gte-large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64

from gte_np.kernels.language.memory import larger, load, offset, store
from gte_np.kernels.language.types import LANES, Pointer, kernel
from gte_np.kernels.language.vectors import max_lanes, maximum
from gte_np.kernels.operations.records import HALF, ORDER_BEGIN, WINDOW

Ordering = Any  # a record of gte_np.kernels.operations.records.ORDERING

_FEATURES = 4 * WINDOW
_PAIRS = _FEATURES // 2
_REPEATED, _PAIRED, _FOURS = 0, 1, 2  # kinds of halves, in their order
_LARGEST_SUM = np.float32(128)  # of the sizes of weights that are safe together
_ATTEMPTS, _ROUNDS = 4, 2  # to exchange features between fours; twice as many give 2 % more of them
_TRIALS = 1000  # of partners in a window
_NONE = -1
_ZERO = np.float32(0)


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
    steps, halves = layout.steps, layout.steps // HALF
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
    safe, others, order = 0, 0, 0
    for four in range(4):
        if excesses[four] == _ZERO:
            place = safe
            safe += 1
        else:
            others += 1
            place = 4 - others
        order |= (features >> 16 * four & 0xFFFF) << 16 * place
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
    steps, width, halves = layout.steps, layout.width, layout.steps // HALF
    for place in range(halves):
        half = int64(order[ORDER_BEGIN + steps + place])
        for byte in range(_PAIRS):
            at = half % 2 * _PAIRS + byte  # in the window
            feature = order[ORDER_BEGIN + half // 2 * WINDOW + at // 4] >> 8 * (at % 4) & 15
            source = offset(natural, ((half // 2 * WINDOW + feature // 4) * width) * 4 + feature % 4)
            target = offset(panel, ((place * HALF + byte // 4) * width) * 4 + byte % 4)
            for output in range(width):
                target[4 * output] = source[4 * output]
