"""What a repository puts after pooling: modules that turn (B, D) vectors into (B, D') vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.encoder_interface import FloatArray, check_finite
from gte_np.reference.feed_forward import gelu
from gte_np.similarity import normalize

# The activations of sentence-transformers' Dense, by the name of their torch class.
ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "torch.nn.modules.activation.Tanh": np.tanh,
    "torch.nn.modules.activation.ReLU": lambda x: np.maximum(x, np.float32(0)),
    "torch.nn.modules.activation.GELU": gelu,
    "torch.nn.modules.linear.Identity": lambda x: x,
}


@dataclass(frozen=True)
class Dense:
    """sentence-transformers' Dense: activation(x W^T + b), (B, D) -> (B, D').

    `weight` is (D', D), `bias` is (D',) or None; `activation` is a key of `ACTIVATIONS`. The bits of a
    result depend on its vector alone, whatever order a BLAS adds in: it adds whole numbers, without rounding.
    Raises CheckpointError for results that are not finite, which weights give only if they are damaged.
    """

    weight: FloatArray
    bias: FloatArray | None
    activation: str

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """(B, D) -> (B, D')."""
        with np.errstate(over="ignore", invalid="ignore"):  # it is seen below
            projected = _product(_split(vectors), self._split_weight)  # (B, D) -> (B, D')
            activated = ACTIVATIONS[self.activation](projected if self.bias is None else projected + self.bias)
        return check_finite(activated)

    @cached_property
    def _split_weight(self) -> _SplitRows:
        return _split(self.weight)


class _SplitRows(NamedTuple):
    """Rows of vectors, (R, D), as 2^exponent 2^-bits (high + 2^-bits low), rounded to twice as many bits.

    `high` and `low` are whole numbers, of which D products add up to at most 2^53: float64 is exact up to there;
    `exponent` is (R, 1).
    """

    high: NDArray[np.float64]
    low: NDArray[np.float64]
    exponent: NDArray[np.integer]
    bits: int


def _split(rows: FloatArray) -> _SplitRows:
    bits = (53 - rows.shape[1].bit_length()) // 2
    exponent = np.frexp(np.abs(rows).max(axis=1, keepdims=True))[1]
    scaled = np.ldexp(rows.astype(np.float64), bits - exponent)  # (R, D), up to 2^bits
    high = np.rint(scaled)
    return _SplitRows(high, np.rint(np.ldexp(scaled - high, bits)), exponent, bits)


def _product(x: _SplitRows, weight: _SplitRows) -> FloatArray:
    """x W^T: (B, D), (D', D) -> (B, D'). What low parts give with each other is below float32's precision."""
    mixed = x.high @ weight.low.T + x.low @ weight.high.T  # (B, D'), exact
    sums = x.high @ weight.high.T + np.ldexp(mixed, -x.bits)  # (B, D'), rounded once, to 53 bits
    return np.ldexp(sums, x.exponent + weight.exponent.T - 2 * x.bits).astype(np.float32)


class Normalize:
    """sentence-transformers' Normalize: every vector to length 1."""

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """(B, D) -> (B, D)."""
        return normalize(vectors)


Module = Dense | Normalize
