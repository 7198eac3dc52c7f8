"""What comes after the encoder: a vector's bits depend on its text alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import CheckpointError, EmbeddingModel, normalize
from gte_np.modules import ACTIVATIONS, Dense
from gte_np.pooling import POOLING_MODES, pool
from tests.checkpoints import dense_model
from tests.compiled import same_bits
from tests.texts import ORDINARY, of_length

random = np.random.default_rng(0)
TEXTS = [*ORDINARY, *(of_length(words, seed=words) for words in (3, 8, 15, 40)), *(f"happy {i}" for i in range(60))]


def dense(out_features: int, in_features: int, activation: str = "linear.Identity") -> Dense:
    weight = random.standard_normal((out_features, in_features), np.float32)
    bias = random.standard_normal(out_features, np.float32)
    return Dense(weight, bias, f"torch.nn.modules.{activation}")


def some_rows(count: int) -> Sequence[Any]:
    """Parts of so many rows: one, several at any place and in any order, all."""
    parts = [random.permutation(count)[: random.integers(1, count)] for _ in range(6)]
    return [*(slice(row, row + 1) for row in range(0, count, 7)), slice(1, None), slice(None, None, -1), *parts]


@pytest.mark.parametrize("sizes", [(1, 1), (7, 5), (300, 33), (257, 384), (1792, 1024)])
def test_a_dense_row_depends_on_that_row_alone(sizes: tuple[int, int]) -> None:
    module = dense(*sizes)
    x = random.standard_normal((90, sizes[1]), np.float32)
    whole = module(x)
    for rows in some_rows(len(x)):
        assert same_bits(module(x[rows]), whole[rows])
    wide = np.full((90, sizes[1] + 3), np.nan, np.float32)
    wide[:, 1:-2] = x  # rows that lie apart, and are aligned in another way
    assert same_bits(module(wide[:, 1:-2]), whole)


@pytest.mark.parametrize("scale", [1e-35, 1e-12, 1.0, 1e12, 1e18])
def test_dense_is_more_exact_than_float32(scale: float) -> None:
    module = dense(50, 700)
    x = random.standard_normal((20, 700), np.float32) * np.float32(scale)
    x[:, 0] *= 1000  # beside what is much smaller
    assert module.bias is not None
    expected = x.astype(np.float64) @ module.weight.T.astype(np.float64) + module.bias
    size = np.abs(x).astype(np.float64) @ np.abs(module.weight).T.astype(np.float64) + np.abs(module.bias)
    assert (np.abs(module(x) - expected) / size).max() < 2**-23


def test_a_dense_module_that_overflows_is_refused() -> None:
    module = dense(5, 7)
    large = np.full((2, 7), 3e38, np.float32)
    with pytest.raises(CheckpointError, match="expected weights that give finite numbers"):
        Dense(module.weight * 0 + 2, module.bias, module.activation)(large)
    with pytest.raises(CheckpointError, match="expected weights that give finite numbers"):
        Dense(module.weight * 0 - 2, None, "torch.nn.modules.activation.GELU")(large)
    assert np.isfinite(Dense(module.weight * 0 + np.float32(0.1), None, module.activation)(large)).all()


def test_dense_of_zeros_and_of_no_rows() -> None:
    module = dense(5, 7)
    assert module.bias is not None
    assert same_bits(module(np.zeros((2, 7), np.float32)), np.stack([module.bias] * 2))
    assert module(np.zeros((0, 7), np.float32)).shape == (0, 5)
    zeros = Dense(np.zeros((5, 7), np.float32), None, "torch.nn.modules.linear.Identity")
    assert not zeros(random.standard_normal((2, 7), np.float32)).any()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("modes", [*([mode] for mode in POOLING_MODES), list(POOLING_MODES)])
def test_vectors_of_a_dense_model_do_not_depend_on_the_batch(
    modes: list[str], activation: str, tmp_path: Path
) -> None:
    model = EmbeddingModel(dense_model(tmp_path, pooling=modes, activation=activation.rpartition(".")[2]))
    alone = np.stack([model.encode(text) for text in TEXTS])
    for batch_size in (2, 5, 1000):
        order = random.permutation(len(TEXTS))
        vectors = model.encode([TEXTS[index] for index in order], batch_size=batch_size)
        assert same_bits(vectors, alone[order])
    cut = np.stack([model.encode(text, truncate_dim=13, normalize_embeddings=True) for text in TEXTS])
    assert same_bits(model.encode(TEXTS, truncate_dim=13, normalize_embeddings=True), cut)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_pooling_a_text_does_not_depend_on_the_others(mode: str) -> None:
    lengths = [1, 5, 2, 300, 129, 8, 1, 17, 513]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    hidden = np.full((sum(lengths), 31), np.nan, np.float32)
    hidden[:, :24] = random.standard_normal((sum(lengths), 24), np.float32)
    whole = pool(hidden[:, :24], offsets, [mode])
    for text, length in enumerate(lengths):
        rows = hidden[offsets[text] : offsets[text + 1], :24]
        assert same_bits(pool(rows, np.array([0, length]), [mode]), whole[text : text + 1])
        assert same_bits(pool(rows.copy(), np.array([0, length]), [mode]), whole[text : text + 1])


@pytest.mark.parametrize("size", [1, 2, 7, 8, 33, 384, 1024, 10_000])
def test_normalizing_a_vector_does_not_depend_on_the_others(size: int) -> None:
    wide = random.standard_normal((90, size + 5), np.float32)
    whole = normalize(wide[:, :size])
    assert same_bits(normalize(wide[:, :size].copy()), whole)
    for rows in some_rows(len(wide)):
        assert same_bits(normalize(wide[rows, :size]), whole[rows])
