"""How a batch is divided: among threads by text, or, if it has too few texts for that, not at all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# A thread by itself reads all weights for each of its chunks: with so many tokens that takes less time than
# computing.
TOKENS_WORTH_A_THREAD = 96
TOKENS_OF_A_CHUNK = 256
# A team divides each matrix product, so larger chunks cost it nothing but memory.
TOKENS_OF_A_TEAM = 1024
# The best team for little work is small: each thread must be woken, and is waited for at the end of each step. By the
# model of `benchmarks.many_cores`, its size grows with the square root of tokens times words of weights. It is taken
# in steps of 12: attention and the smallest products of many models have so many tasks, or twice as many.
STEP_OF_TEAMS = 12
WORK_OF_A_THREAD = 2_000_000
# Dividing by text is given up if the thread with most to do has so much more than its share.
UNEVEN = 1.1


class Chunk(NamedTuple):
    """Texts from `first` up to `last`."""

    first: int
    last: int


def tokens_of_a_round(threads: int) -> int:
    """Tokens of a chunk for each thread: with so many all are busy, and more take as much longer."""
    return threads * TOKENS_OF_A_CHUNK


def useful_threads(offsets: NDArray[np.integer], threads: int, words: int) -> int:
    """How many of so many threads a batch should have, with a model of so many words of packed weights.

    It is all of them, unless a team of them would have too little to do.
    """
    tokens = int(offsets[-1])
    if len(offsets) > 2 and tokens >= threads * TOKENS_WORTH_A_THREAD:  # they may be divided by text
        return threads
    best = math.sqrt(min(tokens, TOKENS_OF_A_TEAM) * words / WORK_OF_A_THREAD)
    return min(threads, max(1, math.ceil(best / STEP_OF_TEAMS)) * STEP_OF_TEAMS)


def divide(offsets: NDArray[np.integer], threads: int) -> tuple[list[Chunk], bool]:
    """The chunks of a batch, and whether threads take them one each; if not, all work together on one after another.

    `offsets` is (B + 1,), where each text starts.
    """
    tokens = int(offsets[-1])
    if not tokens:
        return [], False
    if len(offsets) == 2:
        return [Chunk(0, 1)], threads == 1
    if threads > 1 and tokens < threads * TOKENS_WORTH_A_THREAD:
        return list(_cut(offsets, TOKENS_OF_A_TEAM)), False
    rounds = max(1, round(tokens / tokens_of_a_round(threads)))
    chunks = list(_cut(offsets, tokens / (threads * rounds)))
    if threads == 1 or _longest_share(offsets, chunks, threads) <= UNEVEN * tokens / threads:
        return chunks, True
    return list(_cut(offsets, TOKENS_OF_A_TEAM)), False


def _cut(offsets: NDArray[np.integer], tokens: float) -> Iterator[Chunk]:
    """Cut where the nearest multiples of `tokens` are; a text is never cut."""
    count = max(1, round(int(offsets[-1]) / tokens))
    marks = np.arange(1, count) * (int(offsets[-1]) / count)
    cuts = np.searchsorted(offsets, marks)
    cuts -= np.abs(offsets[cuts - 1] - marks) < np.abs(offsets[cuts] - marks)
    bounds = np.unique([0, *cuts, len(offsets) - 1])
    for first, last in itertools.pairwise(bounds):
        yield Chunk(int(first), int(last))


def _longest_share(offsets: NDArray[np.integer], chunks: list[Chunk], threads: int) -> int:
    """Tokens of the thread that has most, if each takes the next chunk as soon as it is free."""
    shares = [0] * threads
    for first, last in chunks:
        thread = shares.index(min(shares))
        shares[thread] += int(offsets[last] - offsets[first])
    return max(shares)
