"""Token ids -> the vectors that enter the first layer (BERT, section 3, "Input/Output Representations")."""

from __future__ import annotations

from gte_np.encoder import FloatArray
from gte_np.reference.layer_norm import layer_norm
from gte_np.reference.linear import Weights
from gte_np.token_batch import TokenBatch


def embed(batch: TokenBatch, weights: Weights, eps: float) -> FloatArray:
    """Word, token-type and position vectors added up, then normalised: N ids -> (N, D)."""
    words = weights["embeddings.word_embeddings.weight"][batch.input_ids]  # (N,) -> (N, D)
    types = weights["embeddings.token_type_embeddings.weight"][batch.token_type_ids]  # (N,) -> (N, D)
    positions = weights["embeddings.position_embeddings.weight"][batch.position_ids]  # (N,) -> (N, D)
    return layer_norm(words + types + positions, weights, "embeddings.LayerNorm", eps)
