"""What code for a target is emitted with: the steps of weight formats and the intrinsics are written in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from gte_np.kernels.language.types import (
    BYTE_POINTER,
    FLOAT,
    FLOATS,
    INT8,
    INT32,
    INT64,
    LANES,
    OCTETS,
    SHORTS,
    WORDS,
)
from gte_np.kernels.targets import Target

Rows = list[list[ir.Value]]  # of values that a loop changes

# Adding it leaves the nearest whole number in the low bits of a float32: beyond 2^23 there are no fractions.
ROUNDER = 1.5 * 2**23

_HALVES = ir.VectorType(ir.HalfType(), LANES)
# The 16-bit and the 8-bit values in 16 words.
_SHORTS_OF_WORDS = ir.VectorType(SHORTS.element, 2 * LANES)
_OCTETS_OF_WORDS = ir.VectorType(OCTETS.element, 4 * LANES)


def filled(value: float, vector: ir.VectorType = FLOATS) -> ir.Constant:
    """A constant vector of one value."""
    return ir.Constant(vector, [value] * vector.count)


class Emitter:
    """Emits the operations of LLVM that kernels need, for a target if they depend on it; `builder` emits all others.

    Vectors have 16 lanes: of float32 ("floats"), or of int32 ("words").
    """

    int8, int32, int64 = INT8, INT32, INT64

    def __init__(self, builder: ir.IRBuilder, target: Target | None = None) -> None:
        self.builder = builder
        self.target = target

    # --- memory ---------------------------------------------------------------------------------------------------

    def at(self, pointer: ir.Value, index: ir.Value | int) -> ir.Value:
        """The pointer to an element."""
        return self.builder.gep(pointer, [INT64(index) if isinstance(index, int) else index])

    def as_bytes(self, pointer: ir.Value) -> ir.Value:
        """The same place, counted in bytes."""
        return self.builder.bitcast(pointer, BYTE_POINTER)

    def load_as(self, pointer: ir.Value, kind: ir.Type, align: int) -> ir.Value:
        """What lies at a pointer, as another type."""
        return self.builder.load(self.builder.bitcast(pointer, kind.as_pointer()), align=align)

    def load_floats(self, pointer: ir.Value) -> ir.Value:
        """16 float32 values; the address need only be aligned to one."""
        return self.load_as(pointer, FLOATS, 4)

    def load_words(self, pointer: ir.Value) -> ir.Value:
        """16 int32 values; the address need only be aligned to one."""
        return self.load_as(pointer, WORDS, 4)

    def load_word(self, pointer: ir.Value) -> ir.Value:
        """One int32 value."""
        return self.load_as(pointer, INT32, 4)

    def load_stored(self, pointer: ir.Value, stored: str) -> ir.Value:
        """16 values that are stored as float32, float16 or bfloat16, as floats."""
        if stored == "float32":
            return self.load_floats(pointer)
        if stored == "float16" and self.target is not None and self.target.has_float16:
            return self.builder.fpext(self.load_as(pointer, _HALVES, 2), FLOATS)
        bits = self.builder.zext(self.load_as(pointer, SHORTS, 2), WORDS)
        if stored == "bfloat16":  # the upper half of a float32
            return self.as_floats(self.builder.shl(bits, self.words(16)))
        return self._float16_of_bits(bits)

    def _float16_of_bits(self, bits: ir.Value) -> ir.Value:
        """Finite float16 values, whose bits are in 32-bit lanes, as float32.

        Exponent and fraction move to their places in a float32, which leaves the exponent too small by 127 - 15; the
        product corrects that, exactly, for subnormal numbers as well.
        """
        builder = self.builder
        magnitude = builder.shl(builder.and_(bits, self.words(0x7FFF)), self.words(13))
        scaled = builder.fmul(self.as_floats(magnitude), self.floats(2.0**112))
        sign = builder.shl(builder.and_(bits, self.words(0x8000)), self.words(16))
        return self.as_floats(builder.or_(self.as_words(scaled), sign))

    def store_as(self, value: ir.Value, pointer: ir.Value, align: int) -> None:
        """Write a value where a pointer to another type points."""
        self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer()), align=align)

    def store_floats(self, value: ir.Value, pointer: ir.Value) -> None:
        """Write 16 float32 values; the address need only be aligned to one."""
        self.store_as(value, pointer, 4)

    def store_octets(self, value: ir.Value, pointer: ir.Value) -> None:
        """Write 16 floats from 0 to 255 as bytes, rounded, ties to even."""
        rounded = self.as_words(self.builder.fadd(value, self.floats(ROUNDER)))
        self.store_as(self.builder.trunc(rounded, OCTETS), pointer, 1)

    def store_bfloat16(self, value: ir.Value, pointer: ir.Value) -> None:
        """Write the bfloat16 values nearest to 16 floats, ties to even."""
        self.store_as(self.builder.trunc(self._bfloat16_bits(value), SHORTS), pointer, 2)

    def store_bfloat16_pairs(self, first: ir.Value, second: ir.Value, pointer: ir.Value) -> None:
        """Write 16 words, each of a value of `first` and behind it one of `second`, rounded likewise."""
        upper = self.builder.shl(self._bfloat16_bits(second), self.words(16))
        self.store_floats(self.as_floats(self.builder.or_(self._bfloat16_bits(first), upper)), pointer)

    def _bfloat16_bits(self, value: ir.Value) -> ir.Value:
        """Of the nearest bfloat16 values, in the lower halves of words."""
        builder, bits, half = self.builder, self.as_words(value), self.words(16)
        odd = builder.and_(builder.lshr(bits, half), self.words(1))
        return builder.lshr(builder.add(bits, builder.add(odd, self.words(0x7FFF))), half)

    def prefetch(self, pointer: ir.Value, distance: int) -> None:
        """Ask for the cache line so many bytes behind the pointer, into the second cache; any address will do."""
        address = self.at(self.as_bytes(pointer), distance)
        to_read, second_cache, data = INT32(0), INT32(2), INT32(1)
        self.call_instruction("llvm.prefetch.p0i8", address, to_read, second_cache, data)

    # --- loops ----------------------------------------------------------------------------------------------------

    def loop(
        self, turns: ir.Value, start: Rows, body: Callable[[ir.Value, Rows], Rows], *, unroll: bool = False
    ) -> Rows:
        """Emit a loop of one turn or more: what `body` makes of rows of values and the number of each turn.

        `unroll` lets LLVM unroll it.
        """
        builder = self.builder
        before, loop = builder.block, builder.append_basic_block("loop")
        builder.branch(loop)
        builder.position_at_end(loop)
        turn = builder.phi(INT64)
        turn.add_incoming(INT64(0), before)
        values = [[builder.phi(value.type) for value in row] for row in start]
        found = body(turn, values)
        for phis, firsts, followers in zip(values, start, found, strict=True):
            for phi, first, following in zip(phis, firsts, followers, strict=True):
                phi.add_incoming(first, before)
                phi.add_incoming(following, loop)
        next_turn = builder.add(turn, INT64(1))
        turn.add_incoming(next_turn, loop)
        after = builder.append_basic_block("after")
        repeat = builder.cbranch(builder.icmp_signed("<", next_turn, turns), loop, after)
        if not unroll:
            self.forbid_unrolling(repeat)
        builder.position_at_end(after)
        return found

    def forbid_unrolling(self, branch: ir.Instruction) -> None:
        """Keep LLVM from unrolling the loop that a branch closes."""
        module = self.builder.module
        loop = module.add_metadata([module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])])
        loop.operands = (loop, *loop.operands)  # the name of a loop is a node that refers to itself
        branch.set_metadata("llvm.loop", loop)

    # --- values ---------------------------------------------------------------------------------------------------

    def floats(self, value: float) -> ir.Constant:
        """16 times a float32 value."""
        return filled(value)

    def words(self, value: int) -> ir.Constant:
        """16 times an int32 value."""
        return filled(value, WORDS)

    def shorts(self, value: int) -> ir.Constant:
        """32 times an int16 value."""
        return filled(value, _SHORTS_OF_WORDS)

    def as_octets(self, words: ir.Value) -> ir.Value:
        """The four bytes of each word."""
        return self.builder.bitcast(words, _OCTETS_OF_WORDS)

    def as_floats(self, value: ir.Value) -> ir.Value:
        """The same bits as floats."""
        return self.builder.bitcast(value, FLOATS)

    def as_words(self, value: ir.Value) -> ir.Value:
        """The same bits as words."""
        return self.builder.bitcast(value, WORDS)

    def to_floats(self, words: ir.Value) -> ir.Value:
        """The nearest float32 values of int32 values."""
        return self.builder.sitofp(words, FLOATS)

    def broadcast(self, value: ir.Value) -> ir.Value:
        """A vector of one value."""
        undefined = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
        first = self.builder.insert_element(undefined, value, INT32(0))
        return self.builder.shuffle_vector(first, undefined, self.words(0))

    def fma(self, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
        """x y + z, rounded once where the target has the instruction, twice where it has not."""
        kind = ir.FunctionType(FLOATS, [FLOATS] * 3)
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
        return self.builder.call(function, [x, y, z])

    def larger(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """The larger of x and y in each lane; x if that is NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", x, y), y, x)

    def smaller(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """The smaller of x and y in each lane; x if that is NaN."""
        return self.builder.select(self.builder.fcmp_ordered(">", x, y), y, x)

    def repeated(self, first: ir.Value, second: ir.Value) -> ir.Value:
        """Words that are two 64-bit values, four times."""
        pair = ir.Constant(ir.VectorType(INT64, 2), ir.Undefined)
        for place, value in enumerate((first, second)):
            pair = self.builder.insert_element(pair, value, INT32(place))
        return self.as_words(self._shuffled(pair, pair, [0, 1] * (LANES // 4)))

    def zipped(self, first: ir.Value, second: ir.Value, run: int) -> list[ir.Value]:
        """The lanes of two vectors in turn, so many of each at a time: the lower and the upper half of them."""
        turns = sorted(range(2 * LANES), key=lambda lane: (lane % LANES // run, lane))
        return [self._shuffled(first, second, half) for half in (turns[:LANES], turns[LANES:])]

    def unzipped(self, lower: ir.Value, upper: ir.Value, run: int) -> list[ir.Value]:
        """The two vectors that were zipped."""
        first = [lane for lane in range(2 * LANES) if not lane // run % 2]
        return [self._shuffled(lower, upper, lanes) for lanes in (first, [lane + run for lane in first])]

    def place_of_octet(self, octets: ir.Value, value: ir.Value) -> ir.Value:
        """Which of 16 bytes, all different, is an int64 value that one of them is."""
        equal = self.builder.icmp_signed("==", octets, self.broadcast(self.builder.trunc(value, INT8)))
        mask = self.builder.zext(self.builder.bitcast(equal, ir.IntType(LANES)), INT64)
        return self.builder.cttz(mask, ir.IntType(1)(1))

    # --- instructions of a processor ------------------------------------------------------------------------------

    def in_parts(self, lanes: int, name: str, *vectors: ir.Value, result: ir.VectorType | None = None) -> ir.Value:
        """Call an instruction for registers of so many 32-bit lanes on each part of vectors of 16 such lanes."""
        parts = [
            self._call(name, [self._part(vector, lanes, first) for vector in vectors], lanes, result)
            for first in range(0, LANES, lanes)
        ]
        while len(parts) > 1:
            parts = [self._joined(*parts[at : at + 2]) for at in range(0, len(parts), 2)]
        return parts[0]

    def shuffled_octets(self, lanes: int, octets: ir.Value, numbers: ir.Value) -> ir.Value:
        """The bytes of 16 words, each 16 in the order of their numbers: x86's instruction for so many lanes."""
        name = {4: "ssse3.pshuf.b.128", 8: "avx2.pshuf.b", 16: "avx512.pshuf.b.512"}[lanes]
        return self.in_parts(lanes, f"llvm.x86.{name}", octets, numbers)

    def call_instruction(self, name: str, *arguments: ir.Value) -> None:
        """Call an instruction that returns nothing."""
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), arguments)

    def constant_bytes(self, name: str, content: bytes) -> ir.Value:
        """A pointer to bytes that never change, by a name of their own."""
        value = ir.Constant(ir.ArrayType(INT8, len(content)), bytearray(content))
        return self.as_bytes(cgutils.global_constant(self.builder, name, value))

    def constant_floats(self, name: str, values: Sequence[np.float32]) -> ir.Value:
        """A pointer to float32 values that never change, by a name of their own."""
        content = np.array(values, np.float32).tobytes()
        return self.builder.bitcast(self.constant_bytes(name, content), FLOAT.as_pointer())

    def _call(self, name: str, arguments: list[ir.Value], lanes: int, result: ir.VectorType | None) -> ir.Value:
        kind = arguments[0].type if result is None else ir.VectorType(result.element, result.count * lanes // LANES)
        function_type = ir.FunctionType(kind, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, function_type, name)
        return self.builder.call(function, arguments)

    def _part(self, vector: ir.Value, lanes: int, first: int) -> ir.Value:
        if lanes == LANES:
            return vector
        elements = vector.type.count // LANES  # of a 32-bit lane
        return self._shuffled(vector, vector, range(first * elements, (first + lanes) * elements))

    def _joined(self, first: ir.Value, second: ir.Value) -> ir.Value:
        return self._shuffled(first, second, range(2 * first.type.count))

    def _shuffled(self, first: ir.Value, second: ir.Value, picks: Sequence[int]) -> ir.Value:
        lanes = ir.Constant(ir.VectorType(INT32, len(picks)), list(picks))
        return self.builder.shuffle_vector(first, second, lanes)
