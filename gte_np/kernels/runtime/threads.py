"""Threads that work inside of compiled code, no more of them at once than there are processors.

They are Python threads: no library of threads takes part that could abort the process, or not survive a fork.
Compiled code runs without Python's lock. An idle thread sleeps, and ends after some seconds if there are more of them
than processors.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from gte_np.errors import BackendError

Work = Callable[[int], None]
Task = TypeVar("Task")
Result = TypeVar("Result")
Answers = SimpleQueue[BaseException | None]
Jobs = SimpleQueue[tuple[Callable[[], object], Answers]]  # of one thread

IDLE_SECONDS = 10.0  # after which a thread ends that is not needed
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
        lines = Path("/proc/self/cgroup").read_text("utf-8", "surrogateescape").split("\n")
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if not controllers or "cpu" in controllers.split(","):
            for mounted in {controllers, "cpu"} if controllers else {""}:
                folder = _CGROUPS / mounted / path.strip("/")
                yield from (parent for parent in (folder, *folder.parents) if _CGROUPS in parent.parents)


def _quota(folder: Path) -> float | None:
    """How many processors' time a control group has, in either version's files; None if it has no limit."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text("utf-8").split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text("utf-8") for name in ("quota", "period"))
        processors = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return None
    return processors if 0 < processors < math.inf else None


class ThreadPool:
    """Threads for whole calls and for their parts, and a count of those that are at work.

    A call runs in one of these threads while the caller waits: an interrupt (Ctrl-C), which Python raises in its main
    thread wherever that may be, ends the waiting and cannot part the threads of a team.
    """

    def __init__(self) -> None:
        self._processors = available_processors()
        self._changed = threading.Condition()
        self._at_work = 0
        self._waiting: deque[object] = deque()  # for a claim, in their order
        self._idle: list[Jobs] = []  # the last one is taken first, so that the first ones' time can run out

    def call(self, function: Callable[[], Result]) -> Result:
        """The function's result, from a thread of this pool; raise what it raises."""
        results: list[Result] = []
        _raise(self._start(lambda: results.append(function())).get())
        return results[0]

    @contextmanager
    def claim(self, limit: int) -> Iterator[int]:
        """Wait until a thread may work, and give how many may, at most `limit`. Who came first is first.

        All callers together have as many threads as there are processors, or as `limit` if that is more.
        """
        most = max(limit, self._processors)
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and self._at_work < most)
                count = min(limit, most - self._at_work)
                self._at_work += count
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield count
        finally:
            with self._changed:
                self._at_work -= count
                self._changed.notify_all()

    def run(self, work: Work, count: int) -> None:
        """Call work(0) in this thread and work(1) ... work(count - 1) in others, all at once; return after the last.

        An exception of one of them is raised. If not all threads can be had, none begins, and BackendError is raised.
        """
        begin: SimpleQueue[bool] = SimpleQueue()

        def help_out(number: int) -> None:
            if begin.get():
                work(number)

        answers: list[Answers] = []
        go = False
        try:
            for number in range(1, count):
                answers.append(self._start(partial(help_out, number)))  # noqa: PERF401  # some may have been started
            go = True
        finally:
            for _ in answers:
                begin.put(go)
        try:
            work(0)
        finally:
            errors = [answer.get() for answer in answers]
        for error in errors:
            _raise(error)

    def _start(self, job: Callable[[], object]) -> Answers:
        """Begin a job in a thread that has nothing else to do; how it ends will be in the answers."""
        answers: Answers = SimpleQueue()
        try:
            jobs = self._idle.pop()
        except IndexError:
            jobs = SimpleQueue()
            self._begin(jobs)
        jobs.put((job, answers))
        return answers

    def _begin(self, jobs: Jobs) -> None:
        """Begin a thread that does these jobs."""
        try:
            threading.Thread(target=self._work, args=[jobs], name="gte_np", daemon=True).start()
        except RuntimeError as error:
            raise BackendError(
                f"expected the system to start another thread, got: {error}. Give the process more memory or "
                "threads, or the model threads=1."
            ) from error

    def _work(self, jobs: Jobs) -> None:
        """Do the jobs that come, until none comes for too long."""
        job, answers = jobs.get()
        while True:
            self._idle_after(job, answers, jobs)
            del job, answers  # an idle thread keeps no batch alive
            try:
                job, answers = jobs.get(timeout=self._patience())
            except Empty:
                if self._leave(jobs):
                    return
                job, answers = jobs.get()

    def _patience(self) -> float | None:
        """How long the thread that became idle last may be so; None is for ever."""
        return None if len(self._idle) <= self._processors else IDLE_SECONDS

    def _leave(self, jobs: Jobs) -> bool:
        """Be idle no longer; False if a job is about to come."""
        try:
            self._idle.remove(jobs)
        except ValueError:
            return False
        return True

    def _idle_after(self, job: Callable[[], object], answers: Answers, jobs: Jobs) -> None:
        """Do a job. Who waits for its answer finds this thread idle."""
        error = None
        try:
            job()
        except BaseException as raised:  # whoever waits raises it
            error = raised
        self._idle.append(jobs)
        answers.put(error)


def _raise(error: BaseException | None) -> None:
    if error is not None:
        raise error


def take_turns(tasks: Sequence[Task], work: Callable[[Task], object], count: int) -> None:
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


_pool = ThreadPool()


def pool() -> ThreadPool:
    """The pool of this process."""
    return _pool


def _begin_anew() -> None:
    """A forked process has none of its parent's threads."""
    global _pool
    _pool = ThreadPool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
