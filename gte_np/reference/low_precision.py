"""Linear layers with dtype "bfloat16" and "int8", as the kernels compute them.

int8 follows Dettmers et al., "LLM.int8()" (2022), in small: a scale for each row of the weights and for each token,
and what is far out of the others' range is kept apart. Here that is one value of each token, its largest.
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
_SMALLEST_SCALE = np.float32(1e-30)  # of a token whose values are zeros, say


@dataclass(frozen=True)
class Bfloat16Matrix:
    """An (out, in) weight whose products with x, rounded to bfloat16 as it is, are added up in float32."""

    values: FloatArray

    def multiply(self, x: FloatArray) -> FloatArray:
        """(N, in) -> (N, out)."""
        return StoredTensor("bfloat16", round_to_bfloat16(x)).to_float32() @ self.values.T


@dataclass(frozen=True)
class Int8Matrix:
    """An (out, in) weight of whole numbers from -127 to 127, with an (out,) scale."""

    integers: NDArray[np.float64]  # which adds up whole numbers without rounding, and has a fast product
    scale: FloatArray

    def multiply(self, x: FloatArray) -> FloatArray:
        """(N, in) -> (N, out)."""
        tokens = quantize_tokens(x)
        sums = tokens.integers @ self.integers.T - tokens.zero * self.integers.sum(axis=1)  # (N, out)
        sums += tokens.rest * self.integers.T[tokens.outlier]  # (N, 1), (N, out)
        return (sums * tokens.scale * self.scale).astype(np.float32)


class QuantizedTokens(NamedTuple):
    """x = scale (integers - zero), and at each token's `outlier` that and scale rest.

    `integers` is (N, in), from 0 to 255; `scale`, `zero` and `rest` are (N, 1), `outlier` is (N,).
    """

    integers: NDArray[np.float64]
    scale: FloatArray
    zero: FloatArray
    rest: FloatArray
    outlier: NDArray[np.intp]


def quantize_tokens(x: FloatArray) -> QuantizedTokens:
    """Spread the range of each token, its outlier left out and zero taken in, over 256 steps: (N, in) -> (N, in)."""
    outlier = np.abs(x).argmax(axis=1)
    at_outlier = np.arange(len(x)), outlier
    others = x.copy()
    others[at_outlier] = 0
    high, low = others.max(axis=1, keepdims=True, initial=0), others.min(axis=1, keepdims=True, initial=0)
    scale = (high - low) / _STEPS
    scale = np.where(scale < _SMALLEST_SCALE, np.float32(1), scale)
    inverse = np.float32(1) / scale
    zero = np.rint(-low * inverse)
    exact = x * inverse + zero
    integers = np.clip(np.rint(exact), 0, _STEPS)
    rest = (exact - integers)[at_outlier][:, None]
    return QuantizedTokens(integers.astype(np.float64), scale, zero, rest, outlier)


def weights_of(tensors: Mapping[str, StoredTensor], dtype: str) -> dict[str, Any]:
    """The tensors as float32 arrays; of those that a linear layer multiplies with, what multiplies so.

    All of it is copied: the file may change afterwards.
    """
    weights = {}
    for name, tensor in tensors.items():
        weights[name] = _weight_of(name, tensor, dtype)
        tensor.forget_pages()  # else a mapped file would be in memory beside its copy
    return weights


def _weight_of(name: str, tensor: StoredTensor, dtype: str) -> Any:
    if name not in MATRICES or dtype == "float32":
        return tensor.to_float32()
    tensor = to_dtype(tensor, dtype)
    if name.startswith("embeddings."):
        return tensor.to_float32()
    if tensor.scale is None:
        return Bfloat16Matrix(tensor.to_float32())
    return Int8Matrix(tensor.data.astype(np.float64), tensor.scale.copy())
