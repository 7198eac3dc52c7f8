"""Layer normalisation (Ba, Kiros and Hinton 2016, section 3.1)."""

from __future__ import annotations

import numpy as np

from gte_np.encoder import FloatArray
from gte_np.reference.linear import Weights


def layer_norm(x: FloatArray, weights: Weights, name: str, eps: float) -> FloatArray:
    """Give each token mean 0 and variance 1 over its features, then scale and shift: (N, D) -> (N, D)."""
    centred = x - x.mean(axis=-1, keepdims=True)  # (N, D)
    variance = np.square(centred).mean(axis=-1, keepdims=True)  # (N, D) -> (N, 1)
    scale = weights[f"{name}.weight"] / np.sqrt(variance + np.float32(eps))  # (D,) / (N, 1) -> (N, D)
    return centred * scale + weights[f"{name}.bias"]
