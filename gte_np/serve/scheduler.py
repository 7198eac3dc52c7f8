"""Which texts are computed together: those that wait, whoever asked, up to a budget of tokens.

A request is a list of texts, as token ids. Each batch takes one text of each request in turn, the oldest request
first, until the budget is full. So a long request is divided, takes what others leave of each batch, and does not
hold up a short one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import ceil
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from gte_np.serve.problems import OVERLOADED, RequestError
from gte_np.token_batch import TokenArray, TokenBatch

LONGEST_RETRY = 60  # seconds that a refused client is asked to wait, at most

Compute = Callable[[TokenBatch, Any], Sequence[Any]]


class Watcher(Protocol):
    """Who is told of the queue and of each batch."""

    def queue(self, requests: int) -> None:
        """So many requests wait now, some of whose texts may be in work."""

    def batch(self, texts: int, tokens: int) -> None:
        """A batch of so many texts and tokens begins."""


class Answer(NamedTuple):
    """The results of a request's texts, and how many seconds it waited and was computed."""

    results: list[Any]
    waited: float
    computed: float


class _Ticket:
    """A request that waits: its texts, how many of them were taken into batches, and what came of those."""

    def __init__(self, texts: Sequence[TokenArray], task: Any, answer: asyncio.Future[Answer]) -> None:
        self.texts, self.task, self.answer = texts, task, answer
        self.taken = 0
        self.results: list[Any] = [None] * len(texts)
        self.missing = len(texts)
        self.arrived = self.began = perf_counter()

    @property
    def tokens_left(self) -> int:
        return sum(map(len, self.texts[self.taken :]))

    def take(self) -> None:
        """Note that the next text is in a batch."""
        if not self.taken:
            self.began = perf_counter()
        self.taken += 1

    def put(self, place: int, result: Any) -> None:
        """Keep a result; the last one answers the request."""
        self.results[place] = result
        self.missing -= 1
        if not self.missing and not self.answer.done():
            waited, computed = self.began - self.arrived, perf_counter() - self.began
            self.answer.set_result(Answer(self.results, waited, computed))


_Piece = tuple[_Ticket, int]  # a text of a request, by its place there


class Scheduler:
    """The bounded queue of one model, and the thread that computes.

    `compute` takes a batch and a task, which says what is computed, and gives a result for each text. Only requests
    of equal tasks share a batch. All methods belong to one event loop.
    """

    def __init__(self, compute: Compute, max_batch_tokens: int, max_requests: int, watcher: Watcher) -> None:
        self._compute, self._budget, self._most, self._watcher = compute, max_batch_tokens, max_requests, watcher
        self._thread = ThreadPoolExecutor(1, "gte_np-serve")
        self._waiting: list[_Ticket] = []
        self._admitted = 0
        self._is_busy = False
        self._speed = 1000.0  # tokens a second, as lately seen
        self.has_failed = False  # whether the last batch did

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Be one of the requests that are allowed. Raises RequestError if there are too many."""
        if self._admitted >= self._most:
            seconds = sum(ticket.tokens_left for ticket in self._waiting) / self._speed
            retry = {"Retry-After": str(min(max(ceil(seconds), 1), LONGEST_RETRY))}
            raise RequestError(OVERLOADED, "Model is overloaded", code="overloaded", headers=retry)
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def submit(self, texts: Sequence[TokenArray], task: Any) -> Answer:
        """Wait for the results of at least one text. What raises in `compute` is raised here.

        A caller that is cancelled is forgotten: what has not begun is not computed.
        """
        loop = asyncio.get_running_loop()
        ticket = _Ticket(texts, task, loop.create_future())
        self._waiting.append(ticket)
        self._watcher.queue(len(self._waiting))
        if not self._is_busy:
            self._is_busy = True
            loop.call_soon(self._begin)  # after the requests that are ready too
        try:
            return await ticket.answer
        finally:
            self._forget(ticket)

    def close(self) -> None:
        """Let the thread end after what it does."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _forget(self, ticket: _Ticket) -> None:
        if ticket in self._waiting:
            self._waiting.remove(ticket)
            self._watcher.queue(len(self._waiting))

    def _begin(self) -> None:
        """Give the thread a batch, if anything waits."""
        pieces = self._next_pieces()
        self._is_busy = bool(pieces)
        if not pieces:
            return
        texts = [ticket.texts[place] for ticket, place in pieces]
        self._watcher.queue(len(self._waiting))
        self._watcher.batch(len(texts), sum(map(len, texts)))
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._run, texts, pieces[0][0].task)
        work.add_done_callback(lambda done: self._end(pieces, done))

    def _next_pieces(self) -> list[_Piece]:
        """The texts of the next batch. Requests that have all their texts in work leave the queue."""
        pieces: list[_Piece] = []
        tokens = 0
        turn = [ticket for ticket in self._waiting if ticket.task == self._waiting[0].task]
        for ticket in _in_turn(turn):
            tokens += len(ticket.texts[ticket.taken])
            if pieces and tokens > self._budget:
                break
            pieces.append((ticket, ticket.taken))
            ticket.take()
        self._waiting = [ticket for ticket in self._waiting if ticket.taken < len(ticket.texts)]
        return pieces

    def _run(self, texts: list[TokenArray], task: Any) -> Sequence[Any]:
        """In the thread: compute, and see how fast that was."""
        begin = perf_counter()
        batch = TokenBatch.from_ids(texts)
        results = self._compute(batch, task)
        speed = len(batch.input_ids) / max(perf_counter() - begin, 1e-6)
        self._speed += (speed - self._speed) / 8
        return results

    def _end(self, pieces: list[_Piece], done: asyncio.Future[Sequence[Any]]) -> None:
        """Begin the next batch, then hand out what came of this one."""
        self._begin()
        if done.cancelled():  # the server was closed
            for ticket, _ in pieces:
                ticket.answer.cancel()
            return
        error = done.exception()
        self.has_failed = error is not None
        if error is None:
            for (ticket, place), result in zip(pieces, done.result(), strict=True):
                ticket.put(place, result)
            return
        for ticket, _ in pieces:
            if not ticket.answer.done():
                ticket.answer.set_exception(error)


def _in_turn(tickets: list[_Ticket]) -> Iterator[_Ticket]:
    """One ticket after the other, again and again, while they have texts."""
    while tickets:
        yield from tickets
        tickets = [ticket for ticket in tickets if ticket.taken < len(ticket.texts)]
