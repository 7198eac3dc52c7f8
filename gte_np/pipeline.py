"""Many texts through a model, whatever the task: equal texts once, in windows, in batches, back in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from gte_np.batching import make_batches
from gte_np.token_batch import TokenBatch

# Texts whose token ids are in memory at once; batches of like lengths are made among them.
TEXTS_AT_ONCE = 4096

Result = TypeVar("Result")


class Processed(NamedTuple, Generic[Result]):
    """The results of the texts, in their order, and how many of the texts were cut."""

    results: list[Result]
    cut: int


class Steps(NamedTuple, Generic[Result]):
    """What a task does: texts to tokens, a batch to a result for each of its texts, and telling how many are done."""

    tokenize: Callable[[list[str]], TokenBatch]
    compute: Callable[[TokenBatch], Iterable[Result]]
    advance: Callable[[int], object]


def process(texts: Sequence[str], steps: Steps[Result], batch_size: int) -> Processed[Result]:
    """Compute what a task makes of each text, in batches of at most so many texts; of equal texts, once."""
    numbers: dict[str, int] = {}
    places = [numbers.setdefault(text, len(numbers)) for text in texts]
    counts = np.bincount(places, minlength=len(numbers))
    different = list(numbers)
    results: dict[int, Result] = {}
    cut = 0
    for start in range(0, len(different), TEXTS_AT_ONCE):
        tokens = steps.tokenize(different[start : start + TEXTS_AT_ONCE])
        cut += int(counts[start : start + len(tokens)][tokens.token_counts > tokens.lengths].sum())
        for indexes in make_batches(tokens.lengths, batch_size):
            batch = TokenBatch.from_ids([tokens[index] for index in indexes])
            results |= zip((start + indexes).tolist(), steps.compute(batch), strict=True)
            steps.advance(int(counts[start + indexes].sum()))
    return Processed([results[place] for place in places], cut)
