"""Similarities of vectors, with the names and the meaning of sentence_transformers.util."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gte_np.arguments import check_integer
from gte_np.errors import InputError

SimilarityFunction = Callable[[ArrayLike, ArrayLike], NDArray[Any]]

_ELEMENTS_AT_ONCE = 1 << 22  # of scores or of vectors: with what is made of them, some 100 MB
_QUERIES_AT_ONCE = 1024  # more would make no product faster


def normalize(x: ArrayLike, p: float = 2, dim: int = -1) -> NDArray[Any]:
    """Divide the vectors along the axis `dim` by their p-norm: torch.nn.functional.normalize.

    A vector of zeros stays one.

    >>> normalize([[3.0, 4.0]])
    array([[0.6, 0.8]])
    """
    vectors = as_float(x)
    if not -vectors.ndim <= dim < vectors.ndim:
        raise InputError(f"expected dim to be an axis of {vectors.ndim}-dimensional vectors, got {dim}.")
    with np.errstate(over="ignore"):  # of squares; then the vectors are scaled first
        norms = np.linalg.norm(vectors, ord=p, axis=dim, keepdims=True)
    if not np.isfinite(norms).all():
        one = vectors.dtype.type(1)
        vectors = vectors / np.where(np.isfinite(norms), one, np.abs(vectors).max(axis=dim, keepdims=True))
        norms = np.linalg.norm(vectors, ord=p, axis=dim, keepdims=True)
    return vectors / np.maximum(norms, np.asarray(1e-12, vectors.dtype))


def cos_sim(a: ArrayLike, b: ArrayLike) -> NDArray[Any]:
    """Cosines of all rows of `a` with all rows of `b`: (A, D), (B, D) -> (A, B). A (D,) vector is one row.

    >>> cos_sim([1.0, 0.0], [[1.0, 0.0], [1.0, 1.0]]).round(4)
    array([[1.    , 0.7071]])
    """
    a, b = _matrices(a, b)
    return normalize(a) @ normalize(b).T


def dot_score(a: ArrayLike, b: ArrayLike) -> NDArray[Any]:
    """Dot products of all rows of `a` with all rows of `b`: (A, D), (B, D) -> (A, B)."""
    a, b = _matrices(a, b)
    return a @ b.T


def euclidean_sim(a: ArrayLike, b: ArrayLike) -> NDArray[Any]:
    """Euclidean distances, negative, so that more is more alike: (A, D), (B, D) -> (A, B)."""
    a, b = (matrix.astype(np.float64) for matrix in _matrices(a, b))
    squares = np.square(a).sum(axis=1)[:, None] - 2 * (a @ b.T) + np.square(b).sum(axis=1)
    return -np.sqrt(np.maximum(squares, 0)).astype(np.float32)


def manhattan_sim(a: ArrayLike, b: ArrayLike) -> NDArray[Any]:
    """Manhattan distances, negative, so that more is more alike: (A, D), (B, D) -> (A, B)."""
    a, b = _matrices(a, b)
    rows = [np.abs(b - row).sum(axis=1) for row in a]
    return -np.array(rows, a.dtype).reshape(len(a), len(b))


def pairwise_cos_sim(a: ArrayLike, b: ArrayLike) -> NDArray[Any]:
    """Cosine of each row of `a` with the same row of `b`: (B, D), (B, D) -> (B,)."""
    a, b = _equal_matrices(a, b)
    return (normalize(a) * normalize(b)).sum(axis=-1)


def pairwise_dot_score(a: ArrayLike, b: ArrayLike) -> NDArray[Any]:
    """Dot product of each row of `a` with the same row of `b`: (B, D), (B, D) -> (B,)."""
    a, b = _equal_matrices(a, b)
    return (a * b).sum(axis=-1)


def pairwise_euclidean_sim(a: ArrayLike, b: ArrayLike) -> NDArray[Any]:
    """Negative Euclidean distance of each row of `a` from the same row of `b`: (B, D), (B, D) -> (B,)."""
    a, b = _equal_matrices(a, b)
    return -np.sqrt(np.square(a - b).sum(axis=-1))


def pairwise_manhattan_sim(a: ArrayLike, b: ArrayLike) -> NDArray[Any]:
    """Negative Manhattan distance of each row of `a` from the same row of `b`: (B, D), (B, D) -> (B,)."""
    a, b = _equal_matrices(a, b)
    return -np.abs(a - b).sum(axis=-1)


class Similarity(NamedTuple):
    """A similarity of all pairs, (A, D), (B, D) -> (A, B), and of rows, (B, D), (B, D) -> (B,)."""

    all_pairs: SimilarityFunction
    row_by_row: SimilarityFunction


# By the names of config_sentence_transformers.json.
SIMILARITY_FUNCTIONS = {
    "cosine": Similarity(cos_sim, pairwise_cos_sim),
    "dot": Similarity(dot_score, pairwise_dot_score),
    "euclidean": Similarity(euclidean_sim, pairwise_euclidean_sim),
    "manhattan": Similarity(manhattan_sim, pairwise_manhattan_sim),
}


def semantic_search(
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500_000,
    top_k: int = 10,
    score_function: SimilarityFunction = cos_sim,
) -> list[list[dict[str, float | int]]]:
    """Return for each query its `top_k` corpus rows, best first, as {"corpus_id": row, "score": score}.

    At most `query_chunk_size` x `corpus_chunk_size` scores are computed at once, and never more than fit in some
    100 MB. Raises InputError for sizes below 1.
    """
    _check_sizes(query_chunk_size=query_chunk_size, corpus_chunk_size=corpus_chunk_size, top_k=top_k)
    queries, corpus = _matrices(query_embeddings, corpus_embeddings)
    rows, chunk = _rows_at_once(corpus, query_chunk_size, corpus_chunk_size, top_k)
    results = []
    for start in range(0, len(queries), rows):
        scores, ids = _best(queries[start : start + rows], corpus, chunk, top_k, score_function)
        results += [
            [{"corpus_id": row, "score": score} for row, score in zip(*pair, strict=True)]
            for pair in zip(ids.tolist(), scores.tolist(), strict=True)
        ]
    return results


def _rows_at_once(corpus: NDArray[Any], query_chunk: int, corpus_chunk: int, top_k: int) -> tuple[int, int]:
    """How many queries and how many rows of the corpus are compared at once: at most as many as were asked for."""
    width = max(1, corpus.shape[1])
    queries = min(query_chunk, _QUERIES_AT_ONCE, _ELEMENTS_AT_ONCE // max(width, min(top_k, len(corpus))))
    queries = max(1, queries)
    return queries, max(1, min(corpus_chunk, _ELEMENTS_AT_ONCE // max(width, queries)))


def _best(
    queries: NDArray[Any], corpus: NDArray[Any], chunk: int, top_k: int, score_function: SimilarityFunction
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Scores and rows of the `top_k` best of the corpus for each query, best first: two (Q, top_k)."""
    scores = np.empty((len(queries), 0), queries.dtype)
    ids = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(corpus), chunk):
        new = score_function(queries, corpus[start : start + chunk])
        columns = _largest(new, top_k)
        scores = np.hstack([scores, np.take_along_axis(new, columns, 1)])
        ids = np.hstack([ids, columns + start])
        order = np.lexsort((ids, -scores), axis=1)[:, :top_k]  # best first, equal ones in the corpus's order
        scores, ids = np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
    return scores, ids


def _largest(scores: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Columns of the `count` largest scores of each row, in no order: (Q, C) -> (Q, count)."""
    if scores.shape[1] <= count:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(scores, -count, axis=1)[:, -count:]


def paraphrase_mining_embeddings(
    embeddings: ArrayLike,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100_000,
    max_pairs: int = 500_000,
    top_k: int = 100,
    score_function: SimilarityFunction = cos_sim,
) -> list[tuple[float, int, int]]:
    """Return (score, i, j), i < j, of the pairs of rows that are most alike, best first.

    For each row its `top_k` best others count; of all those pairs, the `max_pairs` best are returned. No more than
    these are kept, and at most `query_chunk_size` x `corpus_chunk_size` scores are computed at once, and never more
    than fit in some 100 MB. Raises InputError for sizes below 1.
    """
    _check_sizes(
        query_chunk_size=query_chunk_size, corpus_chunk_size=corpus_chunk_size, max_pairs=max_pairs, top_k=top_k
    )
    matrix = _matrices(embeddings, embeddings)[0]
    rows, chunk = _rows_at_once(matrix, query_chunk_size, corpus_chunk_size, top_k + 1)
    best = _Pairs(np.empty(0, matrix.dtype), np.empty(0, np.int64), np.empty(0, np.int64))
    for start in range(0, len(matrix), rows):
        scores, ids = _best(matrix[start : start + rows], matrix, chunk, top_k + 1, score_function)
        best = _best_pairs(best, _pairs_of(scores, ids, start, top_k), max_pairs)
    return list(zip(*(values.tolist() for values in best), strict=True))


class _Pairs(NamedTuple):
    """Scores of pairs of rows, i < j: three (P,)."""

    score: NDArray[Any]
    i: NDArray[np.int64]
    j: NDArray[np.int64]


def _pairs_of(scores: NDArray[Any], ids: NDArray[np.int64], start: int, top_k: int) -> _Pairs:
    """The pairs of each row, from `start` on, with its `top_k` best others: two (Q, top_k + 1), best first."""
    rows = np.broadcast_to(np.arange(start, start + len(ids))[:, None], ids.shape)
    is_other = ids != rows
    kept = is_other & (is_other.cumsum(axis=1) <= top_k)
    return _Pairs(scores[kept], np.minimum(rows, ids)[kept], np.maximum(rows, ids)[kept])


def _best_pairs(known: _Pairs, new: _Pairs, count: int) -> _Pairs:
    """The best pairs of both, each once with the better of its scores: at most `count`, best first, then by rows."""
    pairs = _Pairs(*(np.concatenate(both) for both in zip(known, new, strict=True)))
    order = np.lexsort((pairs.j, pairs.i, -pairs.score))
    pairs = _Pairs(*(values[order] for values in pairs))
    numbers = pairs.i * (pairs.j.max(initial=0) + 1) + pairs.j
    firsts = np.sort(np.unique(numbers, return_index=True)[1])[:count]
    return _Pairs(*(values[firsts] for values in pairs))


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        check_integer(name, size, least=1)


def as_float(x: ArrayLike) -> NDArray[Any]:
    """Numbers as an array of float32 or float64. Raise TypeError or InputError for what is none."""
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise InputError("expected vectors of one length, got rows of several lengths.") from error
    if array.dtype.kind not in "fiu":
        raise TypeError(f"expected numbers, got {array.dtype}.")
    is_wide = array.dtype.kind == "f" and array.dtype.itemsize >= 4
    return array if is_wide else array.astype(np.float32)  # float16 and int8 would overflow


def _matrices(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    matrix_a, matrix_b = as_matrix(a), as_matrix(b)
    if matrix_a.ndim != 2 or matrix_b.ndim != 2 or matrix_a.shape[1] != matrix_b.shape[1]:
        raise InputError(f"expected vectors of one length, (A, D) and (B, D), got {np.shape(a)} and {np.shape(b)}.")
    return matrix_a, matrix_b


def as_matrix(x: ArrayLike) -> NDArray[Any]:
    """Vectors, (N, D), or one, (D,), as an array (N, D) of float32 or float64. Errors are those of `as_float`."""
    array = as_float(x)
    return array.reshape(0, 0) if array.shape == (0,) else np.atleast_2d(array)  # [] is no vector


def _equal_matrices(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    matrix_a, matrix_b = _matrices(a, b)
    if matrix_a.shape != matrix_b.shape:
        raise InputError(f"expected as many vectors on both sides, got {len(matrix_a)} and {len(matrix_b)}.")
    return matrix_a, matrix_b
