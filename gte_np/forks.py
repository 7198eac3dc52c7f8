"""Work that a fork must wait for.

A forked process has one thread, and a copy of all memory: a lock that another thread held stays locked for ever.
Python and the C library take care of their own locks. Numba, LLVM, the tokenizers library and modules amidst
their import do not, so what uses them says when it does, and `os.fork` waits until nobody does.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gte_np.errors import BackendError

LONGEST_WAIT = 60.0  # seconds; a fork that cannot wait is refused what it would wait for


class ForkGuard:
    """Work of one kind, which forks wait for. `doing` says what is done, for the error of a process forked amidst it.

    A fork amidst it is still possible: by C code that does not ask Python, after `LONGEST_WAIT`, or if an interrupt
    (Ctrl-C) ends the waiting.
    """

    def __init__(self, doing: str) -> None:
        self.was_used = False  # in this process, or before it was forked
        self._doing = doing
        self._changed = threading.Condition()
        self._depths: dict[int, int] = {}  # by thread: one may begin such work within such work
        self._forks_waiting = 0
        self._forking: int | None = None  # a thread that has the lock of _changed until it has forked
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
        me = threading.get_ident()
        depth = self._depths.get(me, 0)
        self.was_used = True
        try:
            with self._changed:
                self._changed.wait_for(lambda: depth or not self._forks_waiting)
                self._depths[me] = depth + 1
            yield
        finally:
            with self._changed:
                self._depths[me] = depth
                if not depth:
                    del self._depths[me]
                    self._changed.notify_all()

    def _others(self) -> bool:
        return bool(self._depths.keys() - {threading.get_ident()})

    def _wait(self) -> None:
        """Before a fork: wait for other threads, and keep them from beginning anything."""
        self._changed.acquire()
        self._forks_waiting += 1
        try:
            self._changed.wait_for(lambda: not self._others(), LONGEST_WAIT)
        finally:
            self._forks_waiting -= 1
            self._forking = threading.get_ident()

    def _go_on(self) -> None:
        if self._forking == threading.get_ident():
            self._forking = None
            self._changed.notify_all()
            self._changed.release()

    def _begin_anew(self) -> None:
        """In a forked process, which has none of its parent's other threads."""
        me = threading.get_ident()
        self._is_broken = self._is_broken or self._others()
        self._depths = {me: self._depths[me]} if me in self._depths else {}
        self._changed = threading.Condition()
        self._forks_waiting, self._forking = 0, None
