"""Token ids -> the vectors that enter the first layer (BERT, section 3, "Input/Output Representations")."""

from __future__ import annotations

from gte_np.encoder import EncoderInput, FloatArray
from gte_np.reference.layer_norm import layer_norm
from gte_np.reference.linear import Weights


def embed(inputs: EncoderInput, weights: Weights, eps: float) -> FloatArray:
    """Word, token-type and position vectors added up, then normalised: N ids -> (N, D)."""
    words = weights["embeddings.word_embeddings.weight"][inputs.batch.input_ids]  # (N,) -> (N, D)
    types = weights["embeddings.token_type_embeddings.weight"][inputs.batch.token_type_ids]  # (N,) -> (N, D)
    positions = weights["embeddings.position_embeddings.weight"][inputs.position_ids]  # (N,) -> (N, D)
    return layer_norm(words + types + positions, weights, "embeddings.LayerNorm", eps)
