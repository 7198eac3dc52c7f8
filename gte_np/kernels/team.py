"""Threads that work on one batch together: they take tasks from a common counter and meet between steps.

The threads are Python's, see `gte_np.kernels.threads`; here is what they do inside of compiled code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gte_np.kernels.processor import processor
from gte_np.kernels.simd import Pointer, kernel

# int64 places of a team's state, each on cache lines of its own; the counters of tasks follow.
ARRIVED = 0
ROUND = 16
COUNTERS = 32

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
def _write(typing: Any, state: Any, index: Any, value: Any) -> Any:
    """Write an int64 that other threads read."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointer, position, new = arguments
        builder.store_atomic(new, builder.gep(pointer, [position]), "release", 8)
        return context.get_dummy_value()

    return types.void(state, types.intp, types.int64), codegen


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
def next_task(team: Team, step: int) -> int:
    """The number of a task of this step that nobody else has: 0, 1, 2, ..."""
    return _fetch_add(team.state, COUNTERS + step, 1)


@kernel
def wait_for_team(team: Team) -> None:
    """Return when all threads of the team have come here: what each wrote before is there for all."""
    if team.size == 1:
        return
    this_round = _read(team.state, ROUND)
    if _fetch_add(team.state, ARRIVED, 1) == team.size - 1:
        _write(team.state, ARRIVED, 0)
        _write(team.state, ROUND, this_round + 1)
        return
    looks = 0
    while _read(team.state, ROUND) == this_round:
        looks += 1
        if looks < _LOOKS:
            _pause()
        else:
            _call(team.yield_function)
