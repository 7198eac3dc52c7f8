"""Work that a fork must wait for.

A forked process has one thread, and a copy of all memory: a lock that another thread held stays locked for ever.
Python and the C library take care of their own locks. Numba, LLVM, the tokenizers library and modules amidst
their import do not, so what uses them says when it does, and `os.fork` waits until nobody does.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import ref

from gte_np.errors import BackendError

LONGEST_WAIT = 60.0  # seconds; a fork that cannot wait is refused what it would wait for
_PATIENCE = 0.001  # seconds between two looks


class _Work:
    """Work that a thread does. It is over at the latest when nobody knows it any more."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.is_over = False


class ForkGuard:
    """Work of one kind, which forks wait for. `doing` says what is done, for the error of a process forked amidst it.

    A fork amidst it is still possible: by C code that does not ask Python, after `LONGEST_WAIT`, or if an interrupt
    (Ctrl-C) ends the waiting. An interrupt may come at any moment, also between two steps of what is here: so what
    is being done is known by weak references, and the lock is taken by C code alone, which no interrupt parts.
    """

    def __init__(self, doing: str) -> None:
        self.was_used = False  # in this process, or before it was forked
        self._doing = doing
        self._lock = threading.RLock()
        self._works: list[ref[_Work]] = []
        self._forking: set[int] = set()  # threads
        self._is_broken = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._wait, after_in_parent=self._go_on, after_in_child=self._begin_anew)

    @contextmanager
    def no_fork(self) -> Iterator[None]:
        """Do such work. Raises BackendError if this process was forked while another thread did."""
        if self._is_broken:
            raise BackendError(
                f"this process was forked while another thread was {self._doing}, and would wait for it for ever: "
                "load the model before forking, or start processes by 'spawn'."
            )
        self.was_used = True
        work = _Work()
        _wait_until(lambda: self._begins(work))
        try:
            yield
        finally:
            work.is_over = True

    def _begins(self, work: _Work) -> bool:
        """Let work begin, unless a fork of another thread waits, and this thread is not within such work already."""
        with self._lock:
            works = self._current()
            if self._forking - {work.thread} and work.thread not in {other.thread for other in works}:
                return False
            self._works = [*map(ref, works), ref(work)]
            return True

    def _current(self) -> list[_Work]:
        """What is being done."""
        works = [known() for known in self._works]
        return [work for work in works if work is not None and not work.is_over]

    def _others(self) -> bool:
        with self._lock:
            return any(work.thread != threading.get_ident() for work in self._current())

    def _wait(self) -> None:
        """Before a fork: keep other threads from beginning anything, and wait for what they do."""
        self._forking.add(threading.get_ident())
        _wait_until(lambda: not self._others(), LONGEST_WAIT)

    def _go_on(self) -> None:
        self._forking.discard(threading.get_ident())

    def _begin_anew(self) -> None:
        """In a forked process, which has none of its parent's other threads."""
        self._lock = threading.RLock()
        self._is_broken = self._is_broken or self._others()
        self._works = [ref(work) for work in self._current() if work.thread == threading.get_ident()]
        self._forking = set()


def _wait_until(condition: Callable[[], bool], seconds: float = float("inf")) -> None:
    """Return when the condition is true, or so many seconds are over."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(_PATIENCE)
