"""Functions that only compiled code can call, compiled by themselves for a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from gte_np.kernels.language.types import pointer_to
from gte_np.kernels.runtime.compile import Entry, compile_entry, optimized_module, target_machine
from gte_np.kernels.runtime.object_code import load_function
from gte_np.kernels.targets import TARGETS, Target
from gte_np.kernels.targets.host import host_target, this_machine

FLOATS = pointer_to(types.float32)
INTEGER = types.int64

# The targets that this processor runs: its own, which has the name of one of the others, and those.
RUNNABLE = {"host": host_target()} | {
    target.name: target for target in TARGETS if target.runs_on(this_machine(), host_target().features)
}
# One for each width of vectors: enough for functions whose code depends on nothing else of a target.
WIDTHS = {f"vectors of {target.vector_width}": target for target in reversed(RUNNABLE.values())}


def compiled(
    function: Callable[..., None], *arguments: types.Type, target: Target | None = None
) -> Callable[..., None]:
    """The function as Python can call it: with an array, or a part of one, for each pointer, and with integers."""
    name = f"test_{function.__name__.strip('_')}"
    code = compile_entry(name, Entry(function, arguments), target or host_target())
    run = load_function(code, name, len(arguments))

    def call(*values: NDArray[Any] | int) -> None:
        run(*(value.ctypes.data if isinstance(value, np.ndarray) else value for value in values))

    return call


def assembly(entry: Entry, target: Target) -> str:
    """The assembly language of a function, for any target."""
    machine = target_machine(target)
    text: str = machine.emit_assembly(optimized_module("entry", entry, machine))
    return text


def framed(values: Any, rows: int = 3, columns: int = 5) -> Any:
    """A float32 matrix with so many rows of NaN below it and columns of NaN beside it."""
    frame = np.full((values.shape[0] + rows, values.shape[1] + columns), np.nan, np.float32)
    frame[: values.shape[0], : values.shape[1]] = values
    return frame


def inside(frame: Any, rows: int, columns: int) -> Any:
    """A copy of what was written to the upper left of a frame. Fail if anything else was."""
    outside = frame.copy()
    outside[:rows, :columns] = np.nan
    assert np.isnan(outside).all()
    return frame[:rows, :columns].copy()


def same_bits(x: Any, y: Any) -> bool:
    """Whether two arrays are equal to the last bit."""
    return bool(x.shape == y.shape and x.dtype == y.dtype and x.tobytes() == y.tobytes())
