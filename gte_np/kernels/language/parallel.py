"""Threads that work on one batch together: `parallel_for` divides a step into tasks and returns when all are done.

Every thread has a share of neighbouring tasks, which it takes in their order; when it has none left it takes those of
the others. What nobody has begun waits for nobody: a thread that begins late, or is held up, finds its tasks done. So
the barrier at the end of a step is for tasks, not for threads.

The state of a team is laid out in `team_state`.
The threads are Python's, see `gte_np.kernels.runtime.threads`; here is what they do inside of compiled code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gte_np.kernels.language.emitter import Emitter
from gte_np.kernels.language.team_state import LINE
from gte_np.kernels.language.types import INT32, Pointer, kernel

# How often a waiting thread looks before it yields its processor: about 50 microseconds.
_SPINS = 1000


class Team(NamedTuple):
    """One thread's view of its team: its number, how many there are, their state, and the system's yield function."""

    rank: int
    size: int
    state: Pointer
    yield_function: int


@intrinsic
def _fetch_add(typing: Any, state: Any, index: Any, value: Any) -> Any:
    """Add to an int64 atomically; return what it was."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointer, position, addend = arguments
        return builder.atomic_rmw("add", builder.gep(pointer, [position]), addend, "seq_cst")

    return types.int64(state, types.intp, types.int64), codegen


@intrinsic
def _read(typing: Any, state: Any, index: Any) -> Any:
    """Read an int64 that other threads write."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.load_atomic(builder.gep(*arguments[:1], [arguments[1]]), "acquire", 8)

    return types.int64(state, types.intp), codegen


@intrinsic
def _pause(typing: Any, weights: Any) -> Any:
    """Tell the processor that this thread spins; `weights` point to packed weights, whose type says which it is."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        name, argument = weights.dtype.target.pause
        operands = [] if argument is None else [INT32(argument)]
        Emitter(builder).call_instruction(name, *operands)
        return context.get_dummy_value()

    return types.void(weights), codegen


@intrinsic
def _call(typing: Any, address: Any) -> Any:
    """Call a C function that takes nothing."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        kind = ir.FunctionType(INT32, []).as_pointer()
        builder.call(builder.inttoptr(arguments[0], kind), [])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@kernel
def parallel_for(team: Team, step: int, tasks: int, body: Callable[[Any, int], None], job: Any) -> None:
    """Call body(job, task) for each task from 0 to tasks - 1, in all threads of the team; return when all are done.

    Every thread of the team calls this with the same step, once, in ascending order of steps. `job` is a tuple whose
    field `weights` points to packed weights. What the tasks wrote is there for all afterwards.
    """
    task = next_task(team, step, tasks)
    while task >= 0:
        body(job, task)
        task = next_task(team, step, tasks)
    if team.size > 1:
        wait_for_all(team, step, tasks, job.weights)


@kernel
def next_task(team: Team, step: int, tasks: int) -> int:
    """A task of this step that nobody else has, 0 to tasks - 1; -1 if there is none left."""
    for turn in range(team.size):
        owner = (team.rank + turn) % team.size
        first = tasks * owner // team.size
        share = tasks * (owner + 1) // team.size - first
        taken = _line(team, step) + (1 + owner) * LINE
        if _read(team.state, taken) < share:
            task = _fetch_add(team.state, taken, 1)
            if task < share:
                team.state[team.rank * LINE] += 1
                return first + task
    return -1


@kernel
def wait_for_all(team: Team, step: int, tasks: int, weights: Pointer) -> None:
    """Return when all tasks of this step are done."""
    done = _line(team, step)
    _fetch_add(team.state, done, team.state[team.rank * LINE])
    team.state[team.rank * LINE] = 0
    spins = 0
    while _read(team.state, done) < tasks:
        spins += 1
        if spins < _SPINS:
            _pause(weights)
        else:
            _call(team.yield_function)


@kernel
def _line(team: Team, step: int) -> int:
    """Where the state of a step begins."""
    return (team.size + step * (1 + team.size)) * LINE
