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
    """Look up word, token-type and position vectors, add them, normalise: N ids -> (N, D).

    The same word at two positions has two vectors:

    >>> import numpy as np
    >>> from gte_np.architectures.config import BertConfig
    >>> from gte_np.token_batch import TokenBatch
    >>> weights = {
    ...     "embeddings.word_embeddings.weight": np.array([[0, 0], [7, 5]], np.float32),
    ...     "embeddings.position_embeddings.weight": np.array([[0, 0], [0, 4]], np.float32),
    ...     "embeddings.token_type_embeddings.weight": np.zeros((1, 2), np.float32),
    ...     "embeddings.LayerNorm.weight": np.ones(2, np.float32),
    ...     "embeddings.LayerNorm.bias": np.zeros(2, np.float32),
    ... }
    >>> config = BertConfig(2, 2, 1, 1, 8, 2, 1, 1e-12)
    >>> embed(EncoderInput(TokenBatch.from_ids([[1, 1]]), config), weights, eps=1e-12).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    words = weights["embeddings.word_embeddings.weight"][inputs.batch.input_ids]  # (N,) -> (N, D)
    types = weights["embeddings.token_type_embeddings.weight"][inputs.batch.token_type_ids]  # (N,) -> (N, D)
    positions = weights["embeddings.position_embeddings.weight"][inputs.position_ids]  # (N,) -> (N, D)
    return layer_norm(words + types + positions, weights, "embeddings.LayerNorm", eps)  # (N, D)
