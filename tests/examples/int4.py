"""A weight format of 4 bits with a scale for each group of 32 input features.

    weight = scale of its group * (integer - 8)        integer from 1 to 15

Activations stay in float32. A word holds eight values, the first of them in the lowest bits, so that one step of a
product takes eight values of x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_np.errors import InputError
from gte_np.formats.stored_tensor import StoredTensor
from gte_np.formats.weight_format import FloatArray, FormattedMatrix, Parts, ProductStep, Value, WeightFormat

GROUP = 32
SCALE = "_scale"
_ZERO = 8
_LARGEST = np.float32(7)
_SMALLEST_SCALE = np.float32(1e-30)
_STEPS_OF_A_GROUP = 4  # of eight values


class Int4(WeightFormat):
    """Eight integers of 4 bits a word, and a float32 scale for each group and output feature."""

    name = dtype = stored = "int4"
    file = "model_int4.safetensors"
    word = np.dtype(np.uint32)
    values_of_word = 8

    @property
    def part_dtypes(self) -> dict[str, str]:
        """Pairs of integers in bytes, and the scales."""
        return {"": "uint8", SCALE: "float32"}

    def part_shapes(self, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        """(out, in / 2) bytes, (out, in / GROUP) scales."""
        return {"": (outputs, inputs // 2), SCALE: (outputs, inputs // GROUP)}

    def shape_of(self, parts: Parts) -> tuple[int, ...]:
        """Two values a byte."""
        outputs, pairs = parts[""].shape
        return outputs, 2 * pairs

    def check_sizes(self, hidden_size: int, intermediate_size: int, heads: int) -> None:
        """All of them have to be whole groups, those of a head too."""
        sizes = (hidden_size, intermediate_size, hidden_size // heads)
        if any(size % GROUP for size in sizes):
            raise InputError(f"expected sizes that are multiples of {GROUP} for int4, got {sizes}: use int8.")

    def encode_rows(self, values: FloatArray) -> dict[str, NDArray[Any]]:
        """The largest value of each group becomes 7 or -7."""
        groups = values.reshape(len(values), -1, GROUP)  # (out, in) -> (out, groups, GROUP)
        scale = np.maximum(np.abs(groups).max(axis=2) / _LARGEST, _SMALLEST_SCALE)  # (out, groups)
        integers = (np.rint(groups / scale[:, :, None]) + _ZERO).astype(np.uint8).reshape(values.shape)
        return {"": integers[:, ::2] | integers[:, 1::2] << 4, SCALE: scale}

    def decode(self, parts: Parts) -> FloatArray:
        """scale * (integer - 8)."""
        pairs = parts[""].data
        integers = np.stack([pairs & 15, pairs >> 4], axis=2).reshape(len(pairs), -1, GROUP).astype(np.float32)
        values: FloatArray = (integers - _ZERO) * parts[SCALE].data[:, :, None]  # (out, groups, GROUP)
        return values.reshape(len(pairs), -1)

    def multiplier(self, matrix: FormattedMatrix) -> Callable[[FloatArray], FloatArray]:
        """In float32."""
        weight = matrix.to_float32()
        return lambda x: x @ weight.T  # (N, in), (in, out) -> (N, out)

    def words(self, parts: Parts, columns: slice) -> NDArray[Any]:
        """Four bytes each."""
        return np.ascontiguousarray(parts[""].data[:, columns.start // 2 : columns.stop // 2]).view(self.word)

    def constant_rows(self, features: int) -> int:
        """A scale for each group."""
        return features // GROUP

    def constants(self, parts: Parts) -> FloatArray:
        """(groups, out)."""
        return parts[SCALE].data.T

    def columns(self, matrix: FormattedMatrix, columns: NDArray[np.intp]) -> FormattedMatrix:
        """Heads of whole groups are never padded, so that all columns are meant."""
        return matrix

    def from_words(self, words: NDArray[Any], constants: FloatArray, features: int) -> FormattedMatrix:
        """The words' bytes, and the constants as scales."""
        pairs = np.ascontiguousarray(words).view(np.uint8)
        scale = np.ascontiguousarray(constants.T)
        return FormattedMatrix(self, {"": StoredTensor("uint8", pairs), SCALE: StoredTensor("float32", scale)})

    def step(self, target: Any) -> ProductStep:
        """Eight multiply-adds."""
        return Int4Step()


class Int4Step(ProductStep):
    """Eight values of x with eight weights of each output feature."""

    x_words = 8

    def load_weights(self, emit: Any, panel: Any, step: Value, first: int) -> list[Value]:
        """The weights of eight input features, as float32."""
        builder, words = emit.builder, emit.load_words(panel.weight_at(emit, step, first))
        group = builder.udiv(step, emit.int64(_STEPS_OF_A_GROUP))
        scale = panel.constant_at(emit, group, first)
        weights = []
        for value in range(8):
            bits = builder.and_(builder.lshr(words, emit.words(4 * value)), emit.words(15))
            integers = emit.to_floats(builder.sub(bits, emit.words(_ZERO)))
            weights.append(builder.fmul(integers, scale))
        return weights

    def load_x(self, emit: Any, pointer: Value) -> list[Value]:
        """Eight values, each of them broadcast."""
        return [emit.broadcast(emit.builder.load(emit.at(pointer, value))) for value in range(8)]

    def multiply_add(self, emit: Any, x: list[Value], weights: list[Value], accumulator: Value) -> Value:
        """In the order of the input features."""
        for value, weight in zip(x, weights, strict=True):
            accumulator = emit.fma(value, weight, accumulator)
        return accumulator


INT4 = Int4()
