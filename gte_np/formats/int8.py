"""dtype "int8": integers of 8 bits, multiplied and added up exactly, then scaled.

int8 writes a value as an integer times a scale, so that products are of integers:

    weight = scale of its row   * integer             integer from -127 to 127
    x      = scale of its token * (integer - zero)    integer from 0 to 255; zero is the one that stands for 0

It follows Dettmers et al., "LLM.int8()" (2022), in a simpler form. Each row of a weight and each token has a scale of
its own. The smaller the range that a scale must cover, the finer its steps, so the range leaves out the outlier: here
that is one value of each token, the largest in size. The part of it beyond the range is multiplied separately.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.formats.stored_tensor import StoredTensor
from gte_np.formats.weight_format import (
    DotProductStep,
    FloatArray,
    FormattedMatrix,
    Parts,
    ProductStep,
    Value,
    WeightFormat,
)

SCALE = "_scale"  # what the name of the (out,) float32 scales adds to that of the matrix
FACTORS = 4  # float32 values that the kernels keep for each row of x: scale, zero, rest, place of the outlier

_LARGEST = 127
_STEPS = np.float32(255)
_SMALLEST_SCALE = np.float32(1e-30)  # any below, as that of values which are all zero, becomes 1


class Int8(WeightFormat):
    """Four int8 values of neighbouring input features a word, and a float32 scale for each output feature."""

    name = dtype = stored = "int8"
    file = "model_int8.safetensors"  # a name that keeps others from taking the integers for weights
    activations = "uint8"
    word = np.dtype(np.uint32)
    values_of_word = 4
    saves_panels = True
    tile_product = "int8"
    most_features = 2**31 // (255 * 128)  # 32 bits hold the sum of so many products of 255 and -128

    @property
    def part_dtypes(self) -> dict[str, str]:
        """The integers and the scales."""
        return {"": "int8", SCALE: "float32"}

    def part_shapes(self, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        """(out, in) integers, (out,) scales."""
        return {"": (outputs, inputs), SCALE: (outputs,)}

    def encode_rows(self, values: FloatArray) -> dict[str, NDArray[Any]]:
        """values / scale, rounded, where the largest of each row becomes 127."""
        largest = np.abs(values).max(axis=1, keepdims=True)  # (out, in) -> (out, 1)
        scale = np.maximum(largest / np.float32(_LARGEST), _SMALLEST_SCALE)
        return {"": np.rint(values / scale).astype(np.int8), SCALE: scale[:, 0]}

    def decode(self, parts: Parts) -> FloatArray:
        """integers * scale."""
        return parts[""].data * parts[SCALE].data[:, None]

    def gather(self, parts: Parts, rows: NDArray[np.integer], out: FloatArray) -> None:
        """Scaled where they are written."""
        np.multiply(parts[""].data.take(rows, axis=0), parts[SCALE].data.take(rows)[:, None], out=out)

    def multiplier(self, matrix: FormattedMatrix) -> Callable[[FloatArray], FloatArray]:
        """Quantise x, multiply whole numbers, scale."""
        return Int8Product(matrix.parts[""].data.astype(np.float64), np.array(matrix.parts[SCALE].data))

    def constant_rows(self, features: int) -> int:
        """Two: the scale and the sum of the integers of each output feature."""
        return 2

    def constants(self, parts: Parts) -> FloatArray:
        """The scale and the sum of the integers of each output feature."""
        return np.stack([parts[SCALE].data, parts[""].data.sum(axis=1, dtype=np.int32).astype(np.float32)])

    def from_words(self, words: NDArray[Any], constants: FloatArray, features: int) -> FormattedMatrix:
        """The integers are the words' bytes, the scales are the first constants."""
        integers = super().from_words(words, constants, features).parts[""]
        return FormattedMatrix(self, {"": integers, SCALE: StoredTensor("float32", constants[0])})

    def steps(self, features: int) -> int:
        """As many as whole vectors of 16 words have."""
        return 16 * -(-features // 64)

    def tile_rows(self, target: Any) -> int:
        """As many as leave registers for the dot product."""
        return int(target.int8_dot_product.most_rows or target.tile_rows)

    def orders_features(self, target: Any) -> bool:
        """If the target's instruction cuts sums off."""
        return bool(target.int8_dot_product.cuts_off)

    def step(self, target: Any) -> ProductStep:
        """Four products, by the target's dot product if it has one."""
        return Int8Step(target.int8_dot_product)

    def pair_step(self, target: Any) -> ProductStep | None:
        """The same by the target's pair product."""
        return None if target.int8_pair_product is None else Int8Step(target.int8_pair_product)


@dataclass(frozen=True)
class Int8Product:
    """The product with an (out, in) weight of integers from -127 to 127, with a scale for each row, (out,)."""

    integers: NDArray[np.float64]  # float64 sums of such products are exact, and NumPy multiplies integers slowly
    scale: FloatArray

    def __call__(self, x: FloatArray) -> FloatArray:
        """Quantise each token, multiply integers, then scale: (N, in) -> (N, out)."""
        tokens = quantize_tokens(x)
        sums = tokens.integers @ self.integers.T  # (N, in) @ (in, out) -> (N, out)
        sums -= tokens.zero * self.integers.sum(axis=1)  # (N, 1) * (out,) -> (N, out)
        sums += tokens.rest * self.integers.T[tokens.outlier]  # (N, 1) * (N, out) -> (N, out)
        return (sums * tokens.scale * self.scale).astype(np.float32)  # (N, out) * (N, 1) * (out,) -> (N, out)


class QuantizedTokens(NamedTuple):
    """x is about `scale * (integers - zero)`; in column `outlier` of each token, add `scale * rest`.

    `integers` is (N, in), from 0 to 255; `scale`, `zero` and `rest` are (N, 1), `outlier` is (N,).
    """

    integers: NDArray[np.float64]
    scale: FloatArray
    zero: FloatArray
    rest: FloatArray
    outlier: NDArray[np.intp]


def quantize_tokens(x: FloatArray) -> QuantizedTokens:
    """Map the range of each token to the integers from 0 to 255: (N, in) -> (N, in).

    It is the range of all values but the outlier, and of 0, which is exact so.
    """
    outlier = np.abs(x).argmax(axis=1)  # (N, in) -> (N,)
    at_outlier = np.arange(len(x)), outlier
    others = x.copy()  # (N, in)
    others[at_outlier] = 0
    high = others.max(axis=1, keepdims=True, initial=0)  # (N, in) -> (N, 1)
    low = others.min(axis=1, keepdims=True, initial=0)  # (N, in) -> (N, 1)
    scale = (high - low) / _STEPS  # (N, 1)
    scale = np.where(scale < _SMALLEST_SCALE, np.float32(1), scale)
    inverse = np.float32(1) / scale
    zero = np.rint(-low * inverse)  # (N, 1)
    exact = x * inverse + zero  # (N, in) * (N, 1) + (N, 1) -> (N, in)
    integers = np.clip(np.rint(exact), 0, _STEPS)  # (N, in)
    rest = (exact - integers)[at_outlier][:, None]  # (N, in) -> (N,) -> (N, 1)
    return QuantizedTokens(integers.astype(np.float64), scale, zero, rest, outlier)


class Int8Step(DotProductStep):
    """Four bytes of x with four weights of each output feature."""

    def columns(self, emit: Any, panel: Any) -> list[Int8Columns]:
        """Scales, sums of weights and biases."""
        return [
            Int8Columns(
                first,
                panel.constant_at(emit, 0, first),
                panel.constant_at(emit, 1, first),
                panel.bias_at(emit, first),
            )
            for first in panel.vectors
        ]

    def start(self, emit: Any, columns: list[Int8Columns]) -> list[Value]:
        """Zero, or what makes up for the way in which a target's instruction reads x."""
        return [self.dot_product.start(emit, column.weight_sums) for column in columns]

    def finish(
        self, emit: Any, accumulators: list[Value], columns: list[Int8Columns], panel: Any, factors: Value
    ) -> list[Value]:
        """scale scale (sum + rest weight[outlier] - zero weight_sum) + bias."""
        builder = emit.builder
        scale, zero, rest, place = (builder.load(emit.at(factors, number)) for number in range(FACTORS))
        outlier = self.outlier(emit, panel, builder.fptosi(place, emit.int64))
        scale, below_zero, rest = (emit.broadcast(value) for value in (scale, builder.fneg(zero), rest))
        finished = []
        for accumulator, column in zip(accumulators, columns, strict=True):
            weights = outlier.weights(emit, column.first)
            value = emit.fma(rest, emit.to_floats(weights), emit.to_floats(accumulator))
            value = emit.fma(below_zero, column.weight_sums, value)
            finished.append(emit.fma(value, builder.fmul(scale, column.scale), column.bias))
        return finished

    def outlier(self, emit: Any, panel: Any, place: Value) -> Outlier:
        """The weights of an input feature: bytes of the words of a step."""
        place = panel.place_of(emit, place)
        byte = emit.builder.and_(place, emit.int64(3))
        return Outlier(emit, panel.weight_at(emit, emit.builder.lshr(place, emit.int64(2)), 0), byte)


class Int8Columns(NamedTuple):
    """What a tile needs of 16 output features of a panel, the first of which has a number."""

    first: int
    scale: Value
    weight_sums: Value
    bias: Value


class Outlier:
    """The weights at the input feature of a token's outlier: a byte, by its number, of words."""

    def __init__(self, emit: Any, words: Value, byte: Value) -> None:
        builder, int32, self._words = emit.builder, emit.int32, words
        below = builder.mul(builder.trunc(byte, int32), int32(8))
        self._above = emit.broadcast(builder.sub(int32(24), below))

    def weights(self, emit: Any, first: int) -> Value:
        """Of 16 output features, as int32."""
        words = emit.load_words(emit.at(self._words, first))
        return emit.builder.ashr(emit.builder.shl(words, self._above), emit.words(24))


INT8 = Int8()
