"""What people import from sentence_transformers.util, under the same names: `from gte_np import util`.

Everything takes and returns NumPy arrays; a torch tensor on the CPU is read as one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gte_np.arguments import check_integer
from gte_np.communities import community_detection
from gte_np.embedding_model import paraphrase_mining
from gte_np.embedding_quantization import quantize_embeddings
from gte_np.similarity import (
    cos_sim,
    dot_score,
    euclidean_sim,
    manhattan_sim,
    normalize,
    pairwise_cos_sim,
    pairwise_dot_score,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
    paraphrase_mining_embeddings,
    semantic_search,
)

__all__ = [
    "community_detection",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "manhattan_sim",
    "normalize_embeddings",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "paraphrase_mining",
    "paraphrase_mining_embeddings",
    "pytorch_cos_sim",
    "quantize_embeddings",
    "semantic_search",
    "truncate_embeddings",
]

pytorch_cos_sim = cos_sim


def normalize_embeddings(embeddings: ArrayLike) -> NDArray[Any]:
    """Scale vectors to length 1: (N, D) -> (N, D), or (D,) -> (D,).

    >>> normalize_embeddings([[3.0, 4.0]])
    array([[0.6, 0.8]])
    """
    return normalize(embeddings)


def truncate_embeddings(embeddings: ArrayLike, truncate_dim: int | None) -> NDArray[Any]:
    """Keep the first dimensions of vectors, all of them for None: (..., D) -> (..., D').

    Raises InputError for less than one dimension; where there are fewer, all are kept.

    >>> truncate_embeddings([[1, 2, 3]], 2)
    array([[1, 2]])
    """
    kept = None if truncate_dim is None else check_integer("truncate_dim", truncate_dim, least=1)
    return np.asarray(embeddings)[..., :kept]
