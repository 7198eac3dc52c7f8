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

    `lanes` is how many of the 16 lanes of 32 bits one instruction takes. `x_words` is how many words of x meet a word
    of weights: one, or two if values of x are kept in twice the bits. `rounding` is how sums are rounded, if not to
    the nearest number.
    """

    lanes: int = 16
    x_words: ClassVar[int] = 1
    rounding: ClassVar[str] = ""

    def weights(self, emit: Any, words: Value) -> Value:
        """16 words of weights, ready to be multiplied."""
        return words

    def x(self, emit: Any, *words: Value) -> Value:
        """`x_words` words of x, each in all lanes, ready to be multiplied."""
        return words[0]

    def store_x(self, emit: Any, values: Value, row: Value, column: Value) -> None:
        """Write 16 floats from 0 to 255, rounded, to a row of x, as integers."""
        emit.store_octets(values, emit.at(emit.as_bytes(row), column))

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

    def x(self, emit: Any, *words: Value) -> Value:
        """The second and the first value, as float32."""
        return _bfloat16_halves(emit, *words)

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

    The instruction that takes bytes is not used: its sums of two are cut off at 32767. Values of x are kept in 16
    bits, and so are weights once they are widened for several tiles. The first and the third of four neighbours are
    a word, and so are the second and the fourth: even and odd bytes take fewer instructions to widen than neighbours.

        a word of weights in bytes     in 16 bits, and x beside them
        [w0 w1 w2 w3]                  [w0 w2] [w1 w3]      [x0 x2] [x1 x3]
    """

    x_words = 2

    def weights(self, emit: Any, words: Value) -> Value:
        """Even and odd bytes, with their signs, in 16 bits."""
        shorts, eight = emit.as_shorts(words), emit.shorts(8)
        even = emit.builder.ashr(emit.builder.shl(shorts, eight), eight)
        return even, emit.builder.ashr(shorts, eight)

    def x(self, emit: Any, *words: Value) -> Value:
        """Even and odd values, in 16 bits."""
        return tuple(emit.as_shorts(word) for word in words)

    def store_x(self, emit: Any, values: Value, row: Value, column: Value) -> None:
        """In 16 bits."""
        emit.store_pairs(values, emit.at(row, emit.builder.lshr(column, emit.int64(1))))

    def add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """Two multiplications and two additions a register."""
        for value, weight in zip(x, weights, strict=True):
            accumulator = self.add_pairs(emit, value, weight, accumulator)
        return accumulator

    def add_pairs(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """The products of two values in each lane: a multiplication and an addition a register."""
        name = {16: "avx512.pmaddw.d.512", 8: "avx2.pmadd.wd", 4: "sse2.pmadd.wd"}[self.lanes]
        pairs = emit.in_parts(self.lanes, f"llvm.x86.{name}", x, weights, result=accumulator.type)
        return emit.builder.add(accumulator, pairs)


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

    def x(self, emit: Any, *words: Value) -> Value:
        """128 less in each byte: its highest bit flipped."""
        return emit.builder.xor(words[0], emit.words(-0x7F7F7F80))

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
