"""Token ids -> the vectors that enter the first layer (BERT, section 3, "Input/Output Representations").

Why positions: nothing else in the encoder knows the order of the tokens. Without a vector for each position, "dog
bites man" and "man bites dog" would have the same embedding. The vectors are added, not appended: the size stays D,
and training arranges what stands in it.

Token types tell the two texts of a pair apart; an embedding is of one text, whose tokens have type 0.
"""

from __future__ import annotations

from gte_np.encoder_interface import EncoderInput, FloatArray
from gte_np.reference.layer_norm import layer_norm
from gte_np.reference.linear import Weights


def embed(inputs: EncoderInput, weights: Weights, eps: float) -> FloatArray:
    """Look up word, token-type and position vectors, add them, normalise: N ids -> (N, D)."""
    words = weights["embeddings.word_embeddings.weight"][inputs.batch.input_ids]  # (N,) -> (N, D)
    types = weights["embeddings.token_type_embeddings.weight"][inputs.batch.token_type_ids]  # (N,) -> (N, D)
    positions = weights["embeddings.position_embeddings.weight"][inputs.position_ids]  # (N,) -> (N, D)
    return layer_norm(words + types + positions, weights, "embeddings.LayerNorm", eps)  # (N, D)
