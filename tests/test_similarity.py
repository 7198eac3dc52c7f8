"""Similarities, search and mining, against their definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gte_np import (
    InputError,
    cos_sim,
    dot_score,
    normalize,
    paraphrase_mining_embeddings,
    semantic_search,
    similarity,
)
from gte_np.similarity import SIMILARITY_FUNCTIONS
from tests.programs import run_program

random = np.random.default_rng(0)
A, B = (random.standard_normal((rows, 33), dtype=np.float32) for rows in (5, 7))
DEFINITIONS: dict[str, Callable[[Any, Any], float]] = {
    "cosine": lambda a, b: float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)),
    "dot": lambda a, b: float(a @ b),
    "euclidean": lambda a, b: -float(np.sqrt(((a - b) ** 2).sum())),
    "manhattan": lambda a, b: -float(np.abs(a - b).sum()),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_all_pairs_and_row_by_row(name: str) -> None:
    all_pairs, row_by_row = SIMILARITY_FUNCTIONS[name]
    wide_a, wide_b = A.astype(np.float64), B.astype(np.float64)
    expected = np.array([[DEFINITIONS[name](a, b) for b in wide_b] for a in wide_a])
    assert all_pairs(A, B) == pytest.approx(expected, abs=2e-5)
    assert row_by_row(A, B[:5]) == pytest.approx(np.diag(expected), abs=2e-5)
    assert all_pairs(A[0], B.tolist()) == pytest.approx(expected[:1], abs=2e-5)
    assert all_pairs(A[:0], B).shape == (0, 7)


def test_every_function_is_tested() -> None:
    assert DEFINITIONS.keys() == SIMILARITY_FUNCTIONS.keys()


def test_equal_vectors_are_at_distance_0() -> None:
    assert SIMILARITY_FUNCTIONS["euclidean"][0](A, A).diagonal() == pytest.approx(0, abs=1e-6)


def test_zeros_have_no_direction() -> None:
    assert cos_sim(np.zeros(33), B).tolist() == [[0] * 7]


def test_squares_that_overflow() -> None:
    """The vectors of such numbers have a length, and those beside them keep their bits."""
    large, small = np.full(33, 3e38, np.float32), B[0].astype(np.float32)
    vectors = normalize([large, small, -large])
    assert vectors == pytest.approx(np.stack([normalize(large * np.float32(1e-30)), normalize(small), -vectors[0]]))
    assert vectors[1].tobytes() == normalize(small).tobytes()
    assert cos_sim(large, large) == pytest.approx(1)


def test_normalize_has_the_arguments_of_torch() -> None:
    assert normalize(A, p=2, dim=1) == pytest.approx(A / np.linalg.norm(A, axis=1)[:, None])
    assert normalize(A, p=1, dim=0) == pytest.approx(A / np.abs(A).sum(axis=0))
    assert normalize(A).dtype == np.float32


@pytest.mark.parametrize(
    ("a", "b", "error"),
    [
        (A, B[:, :5], InputError),
        (A[None], B, InputError),
        (["x"], ["y"], TypeError),
        (None, B, TypeError),
        ([[1, 2], [3]], B, InputError),
    ],
)
def test_what_cannot_be_compared(a: Any, b: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        cos_sim(a, b)


def test_row_by_row_needs_as_many_rows() -> None:
    with pytest.raises(InputError, match="got 5 and 7"):
        SIMILARITY_FUNCTIONS["dot"][1](A, B)


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint8, np.float64])
def test_other_numbers(dtype: type[Any]) -> None:
    a, b = (np.array([[100, 120], [0, 0]]).astype(dtype) for _ in range(2))
    assert cos_sim(a, b) == pytest.approx(np.array([[1, 0], [0, 0]]), abs=1e-6)
    assert dot_score(a, b)[0, 0] == 24400


def test_lists_of_nothing() -> None:
    assert cos_sim([], []).shape == (0, 0)
    assert semantic_search([], []) == []


@pytest.mark.parametrize("sizes", [{"top_k": 0}, {"top_k": -1}, {"query_chunk_size": 0}, {"corpus_chunk_size": -5}])
def test_sizes_that_cannot_be(sizes: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        semantic_search(A, B, **sizes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 1"):
        paraphrase_mining_embeddings(A, **sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize("top_k", [1, 4, 50])
def test_search_is_a_sort(chunk: int, top_k: int) -> None:
    found = semantic_search(A, B, top_k=top_k, query_chunk_size=chunk, corpus_chunk_size=chunk)
    for query, results in zip(cos_sim(A, B), found, strict=True):
        order = np.argsort(-query)[:top_k]
        assert [result["corpus_id"] for result in results] == order.tolist()
        assert [result["score"] for result in results] == pytest.approx(query[order].tolist(), abs=1e-6)


def test_search_with_another_score_and_a_single_query() -> None:
    found = semantic_search(A[0], B, score_function=dot_score, top_k=2)
    assert [result["corpus_id"] for result in found[0]] == np.argsort(-(B @ A[0]))[:2].tolist()


def test_search_in_nothing() -> None:
    assert semantic_search(A[:2], B[:0]) == [[], []]


@pytest.mark.parametrize("chunk", [2, 1000])
def test_mining_finds_the_best_pairs(chunk: int) -> None:
    points = random.standard_normal((40, 8), dtype=np.float32)
    scores = cos_sim(points, points)
    pairs = sorted(((float(scores[i, j]), i, j) for i in range(40) for j in range(i + 1, 40)), reverse=True)
    mined = paraphrase_mining_embeddings(points, query_chunk_size=chunk, corpus_chunk_size=chunk, max_pairs=25)
    assert [pair[1:] for pair in mined] == [pair[1:] for pair in pairs[:25]]
    assert [pair[0] for pair in mined] == pytest.approx([pair[0] for pair in pairs[:25]])


def test_mining_keeps_top_k_of_each_row() -> None:
    points = np.array([[1, 0], [1, 0.1], [1, 0.3], [0, 1]], np.float32)
    assert [pair[1:] for pair in paraphrase_mining_embeddings(points, top_k=1)] == [(0, 1), (1, 2), (2, 3)]


def brute_force_pairs(points: Any, top_k: int, max_pairs: int) -> list[tuple[int, int]]:
    """By definition: the pairs among the top_k of either row, the best first."""
    scores = cos_sim(points, points)
    np.fill_diagonal(scores, -np.inf)
    best = np.argsort(-scores, axis=1)[:, :-1][:, :top_k]  # the last is the row itself
    pairs = {(min(row, int(other)), max(row, int(other))) for row in range(len(points)) for other in best[row]}
    return sorted(pairs, key=lambda pair: -scores[pair])[:max_pairs]


@pytest.mark.parametrize(("top_k", "max_pairs"), [(1, 10_000), (3, 50), (20, 7), (20, 10_000), (500, 100_000)])
@pytest.mark.parametrize("chunk", [7, 64, 5000])
def test_mining_is_a_sort(chunk: int, top_k: int, max_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "_ELEMENTS_AT_ONCE", 2000)
    points = np.random.default_rng(1).standard_normal((150, 6))
    expected = brute_force_pairs(points, top_k, max_pairs)
    mined = paraphrase_mining_embeddings(
        points, top_k=top_k, max_pairs=max_pairs, query_chunk_size=chunk, corpus_chunk_size=chunk
    )
    assert [pair[1:] for pair in mined] == expected
    assert [pair[0] for pair in mined] == pytest.approx([cos_sim(points[i], points[j])[0, 0] for i, j in expected])
    assert {type(value) for pair in mined for value in pair} == {float, int}


def test_mining_among_few_or_none() -> None:
    assert paraphrase_mining_embeddings([]) == []
    assert paraphrase_mining_embeddings(A[:1]) == []
    assert [pair[1:] for pair in paraphrase_mining_embeddings(A[[0, 0]])] == [(0, 1)]


def test_equal_rows_are_pairs_like_others() -> None:
    mined = paraphrase_mining_embeddings(A[[0] * 6], top_k=2)
    assert mined
    assert len({pair[1:] for pair in mined}) == len(mined)
    assert all(i < j for _, i, j in mined)


# In a process of its own, whose peak is the call's. The compiled parts of NumPy allocate what tracemalloc sees.
PEAK = """
import sys, tracemalloc
import numpy as np
from gte_np import paraphrase_mining_embeddings, semantic_search

name, rows, dimension = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
points = np.random.default_rng(0).standard_normal((rows, dimension), np.float32)
tracemalloc.start()
if name == "search":
    result = semantic_search(points[:100], points)
else:
    result = paraphrase_mining_embeddings(points, top_k=100, max_pairs=1000)
current, peak = tracemalloc.get_traced_memory()
print((peak - current) // 2**20)
"""


@pytest.mark.parametrize(
    ("name", "rows", "dimension"), [("search", 300_000, 8), ("search", 30_000, 768), ("mine", 12_000, 8)]
)
def test_memory_is_bounded_at_the_defaults(name: str, rows: int, dimension: int) -> None:
    assert int(run_program(PEAK, name, str(rows), str(dimension))) < 200  # MB
