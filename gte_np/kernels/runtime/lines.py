"""Lines of what waits for threads of the pool, each of which does what waits, whoever asked for it.

A caller adds an item, and sees to it that a thread of the pool, a *leader*, is there. A leader serves until nothing
waits. Callers hold no lock and change nothing but the line, in single steps of the interpreter: whatever interrupts
one, at whatever moment, the line works on for the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from gte_np.kernels.runtime.threads import ThreadPool, pool

Item = TypeVar("Item")


class Line(ABC, Generic[Item]):
    """Items that wait, and at most so many leaders at once."""

    def __init__(self, leaders: int = 1) -> None:
        self._leaders = leaders
        self._state = _State[Item](pool(), leaders)

    @abstractmethod
    def serve(self, waiting: deque[Item]) -> None:
        """Take items from the line and do them, until none is left. It must not raise."""

    def put(self, item: Item) -> None:
        """Let an item wait to be served. Raises BackendError if the system starts no thread for it."""
        state = self._current()
        state.waiting.append(item)
        # A leader looks for items once more after it has given its place back, so it will see this one.
        if state.places:
            state.pool.start(partial(self._lead, state))

    def drop(self, item: Item) -> None:
        """Let an item wait no longer, if nobody has taken it yet."""
        with suppress(ValueError):
            self._state.waiting.remove(item)

    def _current(self) -> _State[Item]:
        """The state of this process: in a forked one nobody serves what waited in its parent."""
        if self._state.pool is not pool():
            self._state = _State(pool(), self._leaders)
        return self._state

    def _lead(self, state: _State[Item]) -> None:
        while state.waiting:
            try:
                place = state.places.pop()
            except IndexError:  # others lead
                return
            try:
                self.serve(state.waiting)
            finally:
                state.places.append(place)


class _State(Generic[Item]):
    """What waits for the threads of a pool, and a place for each leader that may come."""

    def __init__(self, own_pool: ThreadPool, leaders: int) -> None:
        self.pool = own_pool
        self.waiting: deque[Item] = deque()
        self.places = list(range(leaders))


class JobLine(Line[Callable[[], object]]):
    """Jobs, one after the other, none of which raises."""

    def serve(self, waiting: deque[Callable[[], object]]) -> None:
        """Do the jobs."""
        with suppress(IndexError):
            while True:
                waiting.popleft()()
