"""Community detection, against its definition by brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gte_np import InputError, cos_sim
from gte_np.util import community_detection


def points(count: int, kinds: int, seed: int) -> Any:
    """Points around a few centers, at distances that put them in overlapping communities."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((kinds, 6), dtype=np.float32)
    noise = random.standard_normal((count, 6), dtype=np.float32) / 3
    return centers[random.integers(0, kinds, count)] + noise


def by_brute_force(vectors: Any, threshold: float, least: int) -> list[list[int]]:
    scores = cos_sim(vectors, vectors)
    near = [[int(row) for row in np.argsort(-line, kind="stable") if line[row] >= threshold] for line in scores]
    taken: set[int] = set()
    found = []
    for center in sorted(range(len(vectors)), key=lambda row: -len(near[row])):
        left = [row for row in near[center] if row not in taken]
        if center not in taken and len(left) >= least:
            found.append([center, *(row for row in left if row != center)])
            taken.update(left)
    return sorted(found, key=len, reverse=True)


@pytest.mark.parametrize(("threshold", "least"), [(0.9, 1), (0.9, 3), (0.8, 5), (0.99, 2), (-1, 4)])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_communities_are_those_of_the_definition(threshold: float, least: int, batch_size: int) -> None:
    vectors = points(150, 8, seed=least)
    expected = by_brute_force(vectors, threshold, least)
    assert expected
    assert community_detection(vectors, threshold, least, batch_size) == expected


def test_no_community(capsys: pytest.CaptureFixture[str]) -> None:
    assert community_detection([]) == []
    assert community_detection(np.eye(3)) == []
    assert community_detection(np.eye(3), min_community_size=2, show_progress_bar=True) == []
    assert "100%" in capsys.readouterr().err
    assert community_detection([1.0, 2.0], min_community_size=1) == [[0]]


@pytest.mark.parametrize("sizes", [{"min_community_size": 0}, {"batch_size": 0}])
def test_sizes_that_cannot_be(sizes: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"to be at least 1, got 0\."):
        community_detection(np.eye(3), **sizes)  # type: ignore[arg-type]
