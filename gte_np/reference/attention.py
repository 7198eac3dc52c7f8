"""Multi-head self-attention (Vaswani et al. 2017, section 3.2)."""

from __future__ import annotations

import numpy as np

from gte_np.encoder import FloatArray
from gte_np.reference.linear import Weights, linear
from gte_np.token_batch import TokenBatch


def self_attention(
    x: FloatArray, batch: TokenBatch, weights: Weights, heads: int
) -> tuple[FloatArray, list[FloatArray]]:
    """Let each token gather from the tokens of its own text: (N, D) -> (N, D).

    Also returns the attention probabilities, one (H, T, T) for each of the B texts.
    """
    query = linear(x, weights, "attention.self.query")  # (N, D) -> (N, D)
    key = linear(x, weights, "attention.self.key")  # (N, D) -> (N, D)
    value = linear(x, weights, "attention.self.value")  # (N, D) -> (N, D)
    context = np.empty_like(x)
    probabilities = []
    for text in range(len(batch)):  # only attention knows about texts: the rest of the encoder sees N tokens
        rows = batch.slice(text)
        context[rows], weights_of_text = attend(query[rows], key[rows], value[rows], heads)  # (T, D)
        probabilities.append(weights_of_text)
    return linear(context, weights, "attention.output.dense"), probabilities


def attend(query: FloatArray, key: FloatArray, value: FloatArray, heads: int) -> tuple[FloatArray, FloatArray]:
    """softmax(Q K^T / sqrt(K)) V in each head, of one text: three (T, D) -> (T, D) and (H, T, T)."""
    q, k, v = (split_heads(x, heads) for x in (query, key, value))  # (T, D) -> (H, T, K)
    scores = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(q.shape[-1]))  # (H, T, K), (H, K, T) -> (H, T, T)
    probabilities = softmax(scores)
    return join_heads(probabilities @ v), probabilities  # (H, T, T), (H, T, K) -> (H, T, K) -> (T, D)


def split_heads(x: FloatArray, heads: int) -> FloatArray:
    """(T, D) -> (H, T, K): head h has the features h K up to (h + 1) K."""
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)  # (T, D) -> (T, H, K) -> (H, T, K)


def join_heads(x: FloatArray) -> FloatArray:
    """(H, T, K) -> (T, D), the inverse of `split_heads`."""
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)  # (H, T, K) -> (T, H, K) -> (T, D)


def softmax(scores: FloatArray) -> FloatArray:
    """Exponentials that sum to 1 over the last axis; the largest score is subtracted so that none overflows."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))  # (H, T, T)
    probabilities: FloatArray = exponentials / exponentials.sum(axis=-1, keepdims=True)  # (H, T, T)
    return probabilities
