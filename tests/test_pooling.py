"""Pooling: each mode against its definition, text by text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gte_np import CheckpointError
from gte_np.pooling import POOLING_MODES, pool

DEFINITIONS: dict[str, Callable[[Any], Any]] = {
    "cls": lambda x: x[0],
    "lasttoken": lambda x: x[-1],
    "max": lambda x: x.max(axis=0),
    "mean": lambda x: x.sum(axis=0) / len(x),
    "mean_sqrt_len_tokens": lambda x: x.sum(axis=0) / len(x) ** 0.5,
    "weightedmean": lambda x: sum((i + 1) * row for i, row in enumerate(x)) / sum(range(1, len(x) + 1)),
}
LENGTHS = [1, 5, 2, 512, 1]
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
HIDDEN = np.random.default_rng(0).standard_normal((sum(LENGTHS), 24), dtype=np.float32)


def expected(mode: str) -> Any:
    """By definition, in float64."""
    texts = np.split(HIDDEN.astype(np.float64), OFFSETS[1:-1])
    return np.stack([DEFINITIONS[mode](text) for text in texts])


def test_every_mode_is_tested() -> None:
    assert DEFINITIONS.keys() == POOLING_MODES.keys()


@pytest.mark.parametrize("mode", DEFINITIONS)
def test_mode(mode: str) -> None:
    vectors = pool(HIDDEN, OFFSETS, [mode])
    assert vectors.dtype == np.float32
    assert vectors == pytest.approx(expected(mode), abs=1e-6)


def test_a_sum_that_overflows_is_refused() -> None:
    large = np.full((4, 3), 3e38, np.float32)
    assert np.isfinite(pool(large, np.array([0, 4]), ["mean"])).all()
    with pytest.raises(CheckpointError, match="expected weights that give finite numbers"):
        pool(large, np.array([0, 4]), ["mean_sqrt_len_tokens"])


def test_modes_side_by_side() -> None:
    vectors = pool(HIDDEN, OFFSETS, ["cls", "mean"])
    assert vectors == pytest.approx(np.hstack([expected("cls"), expected("mean")]), abs=1e-6)
