"""Groups of vectors that are near each other, with the meaning of sentence_transformers.util.community_detection."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gte_np.arguments import check_integer
from gte_np.progress import progress_bar
from gte_np.similarity import as_matrix, normalize

_SCORES_AT_ONCE = 1 << 24  # 64 MB of float32


def community_detection(
    embeddings: ArrayLike,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Return the communities among vectors, (N, D), the largest first: lists of row numbers, the center's first.

    The community of a center is all rows whose cosine with it is at least `threshold`, in the order of their cosines;
    it counts if it has at least `min_community_size` rows. Centers with larger communities come first and take their
    rows away from the others. No row is in two communities, and many may be in none.

    At most `batch_size` x N cosines are computed at once, and never more than fit in some 64 MB, as long as one row
    of them does. Cosines are computed twice, so that no community has to be kept before it is chosen. Raises
    InputError for sizes below 1.

    >>> community_detection([[1, 0], [0, 1], [1, 0.1], [0.1, 1], [1, 0]], threshold=0.9, min_community_size=2)
    [[0, 4, 2], [1, 3]]
    """
    least = check_integer("min_community_size", min_community_size, least=1)
    vectors = normalize(as_matrix(embeddings))  # (N, D)
    rows = min(check_integer("batch_size", batch_size, least=1), max(1, _SCORES_AT_ONCE // max(1, len(vectors))))
    sizes = _community_sizes(vectors, threshold, rows, show_progress_bar)  # (N,)
    order = np.argsort(-sizes, kind="stable")
    return sorted(_choose(vectors, order[sizes[order] >= least], threshold, rows, least), key=len, reverse=True)


def _community_sizes(vectors: NDArray[Any], threshold: float, rows: int, show: bool) -> NDArray[np.int64]:
    """How many rows are near each row, itself included: (N, D) -> (N,)."""
    sizes = np.zeros(len(vectors), np.int64)
    with progress_bar(len(vectors), show) as advance:
        for start in range(0, len(vectors), rows):
            some = vectors[start : start + rows]
            sizes[start : start + rows] = (some @ vectors.T >= threshold).sum(axis=1)  # (R, D), (D, N) -> (R,)
            advance(len(some))
    return sizes


def _choose(
    vectors: NDArray[Any], centers: NDArray[np.int64], threshold: float, rows: int, least: int
) -> list[list[int]]:
    """The communities of the centers, (C,), in their order, without the rows that one before has taken."""
    free = np.ones(len(vectors), np.bool_)
    chosen = []
    while centers.size:
        some, centers = centers[:rows], centers[rows:]
        for center, scores in zip(some.tolist(), vectors[some] @ vectors.T, strict=True):  # scores: (N,)
            near = np.flatnonzero(free & (scores >= threshold))
            if free[center] and len(near) >= least:
                others = near[near != center]
                chosen.append([center, *others[np.argsort(-scores[others], kind="stable")].tolist()])
                free[chosen[-1]] = False
        centers = centers[free[centers]]
    return chosen
