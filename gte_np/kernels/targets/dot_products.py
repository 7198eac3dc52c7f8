"""Dot products of words: what a target does with two bfloat16, or four bytes, in each of 16 lanes.

All of a kind give the same sums, whatever the instructions: those of whole numbers exactly, those of bfloat16 as long
as no product is below 1e-38 and both are rounded alike. The methods emit code; see
`gte_np.formats.weight_format.ProductStep`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

Value = Any  # of LLVM: a vector of 16 lanes, or a pair of them


@dataclass(frozen=True)  # once for all classes below: each would take half a millisecond of every start
class DotProduct(ABC):
    """accumulator + the dot product of the values in each lane of x and weights.

    `lanes` is how many of the 16 lanes of 32 bits one instruction takes. `rounding` is how sums are rounded, if not
    to the nearest number. `cuts_off` is whether large sums are cut off, so that the input features of each panel need
    an order of their own. `most_rows` are those of a tile, where intermediate sums need registers, too.
    """

    lanes: int = 16
    most_rows: int | None = None
    rounding: ClassVar[str] = ""
    cuts_off: ClassVar[bool] = False

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


class PairsOfBytes(DotProduct):
    """The same by x86's sums of two products of bytes, which are cut off at 32767: see `feature_pairs`."""

    cuts_off: ClassVar[bool] = True

    def add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """Two multiplications and an addition a register."""
        return self._add_shorts(emit, self._pairs(emit, x, weights), accumulator)

    def add_fours(self, emit: Any, x: list[Value], weights: list[Value], accumulator: Value) -> Value:
        """The products of two words each, added in 16 bits first: three multiplications and two additions."""
        first, second = (self._pairs(emit, *operands) for operands in zip(x, weights, strict=True))
        return self._add_shorts(emit, emit.builder.add(first, second), accumulator)

    def _pairs(self, emit: Any, x: Value, weights: Value) -> Value:
        """Sums of two products, in 16 bits."""
        name = {16: "avx512.pmaddubs.w.512", 8: "avx2.pmadd.ub.sw", 4: "ssse3.pmadd.ub.sw.128"}[self.lanes]
        octets, kind = (emit.as_octets(x), emit.as_octets(weights)), emit.shorts(1).type
        return emit.in_parts(self.lanes, f"llvm.x86.{name}", *octets, result=kind)

    def _add_shorts(self, emit: Any, shorts: Value, accumulator: Value) -> Value:
        """The accumulator and the sums of two neighbours."""
        name = {16: "avx512.pmaddw.d.512", 8: "avx2.pmadd.wd", 4: "sse2.pmadd.wd"}[self.lanes]
        sums = emit.in_parts(self.lanes, f"llvm.x86.{name}", shorts, emit.shorts(1), result=accumulator.type)
        return emit.builder.add(accumulator, sums)


class NeonProduct(DotProduct):
    """ARM's instructions, which all have the same operands."""

    instruction: ClassVar[str]

    def add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """One instruction a register."""
        octets = emit.as_octets(x), emit.as_octets(weights)
        return emit.in_parts(4, f"llvm.aarch64.neon.{self.instruction}", accumulator, *octets)


class SignedDotInt8(NeonProduct):
    """ARM's instruction for four products of signed bytes (FEAT_DotProd).

    x is unsigned, and 128 less is signed: the accumulators begin with what that leaves out.
    """

    instruction: ClassVar[str] = "sdot.v4i32.v16i8"

    def x(self, emit: Any, words: Value) -> Value:
        """128 less in each byte: its highest bit flipped."""
        return emit.builder.xor(words, emit.words(-0x7F7F7F80))

    def start(self, emit: Any, weight_sums: Value) -> Value:
        """128 times the sum of all weights."""
        return emit.builder.fptosi(emit.builder.fmul(weight_sums, emit.floats(128.0)), emit.words(0).type)


class PairsInt8(NeonProduct):
    """ARM's instruction for eight bytes of two rows, and of two output features (FEAT_I8MM).

    Four lanes have the first row's sums with both features, then the second row's; x and weights are two words each.
    """

    instruction: ClassVar[str] = "usmmla.v4i32.v16i8"


class OddBfloat16(NeonProduct):
    """ARM's instruction for two products of bfloat16 (FEAT_BF16).

    It rounds their sum, and then the accumulator, to odd: of the two numbers around it, to that whose last bit is 1.
    """

    instruction: ClassVar[str] = "bfdot.v4f32.v16i8"
    rounding: ClassVar[str] = "to odd"


class PairsBfloat16(OddBfloat16):
    """ARM's instruction for two rows and two output features, as `PairsInt8`, with the sums of `OddBfloat16`."""

    instruction: ClassVar[str] = "bfmmla.v4f32.v16i8"


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
