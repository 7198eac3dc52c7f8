"""Dot products of words: what a target does with two bfloat16, or four bytes, in each of 16 lanes.

All of a kind give the same sums, whatever the instructions: those of whole numbers exactly, those of bfloat16 as long
as no product is below 1e-38. The methods emit code; see `gte_np.formats.weight_format.ProductStep`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

Value = Any  # of LLVM: a vector of 16 lanes, or a pair of them


@dataclass(frozen=True)  # once for all classes below: each would take half a millisecond of every start
class DotProduct(ABC):
    """accumulator + the dot product of the values in each lane of x and weights.

    `lanes` is how many of the 16 lanes of 32 bits one instruction takes.
    """

    lanes: int = 16

    def weights(self, emit: Any, words: Value) -> Value:
        """16 words of weights, ready to be multiplied."""
        return words

    def x(self, emit: Any, words: Value) -> Value:
        """A word of x in all lanes, ready to be multiplied."""
        return words

    @abstractmethod
    def add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """The accumulator after one step."""

    def start(self, emit: Any, weight_sums: Value) -> Value:
        """The accumulator of whole numbers before the first step; `weight_sums` are float32 sums of all weights."""
        return emit.words(0)


class DotBfloat16(DotProduct):
    """x86's instruction (AVX-512 BF16): it multiplies and adds the second values, then the first."""

    def add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """One instruction."""
        return emit.in_parts(16, "llvm.x86.avx512bf16.dpbf16ps.512", accumulator, weights, x)


class WidenedBfloat16(DotProduct):
    """The same by two multiply-adds of float32."""

    def weights(self, emit: Any, words: Value) -> Value:
        """The second and the first values, as float32."""
        return _bfloat16_halves(emit, words)

    def x(self, emit: Any, words: Value) -> Value:
        """The second and the first value, as float32."""
        return _bfloat16_halves(emit, words)

    def add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """Two multiply-adds."""
        for value, weight in zip(x, weights, strict=True):
            accumulator = emit.fma(value, weight, accumulator)
        return accumulator


def _bfloat16_halves(emit: Any, words: Value) -> tuple[Value, Value]:
    second = emit.builder.and_(words, emit.words(-0x10000))
    first = emit.builder.shl(words, emit.words(16))
    return emit.as_floats(second), emit.as_floats(first)


class DotInt8(DotProduct):
    """x86's instruction for four products of bytes (AVX-512 VNNI, or AVX-VNNI in registers of 8 lanes)."""

    def add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """One instruction a register."""
        return emit.in_parts(self.lanes, f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}", accumulator, x, weights)


class PairsOfInt16(DotProduct):
    """The same by x86's sums of two products of 16 bits, which no byte can overflow.

    The instruction that takes bytes is not used: its sums of two are cut off at 32767.
    """

    def weights(self, emit: Any, words: Value) -> Value:
        """Even and odd bytes, with their signs, in 16 bits."""
        shorts, eight = emit.as_shorts(words), emit.shorts(8)
        even = emit.builder.ashr(emit.builder.shl(shorts, eight), eight)
        return even, emit.builder.ashr(shorts, eight)

    def x(self, emit: Any, words: Value) -> Value:
        """Even and odd bytes, without signs, in 16 bits."""
        shorts = emit.as_shorts(words)
        return emit.builder.and_(shorts, emit.shorts(0xFF)), emit.builder.lshr(shorts, emit.shorts(8))

    def add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """Two multiplications and two additions a register."""
        name = {16: "avx512.pmaddw.d.512", 8: "avx2.pmadd.wd", 4: "sse2.pmadd.wd"}[self.lanes]
        for value, weight in zip(x, weights, strict=True):
            pairs = emit.in_parts(self.lanes, f"llvm.x86.{name}", value, weight, result=accumulator.type)
            accumulator = emit.builder.add(accumulator, pairs)
        return accumulator


class SignedDotInt8(DotProduct):
    """ARM's instruction for four products of signed bytes.

    x is unsigned, and 128 less is signed: the accumulators begin with what that leaves out.
    """

    def x(self, emit: Any, words: Value) -> Value:
        """128 less in each byte: its highest bit flipped."""
        return emit.builder.xor(words, emit.words(-0x7F7F7F80))

    def add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """One instruction a register."""
        octets = emit.as_octets(x), emit.as_octets(weights)
        return emit.in_parts(4, "llvm.aarch64.neon.sdot.v4i32.v16i8", accumulator, *octets)

    def start(self, emit: Any, weight_sums: Value) -> Value:
        """128 times the sum of all weights."""
        return emit.builder.fptosi(emit.builder.fmul(weight_sums, emit.floats(128.0)), emit.words(0).type)


class PlainInt8(DotProduct):
    """The same without any such instruction."""

    def add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """Four multiplications of 32 bits."""
        builder, top = emit.builder, emit.words(24)
        for shift in (0, 8, 16, 24):
            value = builder.and_(builder.lshr(x, emit.words(shift)), emit.words(0xFF))
            weight = builder.ashr(builder.shl(weights, emit.words(24 - shift)), top)
            accumulator = builder.add(accumulator, builder.mul(value, weight))
        return accumulator
