"""Many texts through a model, whatever the task: equal texts once, in windows, in batches, back in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from queue import Empty
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gte_np.batching import make_batches
from gte_np.kernels.runtime.threads import pool
from gte_np.token_batch import TokenBatch

# A window: texts whose token ids are in memory at once. Batches of like lengths are made among them.
TEXTS_AT_ONCE = 4096
_CHARACTERS_AT_ONCE = 1 << 24  # a limit on the texts themselves, of which only the beginnings are tokenized

Result = TypeVar("Result")
Item = TypeVar("Item")
Made = TypeVar("Made")


class Processed(NamedTuple, Generic[Result]):
    """The results of texts, in their order, whether each was cut, (B,), and how many tokens were computed in all."""

    results: list[Result]
    was_cut: NDArray[np.bool_]
    tokens: int


class Steps(NamedTuple, Generic[Result]):
    """What a task does: texts to tokens, a batch to a result for each of its texts, and telling how many are done."""

    tokenize: Callable[[list[str]], TokenBatch]
    compute: Callable[[TokenBatch], Iterable[Result]]
    advance: Callable[[int], object]


def process(texts: Sequence[str], steps: Steps[Result], batch_size: int) -> Processed[Result]:
    """Compute what a task makes of each text, in batches of at most so many texts; of equal texts, once."""
    different, places = different_texts(texts)
    parts = list(process_windows(windows_of(different), steps, batch_size))
    steps.advance(len(texts) - len(different))
    results = [result for part in parts for result in part.results]
    was_cut = np.concatenate([np.zeros(0, np.bool_), *(part.was_cut for part in parts)])
    return Processed([results[place] for place in places], was_cut[places], sum(part.tokens for part in parts))


def process_windows(
    windows: Iterable[Sequence[str]], steps: Steps[Result], batch_size: int
) -> Iterator[Processed[Result]]:
    """`process` for one window after the other; each is tokenized while the one before it is computed.

    The windows are taken in the thread of the caller, one more than what has been given back.
    """

    def tokenize(texts: Sequence[str]) -> tuple[NDArray[np.intp], TokenBatch]:
        different, places = different_texts(texts)
        return places, steps.tokenize(different)

    for places, tokens in _made_ahead(tokenize, windows):
        results: dict[int, Result] = {}
        for indexes in make_batches(tokens.lengths, batch_size):
            batch = tokens.take(indexes)
            results |= zip(indexes.tolist(), steps.compute(batch), strict=True)
            steps.advance(len(batch))
        was_cut = tokens.token_counts > tokens.lengths
        yield Processed([results[place] for place in places.tolist()], was_cut[places], int(tokens.offsets[-1]))


def windows_of(texts: Iterable[str]) -> Iterator[list[str]]:
    """Divide texts, which may be endless, into windows."""
    window: list[str] = []
    characters = 0
    for text in texts:
        window.append(text)
        characters += len(text)
        if len(window) == TEXTS_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            yield window
            window, characters = [], 0
    if window:
        yield window


def different_texts(texts: Sequence[str]) -> tuple[list[str], NDArray[np.intp]]:
    """The different ones among texts, and the place of each text among these, (B,)."""
    numbers: dict[str, int] = {}
    places = [numbers.setdefault(text, len(numbers)) for text in texts]
    return list(numbers), np.array(places, np.intp)


def _made_ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """Map items, each of which is made on a thread of the pool while the one before it is used.

    When this generator ends, is closed or is dropped, nothing is being made. A single item needs no thread.
    """
    iterator = iter(items)
    first = list(islice(iterator, 2))
    if len(first) < 2:
        yield from map(make, first)
        return
    making = _Making(make, first[0])
    try:
        for item in chain(first[1:], iterator):
            made = making.result()
            making = _Making(make, item)
            yield made
        yield making.result()
    finally:
        making.wait()


class _Making(Generic[Made]):
    """Something that a thread of the pool makes."""

    def __init__(self, make: Callable[[Item], Made], item: Item) -> None:
        self._made: list[Made] = []
        self._error: BaseException | None = None
        self._is_over = False
        self._answers = pool().start(lambda: self._make(make, item))

    def _make(self, make: Callable[[Item], Made], item: Item) -> None:
        try:
            self._made.append(make(item))
        except BaseException as error:  # whoever waits raises it
            self._error = error
        self._is_over = True

    def wait(self) -> None:
        """Return when it is made. An interrupt may take the answer with it: so that is not asked for alone."""
        while not self._is_over:
            with suppress(Empty):
                self._answers.get(timeout=0.1)

    def result(self) -> Made:
        """It, once it is made; raises what came instead."""
        self.wait()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # its traceback knows this object
        return self._made[0]
