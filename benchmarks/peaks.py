"""What a processor can do at most: multiply-adds on registers, and reading packed weights, by all threads at once.

The loops are compiled for a target as its kernels are, with the steps of the same weight formats.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from gte_np.formats import WeightFormat
from gte_np.formats.bfloat16 import BFLOAT16
from gte_np.formats.stored_tensor import StoredTensor
from gte_np.kernels.language.emitter import Emitter
from gte_np.kernels.language.types import (
    FLOAT,
    INT32,
    INT64,
    LANES,
    PanelType,
    Pointer,
    float32,
    panel_pointer,
    pointer_to,
)
from gte_np.kernels.operations.matmul import Panel
from gte_np.kernels.runtime.compile import Entry, compile_entry
from gte_np.kernels.runtime.object_code import load_function
from gte_np.kernels.runtime.threads import pool
from gte_np.kernels.targets import Target
from gte_np.kernels.targets.matrix_units import TILE
from gte_np.kernels.targets.target import CACHE_LINE

TURN_SECONDS = 0.004  # that a loop takes at least
WORDS = 1024  # of the loops on registers
UNIT_SUMS = 4  # registers of a matrix unit that hold sums, as in `gte_np.kernels.operations.matrix_unit`
STREAMS = 8  # that a thread reads side by side: a tenth faster than one, with prefetching or without


class Rate:
    """How much work a second so many threads do together, each of which runs a loop.

    `run(thread, rounds)` does rounds of it in compiled code, and `work` is what a thread does in a round.
    """

    def __init__(self, run: Callable[[int, int], None], work: float, threads: int) -> None:
        self.threads = threads
        self._run, self._work, self._rounds = run, work, 1
        while min(self._seconds_of_threads()) < TURN_SECONDS:
            self._rounds *= 2

    def __call__(self, seconds: float = TURN_SECONDS) -> float:
        """Measure it for at least so long."""
        total, times = 0.0, np.zeros(self.threads)
        while times.min() < seconds:
            times += self._seconds_of_threads()
            total += self._work * self._rounds
        return float((total / times).sum())

    def _seconds_of_threads(self) -> list[float]:
        """Of each thread by itself: they do not begin at the very same time."""
        times = [0.0] * self.threads

        def work(thread: int) -> None:
            start = time.perf_counter()
            self._run(thread, self._rounds)
            times[thread] = time.perf_counter() - start

        pool().call(lambda: pool().run(work, self.threads))
        return times


def peak(weight_format: WeightFormat, target: Target, threads: int) -> Rate:
    """Multiply-adds a second of the product with packed weights of a format."""
    loop = compiled(multiply_adds, panel_pointer(weight_format, target), types.int64, target=target)
    operands = [words() for _ in range(threads)]  # which the loop overwrites

    def run(thread: int, rounds: int) -> None:
        loop(operands[thread].ctypes.data, rounds)

    return Rate(run, multiply_adds_of_a_round(weight_format, target), threads)


def bandwidth(matrices: NDArray[Any], weight_format: WeightFormat, target: Target, threads: int) -> Rate:
    """Bytes a second of reading packed weights, again and again; each thread reads a part of them."""
    kinds = panel_pointer(weight_format, target), types.int64, types.int64, pointer_to(float32)
    loop = compiled(read, *kinds, target=target)
    part = matrices.nbytes // threads // (STREAMS * CACHE_LINE) * STREAMS * CACHE_LINE
    sums = np.zeros((threads, LANES), np.float32)

    def run(thread: int, rounds: int) -> None:
        loop(matrices.ctypes.data + thread * part, part, rounds, sums[thread].ctypes.data)

    return Rate(run, part, threads)


def compiled(function: Callable[..., None], *arguments: types.Type, target: Target) -> Callable[..., Any]:
    """The function, of arguments of these types, as Python can call it with addresses and numbers."""
    name = function.__name__
    return load_function(compile_entry(name, Entry(function, arguments), target), name, len(arguments))


def words() -> NDArray[np.uint32]:
    """Random pairs of bfloat16, which are numbers in every format: the clock may depend on how many bits change."""
    values = np.random.default_rng(0).standard_normal((1, 2 * WORDS), np.float32)
    parts = BFLOAT16.encode(StoredTensor("float32", values)).parts
    return np.array(BFLOAT16.words(parts, slice(None))[0])


def multiply_adds(words: Pointer, rounds: int) -> None:
    """So many rounds of as many independent multiply-adds as the registers hold, of a matrix unit if there is one."""
    multiply_add_rounds(words, rounds)


def multiply_adds_of_a_round(weight_format: WeightFormat, target: Target) -> int:
    """How many numbers are multiplied and added in a round of `multiply_adds`."""
    values = weight_format.values_of_word
    if target.multiplies_tiles(weight_format.tile_product):
        return UNIT_SUMS * TILE**3 * values
    words = 1 if weight_format.pair_step(target) is None else 2
    return _accumulators(target) * LANES * values * words


def _accumulators(target: Target) -> int:
    """Nearly as many vectors as a tile has, so that there are registers for all of x and of the weights."""
    return target.tile_rows * target.tile_vectors - 1


def read(words: Pointer, size: int, rounds: int, sums: Pointer) -> None:
    """Read so many bytes, again and again; `sums` keeps what was read in use."""
    for _ in range(rounds):
        read_once(words, size, sums)


@intrinsic
def multiply_add_rounds(typing: Any, words: Any, rounds: Any) -> Any:
    """See `multiply_adds`."""
    packed = words.dtype

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        emit = Emitter(builder, packed.target)
        if packed.target.multiplies_tiles(packed.format.tile_product):
            _emit_unit(emit, packed, *arguments)
        else:
            _emit_dot_products(emit, packed, *arguments)
        return context.get_dummy_value()

    return types.void(words, types.int64), codegen


def _emit_dot_products(emit: Emitter, packed: PanelType, pointer: ir.Value, rounds: ir.Value) -> None:
    """The steps of a tile whose rows and output features are all the same, but for what their sums begin with."""
    builder = emit.builder
    step = packed.format.pair_step(packed.target) or packed.format.step(packed.target)
    floats = builder.bitcast(pointer, FLOAT.as_pointer())
    panel = Panel(packed, pointer, INT64(LANES), bias=floats, constants=floats)
    x, weights = _Unknown(emit, packed.target, step.load_x(emit, floats)), step.load_weights(emit, panel, INT64(0), 0)
    kind = step.start(emit, step.columns(emit, panel))[0].type
    places = [emit.at(floats, (1 + number) * LANES) for number in range(_accumulators(packed.target))]
    sums = [cgutils.alloca_once_value(builder, emit.load_as(place, kind, 4)) for place in places]
    with cgutils.for_range(builder, rounds):
        for total in sums:
            builder.store(step.multiply_add(emit, x.value(), weights, builder.load(total)), total)
    for place, total in zip(places, sums, strict=True):
        builder.store(builder.load(total), builder.bitcast(place, kind.as_pointer()), align=4)


class _Unknown:
    """A broadcast value of x, or several, of which LLVM does not know that they stay the same.

    Where a multiply-add is two instructions, the product would be computed once, before the loop.
    """

    def __init__(self, emit: Emitter, target: Target, x: Any) -> None:
        self._emit, self._target, self._is_tuple = emit, target, isinstance(x, tuple)
        self._places = [cgutils.alloca_once_value(emit.builder, self._register(value)) for value in self._values(x)]
        self._kinds = [value.type for value in self._values(x)]

    def value(self) -> Any:
        """It, after no instruction at all: an empty piece of assembly language."""
        builder, constraint = self._emit.builder, "=w,0" if self._target.machine == "aarch64" else "=v,0"
        values = []
        for place, kind in zip(self._places, self._kinds, strict=True):
            register = builder.load(place)
            same = ir.FunctionType(register.type, [register.type])
            register = builder.asm(same, "", constraint, [register], side_effect=True)
            builder.store(register, place)
            values.append(self._shuffled(register, kind.count))
        return tuple(values) if self._is_tuple else values[0]

    def _values(self, x: Any) -> tuple[ir.Value, ...]:
        return x if self._is_tuple else (x,)

    def _register(self, vector: ir.Value) -> ir.Value:
        """The first of equal parts, as long as a register."""
        return self._shuffled(vector, vector.type.count * self._target.vector_width // LANES)

    def _shuffled(self, vector: ir.Value, count: int) -> ir.Value:
        """So many elements, which are those of the vector, again and again."""
        picks = [number % vector.type.count for number in range(count)]
        return self._emit.builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(INT32, count), picks))


def _emit_unit(emit: Emitter, packed: PanelType, pointer: ir.Value, rounds: ir.Value) -> None:
    """Products of two registers of x with two of weights, as in the kernels."""
    unit, product = packed.target.matrix_unit, packed.format.tile_product
    assert unit is not None, "the target has one"
    assert product is not None, "which has the product"
    unit.configure(emit)
    for register in range(UNIT_SUMS + 4):
        unit.load(emit, register, pointer, INT64(TILE))
    with cgutils.for_range(emit.builder, rounds):
        for sums in range(UNIT_SUMS):
            x, weights = UNIT_SUMS + sums // 2, UNIT_SUMS + 2 + sums % 2
            unit.multiply_add(emit, product, sums, x, weights)
    unit.release(emit)


@intrinsic
def read_once(typing: Any, words: Any, size: Any, sums: Any) -> Any:
    """Read so many bytes, a multiple of STREAMS cache lines, and leave some function of all of them in `sums`."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointer, count, target = arguments
        emit, stream = Emitter(builder), builder.udiv(count, INT64(STREAMS))
        starts = [emit.at(emit.as_bytes(pointer), builder.mul(stream, INT64(number))) for number in range(STREAMS)]
        so_far = cgutils.alloca_once_value(builder, emit.words(0))
        with cgutils.for_range_slice(builder, INT64(0), stream, INT64(CACHE_LINE)) as (place, _):
            for start in starts:
                line = emit.load_words(emit.at(start, place))
                builder.store(builder.xor(line, builder.load(so_far)), so_far)
        emit.store_floats(emit.as_floats(builder.load(so_far)), target)
        return context.get_dummy_value()

    return types.void(words, types.int64, sums), codegen
