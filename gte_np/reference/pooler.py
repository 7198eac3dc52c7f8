"""The pooler (BERT, section 3.1): what next-sentence prediction was trained on. Embeddings do not use it."""

from __future__ import annotations

import numpy as np

from gte_np.encoder_interface import FloatArray
from gte_np.reference.linear import Weights, linear


def pool_first_token(hidden: FloatArray, weights: Weights) -> FloatArray:
    """`tanh(x @ weight.transpose + bias)` of each text's first token: (B, T, D) -> (B, D)."""
    first = hidden[:, 0] if len(hidden) else hidden.reshape(0, hidden.shape[2])  # (B, T, D) -> (B, D)
    return np.tanh(linear(first, weights, "pooler.dense"))  # (B, D) -> (B, D)
