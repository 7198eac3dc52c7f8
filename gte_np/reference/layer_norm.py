"""Layer normalisation (Ba, Kiros and Hinton 2016, section 3.1).

Each layer adds to its input, so values would grow from layer to layer. Normalising the sum brings them back to one
size, which keeps the training of a deep network stable. It uses the features of one token, never those of others.
"""

from __future__ import annotations

import numpy as np

from gte_np.encoder_interface import FloatArray
from gte_np.reference.linear import Weights


def layer_norm(x: FloatArray, weights: Weights, name: str, eps: float) -> FloatArray:
    """Give each token mean 0 and variance 1 over its features, then scale and shift each feature: (N, D) -> (N, D).

    `eps` keeps the division finite where all features of a token are equal.

    >>> weights = {"n.weight": np.ones(2, np.float32), "n.bias": np.zeros(2, np.float32)}
    >>> layer_norm(np.array([[1, 3], [10, 50]], np.float32), weights, "n", eps=1e-12).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """
    centred = x - x.mean(axis=-1, keepdims=True)  # (N, D) - (N, 1) -> (N, D)
    variance = np.square(centred).mean(axis=-1, keepdims=True)  # (N, D) -> (N, 1)
    scale = weights[f"{name}.weight"] / np.sqrt(variance + np.float32(eps))  # (D,) / (N, 1) -> (N, D)
    return centred * scale + weights[f"{name}.bias"]  # (N, D) * (N, D) + (D,) -> (N, D)
