"""Exact search in a finished output, for those who have no store of vectors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.arguments import check_integer
from gte_np.encoder_interface import FloatArray
from gte_np.errors import InputError
from gte_np.jobs.results import Results
from gte_np.similarity import normalize

_ROWS = 1 << 17  # of which the best are kept at once
_ROWS_IN_CACHE = 1 << 10  # of which cosines are computed at once: their vectors stay in the caches of a processor


class Hit(NamedTuple):
    """A row that was found: its similarity to the query, its number in the output and its columns."""

    score: float
    number: int
    row: dict[str, Any]


def search(results: Results, query: FloatArray, top_k: int) -> list[Hit]:
    """The `top_k` rows that are most like a query, (D,) float32, by the cosine, best first, equal ones in order.

    Vectors of int8 and uint8 are put back to their ranges; of binary ones, a bit is a number of 1 or -1.

    Raises InputError for a query of another length, and for a `top_k` below 1.
    """
    check_integer("top_k", top_k, least=1)
    query = normalize(query)
    scores, numbers, first = np.empty(0, np.float32), np.empty(0, np.int64), 0
    for block in results.vectors():
        for start in range(0, len(block), _ROWS):
            cosines = _cosines(block[start : start + _ROWS], query, results)
            scores = np.concatenate([scores, cosines])
            numbers = np.concatenate([numbers, np.arange(first + start, first + start + len(cosines))])
            best = _best(scores, numbers, top_k)
            scores, numbers = scores[best], numbers[best]
        first += len(block)
    rows = results.select(numbers.tolist())
    return [Hit(score, number, rows[number]) for score, number in zip(scores.tolist(), numbers.tolist(), strict=True)]


def _best(scores: NDArray[np.float32], numbers: NDArray[np.int64], top_k: int) -> NDArray[np.int64]:
    """Where the `top_k` highest scores are, in order, equal ones by their numbers: (B,), (B,) -> (K,)."""
    if len(scores) > top_k:
        least = np.partition(scores, len(scores) - top_k)[-top_k]
        found = np.flatnonzero(~(scores < least))  # only these need be sorted
    else:
        found = np.arange(len(scores))
    return found[np.lexsort((numbers[found], -scores[found]))[:top_k]]


def _cosines(vectors: NDArray[Any], query: FloatArray, results: Results) -> NDArray[np.float32]:
    """Cosines of vectors, (B, W), and a query of length 1, (D,) -> (B,)."""
    cosines = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _ROWS_IN_CACHE):
        part = slice(start, start + _ROWS_IN_CACHE)
        values = to_float(vectors[part], results)
        if values.shape[1] != len(query):
            raise InputError(
                f"expected a query of {values.shape[1]} dimensions, as the output has, got {len(query)}."
            )
        norms = np.sqrt(np.einsum("ij,ij->i", values, values))
        # Unlike a product of matrices, einsum gives equal vectors equal cosines, wherever they are.
        cosines[part] = np.einsum("ij,j->i", values, query) / np.maximum(norms, 1e-12)
    return cosines


def to_float(vectors: NDArray[Any], results: Results) -> FloatArray:
    """Quantised vectors as float32: (B, W) -> (B, D)."""
    precision = results.settings["precision"]
    if precision == "float32":
        return np.asarray(vectors, np.float32)
    if precision in ("binary", "ubinary"):
        bits = (np.asarray(vectors, np.int16) + (128 if precision == "binary" else 0)).astype(np.uint8)
        return np.unpackbits(bits, axis=1).astype(np.float32) * 2 - 1
    ranges = results.ranges
    if ranges is None:
        raise InputError(f"expected the ranges of {precision} in {str(results.place.ranges)!r}, got no such file.")
    levels = np.asarray(vectors, np.float32) + (128 if precision == "int8" else 0)
    return (levels + 0.5) * ((ranges[1] - ranges[0]) / 255) + ranges[0]
