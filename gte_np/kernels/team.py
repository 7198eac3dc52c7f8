"""Threads that work on one batch together: each step is divided into tasks, and the next begins when all are done.

Every thread has a share of neighbouring tasks, which it takes in their order; when it has none left it takes those of
the others. What nobody has begun waits for nobody: a thread that begins late, or is held up, finds its tasks done.

The state of a team has a cache line for each thread, which counts the tasks that it has done in this step; then, for
each step, a line that counts tasks done, and one for each thread's share, which counts those taken of it.

The threads are Python's, see `gte_np.kernels.threads`; here is what they do inside of compiled code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gte_np.kernels.plan import LINE
from gte_np.kernels.processor import processor
from gte_np.kernels.simd import Pointer, kernel

# How often a waiting thread looks before it offers its processor to others: about 50 microseconds.
_LOOKS = 1000

_INT64 = ir.IntType(64)


class Team(NamedTuple):
    """One thread's view of its team: its number, how many there are, their state, and the system's yield function."""

    rank: int
    size: int
    state: Pointer
    yield_function: int


@intrinsic
def _fetch_add(typing: Any, state: Any, index: Any, value: Any) -> Any:
    """Add to an int64 in one step that no other thread can part; return what it was."""

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
def _pause(typing: Any) -> Any:
    """Tell the processor that this thread is waiting in a loop."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        if processor().is_x86:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        elif processor().is_arm64:
            kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
            hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.hint")
            builder.call(hint, [ir.IntType(32)(1)])  # the instruction YIELD
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _call(typing: Any, address: Any) -> Any:
    """Call a C function that takes nothing."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        kind = ir.FunctionType(ir.IntType(32), []).as_pointer()
        builder.call(builder.inttoptr(arguments[0], kind), [])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


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
def wait_for_all(team: Team, step: int, tasks: int) -> None:
    """Return when all tasks of this step are done; what each wrote is there for all. Called once in a step."""
    if team.size == 1:
        return
    done = _line(team, step)
    _fetch_add(team.state, done, team.state[team.rank * LINE])
    team.state[team.rank * LINE] = 0
    looks = 0
    while _read(team.state, done) < tasks:
        looks += 1
        if looks < _LOOKS:
            _pause()
        else:
            _call(team.yield_function)


@kernel
def _line(team: Team, step: int) -> int:
    """Where the state of a step begins."""
    return (team.size + step * (1 + team.size)) * LINE
