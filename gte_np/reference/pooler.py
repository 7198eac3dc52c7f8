"""The pooler (BERT, section 3.1): what next-sentence prediction was trained on. Embeddings do not use it."""

from __future__ import annotations

import numpy as np

from gte_np.encoder import FloatArray
from gte_np.reference.linear import Weights, linear


def pool_first_token(hidden: FloatArray, weights: Weights) -> FloatArray:
    """tanh(x W^T + b) of each text's first token: (B, T, D) -> (B, D)."""
    return np.tanh(linear(hidden[:, 0], weights, "pooler.dense"))  # (B, T, D) -> (B, D)
