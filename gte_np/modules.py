"""What a repository puts after pooling: modules that turn (B, D) vectors into (B, D') vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gte_np.encoder import FloatArray
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

    `weight` is (D', D), `bias` is (D',) or None; `activation` is a key of `ACTIVATIONS`.
    """

    weight: FloatArray
    bias: FloatArray | None
    activation: str

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """(B, D) -> (B, D')."""
        projected = vectors @ self.weight.T  # (B, D) -> (B, D')
        return ACTIVATIONS[self.activation](projected if self.bias is None else projected + self.bias)


class Normalize:
    """sentence-transformers' Normalize: every vector to length 1."""

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """(B, D) -> (B, D)."""
        return normalize(vectors)


Module = Dense | Normalize
