"""Threads that work inside of compiled code, no more of them at once than there are processors.

They are Python threads: no library of threads takes part that could abort the process, or not survive a fork.
Compiled code runs without Python's lock. An idle thread sleeps.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

Work = Callable[[int], None]
Task = TypeVar("Task")

_CGROUPS = Path("/sys/fs/cgroup")


def available_processors() -> int:
    """How many processors this process may use, by its affinity and by its container's quota, rounded up."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _cgroup_folders() if (quota := _quota(folder)) is not None]
    return max(1, min([processors, *(math.ceil(quota) for quota in quotas)]))


def _cgroup_folders() -> Iterator[Path]:
    """The folders of control groups that limit this process: its own, and all above it (Linux)."""
    yield from (_CGROUPS, _CGROUPS / "cpu")
    try:
        lines = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "cpu", "cpu,cpuacct"):
            folder = _CGROUPS / controllers / path.strip("/")
            yield from (parent for parent in (folder, *folder.parents) if _CGROUPS in parent.parents)


def _quota(folder: Path) -> float | None:
    """How many processors' time a control group has, in either version's files; None if it has no limit."""
    try:
        quota, period = (folder / "cpu.max").read_text("utf-8").split()
    except (OSError, ValueError):
        try:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text("utf-8") for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return float(quota) / float(period) if float(quota) > 0 else None
    except ValueError:  # "max"
        return None


class ThreadPool:
    """Helping threads, and a count of all threads that are at work, so that callers share the processors."""

    def __init__(self) -> None:
        self._processors = available_processors()
        self._changed = threading.Condition()
        self._at_work = 0
        self._helpers = 0
        self._needed = 0
        self._jobs: SimpleQueue[tuple[Work, int, SimpleQueue[BaseException | None]]] = SimpleQueue()

    @contextmanager
    def claim(self, limit: int) -> Iterator[int]:
        """Wait until a thread may work, and give how many may, at most `limit`.

        All callers together have as many threads as there are processors, or as `limit` if that is more.
        """
        most = max(limit, self._processors)
        with self._changed:
            self._changed.wait_for(lambda: self._at_work < most)
            count = min(limit, most - self._at_work)
            self._at_work += count
        try:
            yield count
        finally:
            with self._changed:
                self._at_work -= count
                self._changed.notify_all()

    def run(self, work: Work, count: int) -> None:
        """Call work(0) in this thread and work(1) ... work(count - 1) in others, all at once; return after the last.

        An exception of one of them is raised.
        """
        self._employ(count - 1)
        done: SimpleQueue[BaseException | None] = SimpleQueue()
        try:
            for number in range(1, count):
                self._jobs.put((work, number, done))
            work(0)
        finally:
            errors = [done.get() for _ in range(1, count)]
            with self._changed:
                self._needed -= count - 1
        for error in errors:
            if error is not None:
                raise error

    def _employ(self, count: int) -> None:
        """See that all jobs can run at once: the threads of a team wait for each other."""
        with self._changed:
            self._needed += count
            while self._helpers < self._needed:
                threading.Thread(target=self._help, name=f"gte_np-{self._helpers + 1}", daemon=True).start()
                self._helpers += 1

    def _help(self) -> None:
        while True:
            work, number, done = self._jobs.get()
            try:
                work(number)
            except BaseException as error:  # the caller raises it
                done.put(error)
            else:
                done.put(None)
            del work, done  # an idle thread keeps no batch alive


def take_turns(tasks: Sequence[Task], work: Callable[[Task], None], count: int) -> None:
    """Do the work of all tasks in so many threads, each of which takes the next task when it is free."""
    waiting = list(reversed(tasks))

    def take(number: int) -> None:
        while waiting:
            try:
                task = waiting.pop()
            except IndexError:  # another thread was faster
                return
            work(task)

    pool().run(take, count)


@cache
def pool() -> ThreadPool:
    """The pool of this process."""
    return ThreadPool()


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=pool.cache_clear)
