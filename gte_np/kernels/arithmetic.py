"""What a matrix product does in one step, for each kind of weights, and how the processor does it best.

In a step, one word (32 bits) of a row of x meets PANEL words of weights: one value with one, two bfloat16 with two,
or four unsigned bytes with four signed ones. All ways to do one of these give the same sums, whatever the
instructions: those of whole numbers exactly, those of bfloat16 as long as no product is below 1e-38.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from gte_np.kernels.processor import LANES, Processor, processor
from gte_np.kernels.simd import MATRIX_TYPES, broadcast, filled, load_vector, multiply_add

Value = Any  # what a step keeps in registers: one vector, or a pair of them

_INT32 = ir.IntType(32)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(_INT32, LANES)
_SHORTS = ir.VectorType(ir.IntType(16), 2 * LANES)
_OCTETS = ir.VectorType(ir.IntType(8), 4 * LANES)


class Arithmetic(ABC):
    """One kind of step. A sum is a vector of `sums`, of 16 lanes."""

    sums: ir.VectorType

    @abstractmethod
    def weights(self, builder: ir.IRBuilder, pointer: ir.Value) -> Value:
        """16 words of weights, ready to be multiplied."""

    @abstractmethod
    def value(self, builder: ir.IRBuilder, word: ir.Value) -> Value:
        """A word of x, which is a float32 to LLVM, in all lanes."""

    @abstractmethod
    def add(self, builder: ir.IRBuilder, value: Value, weights: Value, total: ir.Value) -> ir.Value:
        """total + value * weights."""

    def first(self, builder: ir.IRBuilder, weight_sums: ir.Value) -> ir.Value:
        """With what a sum in int8 begins; `weight_sums` are the float32 sums of each column's weights."""
        return filled(0, self.sums)


def arithmetic_of(stored: Any) -> Arithmetic:
    """The arithmetic for weights of a Numba type of `MATRIX_TYPES`, on this processor."""
    if stored == MATRIX_TYPES["bfloat16x2"]:
        return DotBfloat16() if processor().has_dot_bfloat16 else WidenedBfloat16()
    if stored == MATRIX_TYPES["int8x4"]:
        return _int8_arithmetic(processor())
    return Float32(stored)


def _int8_arithmetic(target: Processor) -> Arithmetic:
    if target.has_dot_int8:
        return DotInt8(target.vector_width)
    if target.is_x86:
        is_narrower = target.vector_width == 16 and not target.has("avx512bw")
        return PairsOfInt16(8 if is_narrower else target.vector_width)
    return SignedDotInt8() if target.has_signed_dot_int8 else PlainInt8()


class Float32(Arithmetic):
    """float32, with weights that are stored in 16 bits widened."""

    sums = _FLOATS

    def __init__(self, stored: Any) -> None:
        self.stored = stored

    def weights(self, builder: ir.IRBuilder, pointer: ir.Value) -> Value:
        return load_vector(builder, pointer, self.stored)

    def value(self, builder: ir.IRBuilder, word: ir.Value) -> Value:
        return broadcast(builder, word)

    def add(self, builder: ir.IRBuilder, value: Value, weights: Value, total: ir.Value) -> ir.Value:
        return multiply_add(builder, value, weights, total)


class _Words(Arithmetic):
    """Words as they are."""

    def weights(self, builder: ir.IRBuilder, pointer: ir.Value) -> Value:
        return builder.load(builder.bitcast(pointer, _WORDS.as_pointer()), align=4)

    def value(self, builder: ir.IRBuilder, word: ir.Value) -> Value:
        return broadcast(builder, builder.bitcast(word, _INT32))


class DotBfloat16(_Words):
    """x86's instruction for sums of two products of bfloat16: it multiplies and adds the second, then the first."""

    sums = _FLOATS

    def add(self, builder: ir.IRBuilder, value: Value, weights: Value, total: ir.Value) -> ir.Value:
        return _in_parts(builder, 16, "llvm.x86.avx512bf16.dpbf16ps.512", total, weights, value)


class WidenedBfloat16(_Words):
    """The same by two multiply-adds of float32."""

    sums = _FLOATS

    def weights(self, builder: ir.IRBuilder, pointer: ir.Value) -> Value:
        return _halves(builder, super().weights(builder, pointer))

    def value(self, builder: ir.IRBuilder, word: ir.Value) -> Value:
        return _halves(builder, super().value(builder, word))

    def add(self, builder: ir.IRBuilder, value: Value, weights: Value, total: ir.Value) -> ir.Value:
        for x, weight in zip(value, weights, strict=True):
            total = multiply_add(builder, x, weight, total)
        return total


def _halves(builder: ir.IRBuilder, words: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The second and the first bfloat16 of each word, as float32."""
    second = builder.and_(words, filled(-0x10000, _WORDS))
    first = builder.shl(words, filled(16, _WORDS))
    return builder.bitcast(second, _FLOATS), builder.bitcast(first, _FLOATS)


class DotInt8(_Words):
    """x86's instruction for sums of four products of bytes (AVX-512 VNNI, or AVX-VNNI in registers of 256 bits)."""

    sums = _WORDS

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes

    def add(self, builder: ir.IRBuilder, value: Value, weights: Value, total: ir.Value) -> ir.Value:
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}"
        return _in_parts(builder, self.lanes, name, total, value, weights)


class PairsOfInt16(_Words):
    """The same by x86's sums of two products of 16 bits, which no byte can overflow.

    The one that takes bytes is not used: its sums of two are cut off at 32767.
    """

    sums = _WORDS

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes

    def weights(self, builder: ir.IRBuilder, pointer: ir.Value) -> Value:
        shorts = builder.bitcast(super().weights(builder, pointer), _SHORTS)
        even = builder.ashr(builder.shl(shorts, filled(8, _SHORTS)), filled(8, _SHORTS))
        return even, builder.ashr(shorts, filled(8, _SHORTS))

    def value(self, builder: ir.IRBuilder, word: ir.Value) -> Value:
        shorts = builder.bitcast(super().value(builder, word), _SHORTS)
        return builder.and_(shorts, filled(0xFF, _SHORTS)), builder.lshr(shorts, filled(8, _SHORTS))

    def add(self, builder: ir.IRBuilder, value: Value, weights: Value, total: ir.Value) -> ir.Value:
        name = {16: "avx512.pmaddw.d.512", 8: "avx2.pmadd.wd", 4: "sse2.pmadd.wd"}[self.lanes]
        for x, weight in zip(value, weights, strict=True):
            total = builder.add(total, _in_parts(builder, self.lanes, f"llvm.x86.{name}", x, weight, result=_WORDS))
        return total


class SignedDotInt8(_Words):
    """ARM's sums of four products of signed bytes.

    x is unsigned, and 128 less is signed: the sums begin with what that leaves out.
    """

    sums = _WORDS

    def value(self, builder: ir.IRBuilder, word: ir.Value) -> Value:
        return builder.xor(super().value(builder, word), filled(-0x7F7F7F80, _WORDS))

    def add(self, builder: ir.IRBuilder, value: Value, weights: Value, total: ir.Value) -> ir.Value:
        octets = builder.bitcast(value, _OCTETS), builder.bitcast(weights, _OCTETS)
        return _in_parts(builder, 4, "llvm.aarch64.neon.sdot.v4i32.v16i8", total, *octets)

    def first(self, builder: ir.IRBuilder, weight_sums: ir.Value) -> ir.Value:
        return builder.fptosi(builder.fmul(weight_sums, filled(128.0)), _WORDS)


class PlainInt8(_Words):
    """The same without any such instruction."""

    sums = _WORDS

    def add(self, builder: ir.IRBuilder, value: Value, weights: Value, total: ir.Value) -> ir.Value:
        top = filled(24, _WORDS)
        for shift in (0, 8, 16, 24):
            x = builder.and_(builder.lshr(value, filled(shift, _WORDS)), filled(0xFF, _WORDS))
            weight = builder.ashr(builder.shl(weights, filled(24 - shift, _WORDS)), top)
            total = builder.add(total, builder.mul(x, weight))
        return total


def _in_parts(
    builder: ir.IRBuilder, lanes: int, name: str, *vectors: ir.Value, result: ir.VectorType | None = None
) -> ir.Value:
    """Call an intrinsic for registers of so many 32-bit lanes on each part of vectors of 16 such lanes."""
    parts = [
        _call(builder, name, [_part(builder, vector, lanes, first) for vector in vectors], lanes, result)
        for first in range(0, LANES, lanes)
    ]
    while len(parts) > 1:
        parts = [_joined(builder, *parts[at : at + 2]) for at in range(0, len(parts), 2)]
    return parts[0]


def _call(
    builder: ir.IRBuilder, name: str, arguments: list[ir.Value], lanes: int, result: ir.VectorType | None
) -> ir.Value:
    kind = arguments[0].type if result is None else ir.VectorType(result.element, lanes)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [argument.type for argument in arguments]), name
    )
    return builder.call(function, arguments)


def _part(builder: ir.IRBuilder, vector: ir.Value, lanes: int, first: int) -> ir.Value:
    if lanes == LANES:
        return vector
    elements = vector.type.count // LANES  # of a 32-bit lane
    return _shuffled(builder, vector, vector, range(first * elements, (first + lanes) * elements))


def _joined(builder: ir.IRBuilder, first: ir.Value, second: ir.Value) -> ir.Value:
    return _shuffled(builder, first, second, range(2 * first.type.count))


def _shuffled(builder: ir.IRBuilder, first: ir.Value, second: ir.Value, picks: range) -> ir.Value:
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(_INT32, len(picks)), list(picks)))
