"""Batches: every text once, within the budget."""

from __future__ import annotations

import numpy as np
import pytest

from gte_np.batching import make_batches


@pytest.mark.parametrize(("batch_size", "budget"), [(1, 100), (32, 4096), (7, 60), (1000, 1)])
def test_every_text_once_and_no_batch_too_large(batch_size: int, budget: int) -> None:
    lengths = np.random.default_rng(0).integers(2, 90, 300)
    batches = list(make_batches(lengths, batch_size, budget))
    assert sorted(np.concatenate(batches).tolist()) == list(range(300))
    for batch in batches:
        assert len(batch) <= batch_size
        assert lengths[batch].sum() <= budget or len(batch) == 1


def test_batches_are_filled() -> None:
    assert [len(batch) for batch in make_batches(np.full(10, 5), 100, 20)] == [4, 4, 2]
    assert [len(batch) for batch in make_batches(np.full(10, 5), 3, 1000)] == [3, 3, 3, 1]


def test_longest_first() -> None:
    assert np.concatenate(list(make_batches(np.array([2, 9, 4, 9]), 2))).tolist() == [1, 3, 2, 0]


def test_no_texts() -> None:
    assert list(make_batches(np.array([], int), 32)) == []
