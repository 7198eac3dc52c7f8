"""The division of a batch: all texts in order, none twice, and who works on what."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gte_np.kernels.runtime.chunks import (
    STEP_OF_TEAMS,
    TOKENS_OF_A_TEAM,
    TOKENS_WORTH_A_THREAD,
    UNEVEN,
    Chunk,
    divide,
    useful_threads,
)
from gte_np.token_batch import offsets_of


def random_lengths(random: np.random.Generator) -> list[int]:
    """Lengths of texts in tokens: alike, of all sizes, or a few long ones among short ones."""
    count = int(random.integers(1, 200))
    kind = random.integers(3)
    if kind == 0:
        return [int(random.integers(1, 513))] * count
    if kind == 1:
        return random.integers(1, 513, count).tolist()
    return np.where(random.random(count) < 0.05, 512, random.integers(1, 9, count)).tolist()


CASES = [
    (random_lengths(np.random.default_rng(seed)), threads)
    for seed, threads in itertools.product(range(150), (1, 2, 3, 4, 7, 16))
]


def tokens_of(chunks: list[Chunk], lengths: list[int]) -> list[int]:
    """How many tokens each chunk has."""
    return [sum(lengths[first:last]) for first, last in chunks]


def longest_share(tokens: list[int], threads: int) -> int:
    """Tokens of the thread that has most, when each takes the next chunk as soon as it is free."""
    shares = [0] * threads
    for count in tokens:
        shares.sort()
        shares[0] += count
    return max(shares)


def test_chunks_have_all_texts_in_order() -> None:
    for lengths, threads in CASES:
        chunks, _ = divide(offsets_of(lengths), threads)
        texts = [text for first, last in chunks for text in range(first, last)]
        assert texts == list(range(len(lengths)))
        assert all(first < last for first, last in chunks)


def test_chunks_are_bounded() -> None:
    """Half more than meant at most, and half a text at each end: so memory is."""
    for lengths, threads in CASES:
        chunks, _ = divide(offsets_of(lengths), threads)
        assert max(tokens_of(chunks, lengths)) <= 1.5 * TOKENS_OF_A_TEAM + max(lengths)


def test_threads_work_apart_only_if_each_has_its_share() -> None:
    apart_cases = 0
    for lengths, threads in CASES:
        chunks, apart = divide(offsets_of(lengths), threads)
        share = sum(lengths) / threads
        if apart and threads > 1:
            apart_cases += 1
            assert share >= TOKENS_WORTH_A_THREAD
            assert longest_share(tokens_of(chunks, lengths), threads) <= UNEVEN * share
        if threads > 1 and max(lengths) > UNEVEN * share:
            assert not apart
    assert len(CASES) / 10 < apart_cases < len(CASES)


def test_one_thread_works_apart() -> None:
    assert all(apart for lengths, threads in CASES if threads == 1 for _, apart in [divide(offsets_of(lengths), 1)])


@pytest.mark.parametrize(
    ("lengths", "threads", "chunks", "apart"),
    [
        ([512], 2, [(0, 1)], False),
        ([3], 2, [(0, 1)], False),
        ([3], 1, [(0, 1)], True),
        ([512, 512], 2, [(0, 1), (1, 2)], True),
        ([3, 3], 2, [(0, 2)], False),  # too little to do for two
        ([96, 96], 2, [(0, 1), (1, 2)], True),
        ([128] * 16, 2, [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14), (14, 16)], True),
        ([128] * 16, 1, [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14), (14, 16)], True),
        ([512] * 3, 2, [(0, 2), (2, 3)], False),  # one of two threads would have twice as much
        ([512, *[3] * 100], 2, [(0, 101)], False),
        ([512, *[3] * 100], 1, [(0, 1), (1, 11), (11, 101)], True),
        ([512] * 4, 16, [(0, 2), (2, 4)], False),
    ],
)
def test_cases(lengths: list[int], threads: int, chunks: list[tuple[int, int]], apart: bool) -> None:
    assert divide(offsets_of(lengths), threads) == (chunks, apart)


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_no_texts(threads: int) -> None:
    chunks, _ = divide(offsets_of([]), threads)
    assert chunks == []


@pytest.mark.parametrize(
    ("lengths", "threads", "words", "useful"),
    [
        ([12], 2, 5_000_000, 2),
        ([12], 64, 5_000_000, STEP_OF_TEAMS),  # gte-small in int8
        ([12], 64, 85_000_000, 24),  # gte-base in float32
        ([512], 64, 85_000_000, 64),
        ([512], 192, 85_000_000, 156),
        ([5000], 192, 5_000_000, 60),  # as for TOKENS_OF_A_TEAM
        ([128] * 40, 64, 5_000_000, 60),
        ([128] * 64, 64, 5_000_000, 64),  # by text
        ([], 64, 5_000_000, STEP_OF_TEAMS),
    ],
)
def test_a_team_is_as_large_as_its_work(lengths: list[int], threads: int, words: int, useful: int) -> None:
    assert useful_threads(offsets_of(lengths), threads, words) == useful
