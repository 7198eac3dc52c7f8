"""Calls that are computed together, whoever made them: no vector depends on its batch.

    caller    put ----------------- waits ------------> vectors
    caller         put ------------ waits ------------> vectors
    caller              put ------------------ waits ----------------> vectors
    leader    take: tokenize, encode, finish, hand over; take: ...

A leader takes the texts of the calls that have waited longest, up to a budget of tokens. The rest of a call that has
more waits again behind the others, so none waits for all texts of another. A call that is alone pays nothing: it is
computed in a thread of the pool, as it would be anyway, and in batches that are no smaller.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gte_np.batching import TOKEN_BUDGET
from gte_np.encoder_interface import FloatArray
from gte_np.head import Finish, Head
from gte_np.kernels.runtime.lines import JobLine, Line
from gte_np.token_batch import TokenBatch
from gte_np.tokenization.tokenizer import Tokenizer

TEXTS_AT_ONCE = 32  # that are tokenized together, and a call may have if it is to be merged rather than divided

Result = TypeVar("Result")


class Wish(NamedTuple):
    """What a call wants: a text before each of its own, the most tokens of one, and how vectors are finished."""

    prefix: str
    max_length: int
    finish: Finish


class Merged(NamedTuple):
    """What came of a call: vectors, (B, D'), and whether each text was cut, (B,).

    The vectors may be part of an array that others hold, too.
    """

    vectors: FloatArray
    was_cut: NDArray[np.bool_]


class Call:
    """Texts, what is wanted of them, and what came of them. `tell` is called once, by a leader, at the end."""

    def __init__(self, texts: Sequence[str], wish: Wish, batch_size: int, tell: Callable[[], object]) -> None:
        self.texts, self.wish = texts, wish
        self.is_dropped = self.is_over = False
        self._tell = tell
        self._texts_at_once = min(batch_size, TEXTS_AT_ONCE)
        self._error: BaseException | None = None
        self._parts: dict[int, Merged] = {}  # by the number of their first text
        self._taken = 0  # how many texts
        self._ready: tuple[TokenBatch, range] | None = None  # the next ones, as tokens, and which they are there

    @property
    def has_more(self) -> bool:
        """Whether there are texts that nobody has taken."""
        return self._taken < len(self.texts)

    @property
    def is_ready(self) -> bool:
        """Whether the next texts are tokens."""
        return self._ready is not None

    def next_texts(self) -> Sequence[str]:
        """The texts that are to be tokenized now."""
        return self.texts[self._taken : self._taken + self._texts_at_once]

    def set_ready(self, tokens: TokenBatch, numbers: range) -> None:
        """Keep the tokens of these texts, which are some of a batch."""
        self._ready = tokens, numbers

    def take(self, most: int, *, at_least_one: bool) -> Piece | None:
        """Take texts of at most so many tokens; None if the next one has more."""
        assert self._ready is not None
        tokens, numbers = self._ready
        last = int(np.searchsorted(tokens.offsets, tokens.offsets[numbers.start] + most, side="right")) - 1
        last = min(max(last, numbers.start + at_least_one), numbers.stop)
        if last == numbers.start:
            return None
        self._ready = (tokens, range(last, numbers.stop)) if last < numbers.stop else None
        piece = Piece(self, self._taken, tokens, range(numbers.start, last))
        self._taken += last - numbers.start
        return piece

    def add(self, vectors: FloatArray, piece: Piece) -> None:
        """Keep what came of a piece, which may be computed twice."""
        lengths = piece.batch.lengths[piece.numbers.start : piece.numbers.stop]
        counts = piece.batch.token_counts[piece.numbers.start : piece.numbers.stop]
        self._parts[piece.first] = Merged(vectors, counts > lengths)

    def end(self, error: BaseException | None = None) -> None:
        """Be over, and tell so, once."""
        if not self.is_over:
            self._error, self.is_over = error, True
            self._tell()

    def result(self) -> Merged:
        """What came of the call, which is over. Raises the error that ended it."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # its traceback knows this call
        if len(self._parts) == 1:
            return next(iter(self._parts.values()))
        vectors, was_cut = zip(*self._parts.values(), strict=True)
        return Merged(np.concatenate(vectors), np.concatenate(was_cut))


class Piece(NamedTuple):
    """Texts of a call that are computed now, from the number `first` on: some of the texts of a batch."""

    call: Call
    first: int
    batch: TokenBatch
    numbers: range

    @property
    def tokens(self) -> int:
        """How many tokens they have."""
        return int(self.batch.offsets[self.numbers.stop] - self.batch.offsets[self.numbers.start])


class Merging(Line[Call]):
    """The calls of a model that wait, and how they are computed."""

    def __init__(self, tokenizer: Tokenizer, head: Head, tokens_at_once: int, leaders: int) -> None:
        super().__init__(leaders)
        self._tokenizer, self._head = tokenizer, head
        self._budget = tokens_at_once

    def compute(self, texts: Sequence[str], wish: Wish, batch_size: int) -> Merged:
        """What comes of one text or more, among those of others. Errors are those of this call alone."""
        over = threading.Lock()  # nothing wakes a thread at less cost
        over.acquire()
        call = Call(texts, wish, batch_size, over.release)
        try:
            self.put(call)
            over.acquire()
        except BaseException:  # of a signal's handler, say
            self.drop(call)
            raise
        return call.result()

    async def compute_async(self, texts: Sequence[str], wish: Wish, batch_size: int) -> Merged:
        """`compute` without a thread of its own. If the task is cancelled, the call is dropped."""
        over, tell = _future()
        call = Call(texts, wish, batch_size, tell)
        try:
            self.put(call)
            await over
        except BaseException:
            self.drop(call)
            raise
        return call.result()

    def drop(self, item: Call) -> None:
        """Let a call wait no longer; what is computed of it is thrown away."""
        item.is_dropped = True
        super().drop(item)

    def serve(self, waiting: deque[Call]) -> None:
        """Compute what waits, step by step."""
        while waiting:
            hand: list[Call] = []
            try:
                self._step(waiting, hand)
            except BaseException as error:  # there is no memory, say
                for call in hand:
                    call.end(error)

    def _step(self, waiting: deque[Call], hand: list[Call]) -> None:
        """Compute the texts that have waited longest. All calls that are not in the line meanwhile are in `hand`."""
        pieces = self._take(waiting, hand)
        _apart_if_it_fails(self._compute, pieces, lambda piece: piece.call)
        for call in {piece.call: None for piece in pieces}:
            if call.has_more and not call.is_over and not call.is_dropped:
                waiting.append(call)
            else:
                call.end()

    def _take(self, waiting: deque[Call], hand: list[Call]) -> list[Piece]:
        """Texts from the front of the line, up to the budget of tokens; without others, up to a batch."""
        pieces: list[Piece] = []
        left = self._budget
        while left > 0 and (calls := self._first(waiting, hand)):
            is_alone = len(calls) == 1 and not pieces and not waiting
            for number, call in enumerate(calls):
                piece = call.take(TOKEN_BUDGET if is_alone else left, at_least_one=not pieces)
                if piece is None:  # these are the next ones
                    _put_back(calls[number:], waiting, hand)
                    return pieces
                pieces.append(piece)
                left -= piece.tokens
        return pieces

    def _first(self, waiting: deque[Call], hand: list[Call]) -> list[Call]:
        """The first calls of the line, as many as are tokenized together, when they are."""
        calls: list[Call] = []
        texts = 0
        with suppress(IndexError):
            while texts < TEXTS_AT_ONCE:
                call = waiting.popleft()
                hand.append(call)
                if not call.is_dropped and not call.is_over:
                    calls.append(call)
                    texts += len(call.next_texts())
        unread = [call for call in calls if not call.is_ready]
        for wish in {(call.wish.prefix, call.wish.max_length): None for call in unread}:
            alike = [call for call in unread if (call.wish.prefix, call.wish.max_length) == wish]
            _apart_if_it_fails(self._tokenize, alike, lambda call: call)
        return [call for call in calls if not call.is_over]

    def _tokenize(self, calls: list[Call]) -> None:
        """Make the next texts of calls, whose prefixes and limits are the same, ready."""
        wish = calls[0].wish
        texts = [wish.prefix + text for call in calls for text in call.next_texts()]
        tokens = self._tokenizer.tokenize(texts, wish.max_length, count_all=False)
        first = 0
        for call in calls:
            last = first + len(call.next_texts())
            call.set_ready(tokens, range(first, last))
            first = last

    def _compute(self, pieces: list[Piece]) -> None:
        """Compute pieces together."""
        pooled = self._head.pool(_joined(pieces))  # (B, D)
        bounds = np.cumsum([len(piece.numbers) for piece in pieces])[:-1]
        wishes = [piece.call.wish.finish for piece in pieces]
        if len(set(wishes)) == 1:
            parts = np.split(self._head.finish(pooled, wishes[0]), bounds)
        else:
            parts = [self._head.finish(*part) for part in zip(np.split(pooled, bounds), wishes, strict=True)]
        for piece, vectors in zip(pieces, parts, strict=True):
            piece.call.add(vectors, piece)


def _joined(pieces: Sequence[Piece]) -> TokenBatch:
    """One batch of all pieces."""
    batch = pieces[0].batch
    if len(pieces) == 1 and len(pieces[0].numbers) == len(batch):
        return batch
    return TokenBatch.from_ids([piece.batch[number] for piece in pieces for number in piece.numbers])


def _put_back(calls: list[Call], waiting: deque[Call], hand: list[Call]) -> None:
    """Put calls back to the front of the line, in their order."""
    for call in reversed(calls):
        hand.remove(call)
        waiting.appendleft(call)


def _apart_if_it_fails(
    function: Callable[[list[Any]], object], items: list[Any], call_of: Callable[[Any], Call]
) -> None:
    """Do something for all items together; if that fails, for each by itself, and end the calls for which it does."""
    try:
        if items:
            function(items)
    except BaseException as error:
        if len(items) == 1:
            call_of(items[0]).end(error)
            return
        for item in items:
            _apart_if_it_fails(function, [item], call_of)


async def do_apart(line: JobLine, function: Callable[[], Result]) -> Result:
    """The function's result, from the one thread that does the jobs of a line; raise what it raises.

    If the task is cancelled before, it is not called.
    """
    over, tell = _future()
    results: list[Result] = []
    errors: list[BaseException] = []

    def do() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)
        tell()

    try:
        line.put(do)
        await over
    except BaseException:
        line.drop(do)
        raise
    while errors:
        raise errors.pop()
    return results[0]


def _future() -> tuple[Any, Callable[[], object]]:
    """A future of the loop that runs here, and what sets it from another thread."""
    import asyncio  # slow to import

    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def set_it() -> None:
        if not future.done():
            future.set_result(None)

    def tell() -> None:
        with suppress(RuntimeError):  # the loop was closed, and nobody waits
            loop.call_soon_threadsafe(set_it)

    return future, tell
