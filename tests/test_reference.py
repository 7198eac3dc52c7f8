"""The reference encoder's parts, each against another way to compute it, in float64."""

from __future__ import annotations

from math import erf as exact_erf
from typing import Any

import numpy as np
import pytest

from gte_np.architectures.config import BertConfig
from gte_np.encoder_interface import EncoderInput
from gte_np.reference.attention import attend, join_heads, softmax, split_heads
from gte_np.reference.embeddings import embed
from gte_np.reference.erf import erf
from gte_np.reference.feed_forward import gelu
from gte_np.reference.layer_norm import layer_norm
from gte_np.reference.linear import linear
from gte_np.token_batch import TokenBatch

CONFIG = BertConfig(4, 6, 1, 1, 8, 4, 4, 1e-12)
random = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    """Random float32."""
    return random.standard_normal(shape, dtype=np.float32)


def test_erf_everywhere() -> None:
    x = np.concatenate([np.linspace(-6, 6, 200_001), [-1e30, 1e30, 1e-30, -0.0, 0.0]]).astype(np.float32)
    expected = np.array([exact_erf(value) for value in x.tolist()])
    assert np.abs(erf(x) - expected).max() < 3e-7


def test_gelu_is_that_of_erf_and_not_of_tanh() -> None:
    x = np.linspace(-8, 8, 10_001, dtype=np.float32)
    exact = np.array([value * 0.5 * (1 + exact_erf(value / 2**0.5)) for value in x.tolist()])
    assert np.abs(gelu(x) - exact).max() < 1e-6  # the tanh approximation is off by 5e-4
    assert gelu(x).dtype == np.float32


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 384)])
def test_layer_norm(shape: tuple[int, int]) -> None:
    x, weights = normal(*shape) * 3 + 5, {"n.weight": normal(shape[1]), "n.bias": normal(shape[1])}
    wide = x.astype(np.float64)
    variance = wide.var(axis=1, keepdims=True)
    expected = (wide - wide.mean(axis=1, keepdims=True)) / np.sqrt(variance + 1e-12)
    expected = expected * weights["n.weight"] + weights["n.bias"]
    assert np.abs(layer_norm(x, weights, "n", 1e-12) - expected).max() < 5e-6


def test_layer_norm_adds_eps_to_the_variance() -> None:
    weights = {"n.weight": np.ones(2, np.float32), "n.bias": np.zeros(2, np.float32)}
    x = np.array([[-1.0, 1.0]], np.float32)  # mean 0, variance 1
    assert layer_norm(x, weights, "n", 3.0)[0] == pytest.approx([-0.5, 0.5])


def test_linear_is_x_times_the_transposed_weight_plus_the_bias() -> None:
    weights = {
        "n.weight": np.array([[1, 2], [3, 4], [5, 6]], np.float32),
        "n.bias": np.array([10, 20, 30], np.float32),
    }
    assert linear(np.array([[1, 1]], np.float32), weights, "n").tolist() == [[13, 27, 41]]


def test_heads_split_by_features_and_join_again() -> None:
    x = np.arange(24, dtype=np.float32).reshape(3, 8)
    heads = split_heads(x, 2)
    assert heads[1].tolist() == [[4, 5, 6, 7], [12, 13, 14, 15], [20, 21, 22, 23]]
    assert join_heads(heads).tolist() == x.tolist()


@pytest.mark.parametrize(("tokens", "heads", "size"), [(1, 1, 1), (2, 3, 5), (7, 12, 32), (65, 2, 80)])
def test_attention_against_loops(tokens: int, heads: int, size: int) -> None:
    query, key, value = (normal(tokens, heads * size) for _ in range(3))
    context, probabilities = attend(query, key, value, heads)
    assert probabilities.shape == (heads, tokens, tokens)
    for head in range(heads):
        columns = slice(head * size, (head + 1) * size)
        for token in range(tokens):
            scores = [float(query[token, columns].astype(float) @ row) / size**0.5 for row in key[:, columns]]
            expected = np.exp(np.array(scores) - max(scores))
            expected /= expected.sum()
            assert np.abs(probabilities[head, token] - expected).max() < 1e-5
            assert np.abs(context[token, columns] - expected @ value[:, columns]).max() < 1e-5


def test_softmax_of_large_scores_is_finite() -> None:
    probabilities = softmax(np.array([[1000, 999, -1000]], np.float32))
    assert probabilities[0] == pytest.approx([0.7310586, 0.2689414, 0])


def test_embeddings_add_word_type_and_position() -> None:
    names = ("word_embeddings", "token_type_embeddings", "position_embeddings")
    weights = {f"embeddings.{name}.weight": normal(4, 6) for name in names}
    weights |= {"embeddings.LayerNorm.weight": np.ones(6, np.float32), "embeddings.LayerNorm.bias": np.zeros(6)}
    ids = np.array([[3, 0], [1, 2]])
    batch = TokenBatch.from_padded(ids, ids >= 0, np.array([[0, 1], [0, 0]]))
    word, kind, position = (weights[f"embeddings.{name}.weight"] for name in names)
    total = np.stack([word[3] + kind[0] + position[0], word[0] + kind[1] + position[1],
                      word[1] + kind[0] + position[0], word[2] + kind[0] + position[1]])  # fmt: skip
    expected = layer_norm(total, weights, "embeddings.LayerNorm", 1e-12)
    assert np.abs(embed(EncoderInput(batch, CONFIG), weights, 1e-12) - expected).max() < 1e-5
