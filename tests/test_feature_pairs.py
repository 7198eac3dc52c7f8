"""The order of a panel's input features in which no sum of products of bytes is cut off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from gte_np.formats.int8 import INT8
from gte_np.kernels.operations.records import ORDER_BEGIN
from gte_np.kernels.runtime.feature_order import are_orders, order_rows
from gte_np.kernels.targets import TARGETS, Target
from tests.compiled import RUNNABLE
from tests.test_low_precision import in_order

LIMIT = 32767 // 255  # of the sizes of weights of one sign, of which none is multiplied with more than 255
ORDERING = {target.name: target for target in RUNNABLE.values() if INT8.orders_features(target)}

random = np.random.default_rng(0)


def normal(panels: int, depth: int, width: int) -> Any:
    """Bytes of normally distributed weights, in which the largest of each output feature is 127."""
    values = random.standard_normal((panels, depth, width))
    return np.rint(values * 127 / np.abs(values).max(axis=1, keepdims=True)).astype(np.int8)


WEIGHTS: dict[str, Callable[[int, int, int], Any]] = {
    "normal": normal,
    "uniform": lambda *shape: random.integers(-127, 128, shape, np.int8),
    "largest": lambda *shape: np.full(shape, 127, np.int8),
    "signs": lambda *shape: random.choice(np.array([-127, 127], np.int8), shape),
    "lowest": lambda *shape: np.full(shape, -128, np.int8),  # which no encoding writes, but a file may have
    "a fourth": lambda *shape: random.choice(np.array([-32, 32], np.int8), shape),
    "zeros": lambda *shape: np.zeros(shape, np.int8),
    "one large feature": lambda panels, depth, width: np.where(
        np.arange(depth)[:, None] == 5, 127, normal(panels, depth, width) // 8
    ).astype(np.int8),
}


class Ordered(NamedTuple):
    """Panels of bytes (panels, depth, width) in their order, and that: (panels, words)."""

    bytes: Any
    words: Any

    def numbers(self, panel: int) -> tuple[int, int]:
        """How many halves of a panel are repeated, and which is the first of fours."""
        return int(self.words[panel, 0]), int(self.words[panel, 1])


def words_of(values: Any) -> Any:
    """(panels, depth, width) bytes -> (panels, steps, width) words."""
    panels, depth, width = values.shape
    return np.ascontiguousarray(values.reshape(panels, depth // 4, 4, width).transpose(0, 1, 3, 2)).view(np.uint32)[
        ..., 0
    ]


def ordered(values: Any, target: Target) -> Ordered:
    """Put panels into their order."""
    panels, depth, width = values.shape
    found, orders = in_order(words_of(values), target)
    octets = found.view(np.int8).reshape(panels, depth // 4, width, 4).transpose(0, 1, 3, 2)
    return Ordered(octets.reshape(panels, depth, width), orders.reshape(panels, -1).view(np.int32))


def sizes(weights: Any) -> Any:
    """(..., features, width) weights -> the larger of the sums of those above and of those below zero, (...)."""
    wide = weights.astype(np.int64)
    return np.maximum(np.maximum(wide, 0).sum(axis=-2), np.maximum(-wide, 0).sum(axis=-2)).max(axis=-1)


@pytest.mark.parametrize("name", ORDERING)
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("depth", [64, 448, 1536])
def test_all_sums_fit(depth: int, kind: str, name: str) -> None:
    target = ORDERING[name]
    values = WEIGHTS[kind](3, depth, target.panel)
    order = ordered(values, target)
    for panel in range(3):
        repeated, first_four = order.numbers(panel)
        assert 0 <= repeated <= first_four <= depth // 8
        halves = order.bytes[panel].reshape(depth // 8, 2, 2, 2, target.panel)  # half, word, pair, feature
        assert (sizes(halves[repeated:first_four]) <= LIMIT).all()
        fours = halves[first_four:].transpose(0, 2, 1, 3, 4)  # half, pair of each word, word, feature
        assert (sizes(fours.reshape(-1, 4, target.panel)) <= LIMIT).all()
        halves = order.words[panel, ORDER_BEGIN + depth // 4 :][: depth // 8]
        assert sorted(halves) == list(range(depth // 8))


@pytest.mark.parametrize("name", ORDERING)
def test_kinds_are_those_that_weights_allow(name: str) -> None:
    """Most are fours for ordinary weights, and hardly any repeated; all are where that is all that can be."""
    target, depth = ORDERING[name], 768
    shares = {}
    for kind in WEIGHTS:
        words = ordered(WEIGHTS[kind](8, depth, target.panel), target).words
        shares[kind] = words[:, 0].mean() * 8 / depth, 1 - words[:, 1].mean() * 8 / depth
    repeated, fours = shares["normal"]
    few = target.panel == 16  # of 32 output features, some forbid more
    assert repeated < (0.02 if few else 0.2)
    assert fours > (0.4 if few else 0.05)
    assert shares["largest"] == shares["signs"] == shares["lowest"] == (1, 0)
    assert shares["a fourth"] == shares["zeros"] == (0, 1)


@pytest.mark.parametrize("name", ORDERING)
def test_what_is_no_order_is_known(name: str) -> None:
    """Every word that kernels index memory by, with values that lead elsewhere."""
    target, steps = ORDERING[name], 32
    right = ordered(normal(3, 4 * steps, target.panel), target).words
    shape = 3, order_rows(steps, target.panel), target.panel

    def is_order(words: Any) -> bool:
        return are_orders(words.view(np.float32).reshape(shape), steps)

    assert is_order(right)
    halves = steps // 2
    wrong: dict[int, list[int]] = {
        0: [-1, halves + 1],
        1: [-1, halves + 1, 2**31 - 1],
        ORDER_BEGIN: [-1, 0, 0x01010101],
        ORDER_BEGIN + steps - 1: [-1, 0x40404040],
        ORDER_BEGIN + steps: [-1, halves, int(right[1, ORDER_BEGIN + steps + 1])],
        ORDER_BEGIN + steps + halves: [-1, halves, int(right[1, ORDER_BEGIN + steps + halves + 1])],
        ORDER_BEGIN + 2 * steps - 1: [-(2**31), 2**31 - 1],
    }
    for place, values in wrong.items():
        for value in values:
            words = right.copy()
            assert words[1, place] != value
            words[1, place] = value
            assert not is_order(words), (place, value)


def test_some_target_has_such_an_order() -> None:
    """On x86, those without dot products of bytes."""
    names = {target.name for target in TARGETS if INT8.orders_features(target)}
    assert names == {"x86-64-v2", "x86-64-v3", "x86-64-v4"}
