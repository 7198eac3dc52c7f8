"""Linear layers with dtype "bfloat16" and "int8", with the arithmetic of the kernels.

bfloat16 is float32 without its lower 16 bits. Weights and inputs are rounded to it; their products are added up in
float32.

int8 writes a value as an integer times a scale, so that products are of integers:

    weight = scale of its row   * integer             integer from -127 to 127
    x      = scale of its token * (integer - zero)    integer from 0 to 255; zero is the one that stands for 0

It follows Dettmers et al., "LLM.int8()" (2022), in a simpler form. Each row of a weight and each token has a scale of
its own. The smaller the range that a scale must cover, the finer its steps, so the range leaves out the outlier: here
that is one value of each token, the largest in size. The part of it beyond the range is multiplied separately.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.checkpoint.stored_tensor import StoredTensor
from gte_np.encoder import FloatArray
from gte_np.low_precision import MATRICES, round_to_bfloat16, to_dtype

_STEPS = np.float32(255)
_SMALLEST_SCALE = np.float32(1e-30)  # any below, as that of a token whose values are all zero, becomes 1


@dataclass(frozen=True)
class Bfloat16Matrix:
    """An (out, in) weight, rounded to bfloat16."""

    values: FloatArray

    def multiply(self, x: FloatArray) -> FloatArray:
        """Round x to bfloat16, multiply in float32: (N, in) -> (N, out)."""
        rounded = StoredTensor("bfloat16", round_to_bfloat16(x)).to_float32()  # (N, in)
        return rounded @ self.values.T  # (N, in) @ (in, out) -> (N, out)


@dataclass(frozen=True)
class Int8Matrix:
    """An (out, in) weight of integers from -127 to 127, with a scale for each row, (out,)."""

    integers: NDArray[np.float64]  # float64 sums of such products are exact, and NumPy multiplies integers slowly
    scale: FloatArray

    def multiply(self, x: FloatArray) -> FloatArray:
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


def prepare_weights(tensors: Mapping[str, StoredTensor], dtype: str) -> dict[str, Any]:
    """The tensors by name, as `linear` wants them: float32 arrays, or for the matrices what multiplies in `dtype`."""
    return {name: _prepare_weight(name, tensor, dtype) for name, tensor in tensors.items()}


def _prepare_weight(name: str, tensor: StoredTensor, dtype: str) -> Any:
    if name not in MATRICES or dtype == "float32":
        return tensor.to_float32()
    tensor = to_dtype(tensor, dtype)
    if name.startswith("embeddings."):
        return tensor.to_float32()
    if tensor.scale is None:
        return Bfloat16Matrix(tensor.to_float32())
    return Int8Matrix(tensor.data.astype(np.float64), tensor.scale)
