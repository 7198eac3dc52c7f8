"""The orders that the input features of packed panels have: see `gte_np.kernels.operations.feature_pairs`.

An order is (rows, panel) float32 values of a panel's constants, which hold int32 words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_np.kernels.operations.records import ORDER_BEGIN, ORDERING, WINDOW

_OCTETS = 4  # of a word
_HALF = 8  # features


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


def natural_order(panels: NDArray[Any], orders: NDArray[Any]) -> NDArray[Any]:
    """The inverse: (panels, steps, panel) words in the order of the input features."""
    count, steps, panel = panels.shape
    words = np.ascontiguousarray(orders).reshape(count, -1).view(np.int32)
    numbers = np.ascontiguousarray(words[:, ORDER_BEGIN : ORDER_BEGIN + steps]).view(np.uint8)
    places = words[:, ORDER_BEGIN + steps + steps // 2 : ORDER_BEGIN + 2 * steps]  # (panels, halves)
    octets = panels.view(np.uint8).reshape(count, steps, panel, _OCTETS).transpose(0, 1, 3, 2)
    halves = np.take_along_axis(octets.reshape(count, -1, _HALF, panel), places[:, :, None, None], axis=1)
    windows = halves.reshape(count, -1, WINDOW * _OCTETS, panel)
    found = np.empty_like(windows)
    np.put_along_axis(found, numbers.reshape(*windows.shape[:3], 1).astype(np.intp), windows, axis=2)
    found = found.reshape(count, steps, _OCTETS, panel).transpose(0, 1, 3, 2)
    return np.ascontiguousarray(found).view(panels.dtype).reshape(panels.shape)
