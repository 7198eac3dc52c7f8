"""The orders that the input features of packed panels have: see `gte_np.kernels.operations.feature_pairs`.

An order is (rows, panel) float32 values of a panel's constants, which hold int32 words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.kernels.operations.records import HALF, ORDER_BEGIN, ORDERING, WINDOW

_OCTETS = 4  # of a word


def order_rows(steps: int, panel: int) -> int:
    """How many rows of constants the order of a panel has, of so many steps and output features."""
    return -(-(ORDER_BEGIN + 2 * steps) // panel)


def order_panels(
    order: Callable[..., Any], natural: NDArray[Any], panels: NDArray[Any], orders: NDArray[Any]
) -> None:
    """Write panels, (panels, steps, panel) words, in their own orders, and those: (panels, order rows, panel).

    `order` is the compiled function; `natural` are the panels in the order of the input features.
    """
    sizes = np.zeros((22, 2, panels.shape[2]), np.float32)  # of the features of a window, and sums of them
    record = np.array([(*panels.shape, orders.strides[0] // orders.itemsize)], ORDERING)
    order(*(array.ctypes.data for array in (natural, panels, orders, sizes, record)))


class _Order(NamedTuple):
    """The parts of panels' orders: (panels, 2), (panels, windows, 16), (panels, halves) and (panels, halves)."""

    begin: NDArray[np.int32]  # how many halves are repeated, and how many are not fours
    numbers: NDArray[np.uint8]  # of features
    halves: NDArray[np.int32]  # at each place
    places: NDArray[np.int32]  # of each half


def _parts(orders: NDArray[Any], steps: int) -> _Order:
    """The parts of (panels, order rows, panel) float32 values."""
    words = np.ascontiguousarray(orders).reshape(len(orders), -1).view(np.int32)
    ends = ORDER_BEGIN + np.cumsum([0, steps, steps // HALF, steps // HALF])
    begin, numbers, halves, places, _ = np.split(words, ends, axis=1)
    octets = np.ascontiguousarray(numbers).view(np.uint8).reshape(len(words), -1, WINDOW * _OCTETS)
    return _Order(begin[:, :2], octets, halves, places)


def are_orders(orders: NDArray[Any], steps: int) -> bool:
    """Whether (panels, order rows, panel) values, which a file may have, are orders: kernels index memory by them."""
    order, count = _parts(orders, steps), steps // HALF
    repeated, others = order.begin.T
    in_range = (repeated >= 0) & (repeated <= others) & (others <= count)
    if not in_range.all() or order.numbers.max(initial=0) >= WINDOW * _OCTETS:
        return False
    is_whole = np.bitwise_or.reduce(np.left_shift(1, order.numbers, dtype=np.uint16), axis=2) == 0xFFFF
    if not is_whole.all() or order.halves.min() < 0 or order.halves.max() >= count:
        return False
    return bool((np.take_along_axis(order.places, order.halves, axis=1) == np.arange(count)).all())


def natural_order(panels: NDArray[Any], orders: NDArray[Any]) -> NDArray[Any]:
    """The inverse: (panels, steps, panel) words in the order of the input features."""
    (count, steps, panel), order = panels.shape, _parts(orders, panels.shape[1])
    octets = panels.view(np.uint8).reshape(count, steps, panel, _OCTETS).transpose(0, 1, 3, 2)
    halves = np.take_along_axis(
        octets.reshape(count, -1, _OCTETS * HALF, panel), order.places[:, :, None, None], axis=1
    )
    windows = halves.reshape(count, -1, WINDOW * _OCTETS, panel)
    found = np.empty_like(windows)
    np.put_along_axis(found, order.numbers[:, :, :, None].astype(np.intp), windows, axis=2)
    found = found.reshape(count, steps, _OCTETS, panel).transpose(0, 1, 3, 2)
    return np.ascontiguousarray(found).view(panels.dtype).reshape(panels.shape)
