"""Weights as floating-point numbers, multiplied in float32 whatever the precision in which they are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_np.formats.weight_format import FloatArray, FormattedMatrix, Parts, ProductStep, Value, WeightFormat


class FloatFormat(WeightFormat):
    """float32 arithmetic on weights in a precision of the checkpoint; those of 16 bits are widened exactly."""

    dtype = "float32"

    def __init__(self, stored: str, word: type[np.generic]) -> None:
        self.name = stored if stored == "float32" else f"float32_of_{stored}"
        self.stored = stored
        self.word = np.dtype(word)

    def encode_rows(self, values: FloatArray) -> dict[str, NDArray[Any]]:
        """Only float32 is ever made: a checkpoint of several precisions is widened to it."""
        return {"": values}

    def gather(self, parts: Parts, rows: NDArray[np.integer], out: FloatArray) -> None:
        """NumPy widens float16 where it writes; it has no bfloat16."""
        if self.stored == "bfloat16":
            super().gather(parts, rows, out)
        else:
            out[:] = parts[""].data[rows]

    def multiplier(self, matrix: FormattedMatrix) -> Callable[[FloatArray], FloatArray]:
        """x W^T in float32."""
        weight = matrix.to_float32()
        return lambda x: x @ weight.T  # (N, in), (in, out) -> (N, out)

    def widened(self, target: Any) -> WeightFormat | None:
        """To float32, unless they are."""
        return WIDENED if self.word.itemsize < WIDENED.word.itemsize else None

    def step(self, target: Any) -> ProductStep:
        """One fused multiply-add."""
        return FloatStep(self.stored)


class FloatStep(ProductStep):
    """One value of x with one weight of each output feature."""

    def __init__(self, stored: str) -> None:
        self.stored = stored

    def load_weights(self, emit: Any, panel: Any, step: Value, first: int) -> Value:
        """Widened to float32."""
        return emit.load_stored(panel.weight_at(emit, step, first), self.stored)

    def load_x(self, emit: Any, pointer: Value) -> Value:
        """Broadcast."""
        return emit.broadcast(emit.builder.load(pointer))

    def multiply_add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """Rounded once where the target can."""
        return emit.fma(x, weights, accumulator)


class WidenedFloats(FloatFormat):
    """float32 weights that a tile has just widened."""

    is_far = False

    def __init__(self) -> None:
        super().__init__("float32", np.float32)
        self.name = "widened_float32"


FLOAT32 = FloatFormat("float32", np.float32)
WIDENED = WidenedFloats()
FLOAT16 = FloatFormat("float16", np.uint16)
WIDENED_BFLOAT16 = FloatFormat("bfloat16", np.uint16)
