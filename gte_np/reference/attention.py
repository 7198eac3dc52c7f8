"""Multi-head self-attention (Vaswani et al. 2017, section 3.2).

Three linear layers give each token a query (what it looks for), a key (what it can be found by) and a value (what it
passes on). For one text and one head,

    probabilities = softmax(query @ key.transpose / sqrt(head size))
    context       = probabilities @ value

so a token's context is the average of the values of its text, weighted by how well their keys match its query.

Why the square root: a score is a sum of as many products as a head has features. If those are independent, and of
about the same size, scores grow as the square root of their number. Without the division, softmax would give nearly
all to the largest score, and its gradients would vanish.

Why heads: one softmax can express one relation between tokens at a time. H heads, each with its own D / H of the
features, express H of them for the same number of multiplications as one head with all D.
"""

from __future__ import annotations

import numpy as np

from gte_np.encoder_interface import FloatArray
from gte_np.reference.linear import Weights, linear
from gte_np.token_batch import TokenBatch


def self_attention(
    x: FloatArray, batch: TokenBatch, weights: Weights, heads: int
) -> tuple[FloatArray, list[FloatArray]]:
    """Let each token gather from the tokens of its own text: (N, D) -> (N, D).

    Also returns the attention probabilities, one (H, T, T) for each of the B texts.

    With an identity for each weight and no bias, queries and keys are x itself. Tokens of x that are alike find each
    other, but only in their own text: the third token is a text by itself.

    >>> names = ["self.query", "self.key", "self.value", "output.dense"]
    >>> weights = {f"attention.{name}.weight": np.eye(2, dtype=np.float32) for name in names}
    >>> weights |= {f"attention.{name}.bias": np.zeros(2, np.float32) for name in names}
    >>> x = np.array([[9, 0], [0, 9], [9, 0]], np.float32)
    >>> context, probabilities = self_attention(x, TokenBatch.from_ids([[5, 6], [7]]), weights, heads=1)
    >>> context.round(3).tolist()
    [[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]]
    >>> [text_probabilities.shape for text_probabilities in probabilities]
    [(1, 2, 2), (1, 1, 1)]
    """
    query = linear(x, weights, "attention.self.query")  # (N, D) -> (N, D)
    key = linear(x, weights, "attention.self.key")  # (N, D) -> (N, D)
    value = linear(x, weights, "attention.self.value")  # (N, D) -> (N, D)
    context = np.empty_like(x)  # (N, D)
    probabilities = []
    for text in range(len(batch)):  # only attention knows about texts: the rest of the encoder sees N tokens
        rows = batch.slice(text)
        context[rows], text_probabilities = attend(query[rows], key[rows], value[rows], heads)  # (T, D), (H, T, T)
        probabilities.append(text_probabilities)
    return linear(context, weights, "attention.output.dense"), probabilities  # (N, D) -> (N, D)


def attention_probabilities(x: FloatArray, batch: TokenBatch, weights: Weights, heads: int) -> list[FloatArray]:
    """The probabilities of `self_attention` alone, without what is gathered: (N, D) -> (H, T, T) for each text."""
    query = linear(x, weights, "attention.self.query")  # (N, D) -> (N, D)
    key = linear(x, weights, "attention.self.key")  # (N, D) -> (N, D)
    texts = [batch.slice(text) for text in range(len(batch))]
    return [match(split_heads(query[rows], heads), split_heads(key[rows], heads)) for rows in texts]


def attend(query: FloatArray, key: FloatArray, value: FloatArray, heads: int) -> tuple[FloatArray, FloatArray]:
    """The formula above for one text, in each head: three (T, D) -> context (T, D) and probabilities (H, T, T).

    A query of zeros matches all keys equally, so it gets the mean of the values:

    >>> query, key = np.zeros((2, 1), np.float32), np.array([[1], [5]], np.float32)
    >>> context, probabilities = attend(query, key, np.array([[10], [20]], np.float32), heads=1)
    >>> context.tolist(), probabilities.tolist()
    ([[15.0], [15.0]], [[[0.5, 0.5], [0.5, 0.5]]])
    """
    query, key, value = (split_heads(x, heads) for x in (query, key, value))  # (T, D) -> (H, T, K)
    probabilities = match(query, key)  # (H, T, K), (H, T, K) -> (H, T, T)
    context = probabilities @ value  # (H, T, T) @ (H, T, K) -> (H, T, K)
    return join_heads(context), probabilities  # (H, T, K) -> (T, D)


def match(query: FloatArray, key: FloatArray) -> FloatArray:
    """How well each query matches each key, as probabilities: (H, T, K), (H, T, K) -> (H, T, T)."""
    root = np.float32(np.sqrt(query.shape[-1]))
    scores = query @ key.transpose(0, 2, 1) / root  # (H, T, K) @ (H, K, T) -> (H, T, T)
    return softmax(scores)  # (H, T, T)


def split_heads(x: FloatArray, heads: int) -> FloatArray:
    """(T, D) -> (H, T, K): each head takes the next K features of every token.

                  head 0     head 1             head 0              head 1
        token 0  [ 1  2  3 | 4  5  6 ]         [ 1  2  3 ]         [ 4  5  6 ]
        token 1  [ 7  8  9 |10 11 12 ]    ->   [ 7  8  9 ]         [10 11 12 ]
                       (T, D)                            (H, T, K)

    >>> split_heads(np.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]), heads=2).tolist()
    [[[1, 2, 3], [7, 8, 9]], [[4, 5, 6], [10, 11, 12]]]
    """
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)  # (T, D) -> (T, H, K) -> (H, T, K)


def join_heads(x: FloatArray) -> FloatArray:
    """(H, T, K) -> (T, D), the inverse of `split_heads`.

    >>> join_heads(np.array([[[1, 2, 3], [7, 8, 9]], [[4, 5, 6], [10, 11, 12]]])).tolist()
    [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]
    """
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)  # (H, T, K) -> (T, H, K) -> (T, D)


def softmax(scores: FloatArray) -> FloatArray:
    """Exponentials that sum to 1 over the last axis; the largest score is subtracted so that none overflows.

    >>> softmax(np.array([0, 1, 1000], np.float32))
    array([0., 0., 1.], dtype=float32)
    >>> softmax(np.array([0, 1, 2], np.float32)).round(3)
    array([0.09 , 0.245, 0.665], dtype=float32)
    """
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))  # (H, T, T) - (H, T, 1) -> (H, T, T)
    probabilities: FloatArray = exponentials / exponentials.sum(axis=-1, keepdims=True)  # (H, T, T)
    return probabilities
