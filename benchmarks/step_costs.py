"""What a team of threads costs beside its arithmetic, measured: steps, tasks, threads that wake, Python.

The steps are the kernels' own `parallel_for` with tasks that do nothing. Others who use the processors only slow a
measurement down, so the fastest of many counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from benchmarks.peaks import compiled
from gte_np.formats.float_formats import FLOAT32
from gte_np.kernels.language.memory import int64s_at
from gte_np.kernels.language.parallel import Team, _fetch_add, _pause, _read, parallel_for
from gte_np.kernels.language.team_state import LINE, team_state_size
from gte_np.kernels.language.types import Pointer, kernel, panel_pointer
from gte_np.kernels.runtime.threads import pool
from gte_np.kernels.runtime.workspace import _yield_function
from gte_np.kernels.targets.host import host_target

REPEATS = 40
STEPS = 100
TASKS = 1000
LARGE_TEAM = 64
HANDOVERS = 200
AWAKE = 16
LINES = 2**14


class Costs(NamedTuple):
    """Seconds on this machine."""

    handover: float  # of increasing a count that another core has just increased
    task: float  # of taking a task of one's own
    look: float  # of seeing that a share has no task left: the instructions
    fetch: float  # and what it takes longer when another core has written that
    barrier: float  # of the end of a step, for two threads
    wake: float  # of another thread of a team, in Python
    line: float  # of a cache line of the team's state that is set to zero


class Job(NamedTuple):
    """Packed weights, which tell the target."""

    weights: Pointer


@kernel
def _nothing(job: Job, task: int) -> None:
    """A task."""


@kernel
def _meet(place: Pointer, threads: int, weights: Pointer) -> None:
    """Return when so many threads are here."""
    _fetch_add(place, 0, 1)
    while _read(place, 0) < threads:
        _pause(weights)


def steps_of_nothing(weights: Pointer, state: int, plan: int, rank: int, yield_function: int) -> None:
    """One thread's part of a team's steps. `plan` is where it is said: threads here, size of the team, tasks, met."""
    told = int64s_at(plan)
    _meet(int64s_at(plan + 8 * LINE), told[0], weights)
    for step in range(STEPS):
        parallel_for(Team(rank, told[1], int64s_at(state), yield_function), step, told[2], _nothing, Job(weights))


def hand_over(weights: Pointer, plan: int, rank: int) -> None:
    """Add to a count in turn with another thread."""
    place = int64s_at(plan + 8 * LINE)
    _meet(place, 2, weights)
    for turn in range(HANDOVERS):
        while _read(place, 0) < 2 + 2 * turn + rank:
            pass
        _fetch_add(place, 0, 1)


def measure() -> Costs:
    """All of them."""
    task, barrier = _step(1, 1, TASKS) / TASKS, _step(2, 2, 2)
    look = (_step(1, LARGE_TEAM, 1) - task) / LARGE_TEAM
    return Costs(
        handover=_handover(),
        task=task,
        look=look,
        fetch=max(0.0, (_step(2, LARGE_TEAM, 2) - barrier) / (LARGE_TEAM - 2) - look),
        barrier=barrier,
        wake=(_fastest(lambda: _wake(AWAKE)) - _fastest(lambda: _wake(2))) / (AWAKE - 2),
        line=_fastest(_zero) / LINES,
    )


def _step(threads: int, size: int, tasks: int) -> float:
    """Seconds of a step of a team of a size, so many of whose threads are there: those whose shares have tasks."""
    run = _compiled_steps()
    state, plan = np.zeros(team_state_size(STEPS, size), np.int64), np.zeros(2 * LINE, np.int64)

    def once() -> float:
        state[:], plan[:] = 0, 0
        plan[:3] = threads, size, tasks
        addresses = plan.ctypes.data, state.ctypes.data, plan.ctypes.data
        return _together(
            threads, lambda number: run(*addresses, (number + 1) * size // threads - 1, _yield_function())
        )

    return _fastest(once) / STEPS


@cache
def _compiled_steps() -> Callable[..., Any]:
    target = host_target()
    return compiled(steps_of_nothing, panel_pointer(FLOAT32, target), *[types.int64] * 4, target=target)


def _handover() -> float:
    """Seconds from one thread's addition to the other's."""
    target = host_target()
    run = compiled(hand_over, panel_pointer(FLOAT32, target), types.int64, types.int64, target=target)
    plan = np.zeros(2 * LINE, np.int64)

    def once() -> float:
        plan[:] = 0
        return _together(2, lambda number: run(plan.ctypes.data, plan.ctypes.data, number))

    return _fastest(once) / (2 * HANDOVERS)


def _together(threads: int, work: Callable[[int], Any]) -> float:
    """Seconds of threads that meet first: of the one that came last."""
    times = [0.0] * threads

    def timed(number: int) -> None:
        start = time.perf_counter()
        work(number)
        times[number] = time.perf_counter() - start

    pool().call(lambda: pool().run(timed, threads))
    return min(times)


def _wake(threads: int) -> float:
    """Seconds until so many threads have begun and ended."""

    def once() -> float:
        start = time.perf_counter()
        pool().run(lambda number: None, threads)
        return time.perf_counter() - start

    return pool().call(once)


def _zero() -> float:
    """Seconds of setting LINES cache lines to zero."""
    lines = np.ones((LINES, LINE), np.int64)
    start = time.perf_counter()
    lines[:] = 0
    return time.perf_counter() - start


def _fastest(seconds: Callable[[], float]) -> float:
    return min(seconds() for _ in range(REPEATS))
