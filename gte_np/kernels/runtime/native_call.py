"""From the address of a compiled kernel to a function that Python can call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

# Numba's functions begin with two arguments: where the result is to be written, and an exception. There are neither.
_NOTHING = ctypes.c_int64()
_NOWHERE = ctypes.addressof(_NOTHING)


def native_call(address: int, arguments: int) -> Callable[..., Any]:
    """The function at an address, of so many 64-bit arguments; other Python threads run while it does."""
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * (2 + arguments))
    return partial(prototype(address), _NOWHERE, _NOWHERE)
