"""Arithmetic on vectors of 16 float32 values.

Nothing here reorders arithmetic: an operation does in each lane what IEEE 754 says. `fma` alone is looser: it rounds
once where the target has the instruction (all but the oldest) and twice where it has not, always the same way on one
target.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from llvmlite import ir
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.core.typing.templates import signature as typing_signature
from numba.extending import intrinsic, lower_builtin

from gte_np.kernels.language.emitter import Emitter, filled
from gte_np.kernels.language.types import FLOATS, INT32, INT64, LANES, WORDS, float32, float_vector


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """A vector of one float32 value."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return Emitter(builder).broadcast(arguments[0])

    return float_vector(float32), codegen


def _lanewise(build: Callable[..., ir.Value], inputs: int) -> Any:
    """The intrinsic that builds one vector from so many vectors."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return build(builder, *arguments)

    if inputs == 1:
        return intrinsic(lambda typing, x: (float_vector(float_vector), codegen))
    if inputs == 2:
        return intrinsic(lambda typing, x, y: (float_vector(float_vector, float_vector), codegen))
    return intrinsic(lambda typing, x, y, z: (float_vector(*[float_vector] * 3), codegen))


def _fma(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    return Emitter(builder).fma(x, y, z)


def _larger(builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return Emitter(builder).larger(x, y)


def _smaller(builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return Emitter(builder).smaller(x, y)


def _scale_by_power_of_two(builder: ir.IRBuilder, x: ir.Value, exponent: ir.Value) -> ir.Value:
    shift = filled(23, WORDS)  # to where a float32 has its exponent; higher bits fall off
    exponents = builder.shl(builder.bitcast(exponent, WORDS), shift)
    return builder.bitcast(builder.add(builder.bitcast(x, WORDS), exponents), FLOATS)


fma = _lanewise(_fma, 3)
maximum = _lanewise(_larger, 2)  # of x and y; x if that is NaN
minimum = _lanewise(_smaller, 2)
# x times 2^n, where `exponent` has the whole number n in its lowest bits, and the result is a normal number.
scale_by_power_of_two = _lanewise(_scale_by_power_of_two, 2)


def _operator(symbol: Any, build: Callable[..., ir.Value]) -> None:
    """Define what an operator does with two vectors."""

    class Template(ConcreteTemplate):
        cases: ClassVar = [typing_signature(float_vector, float_vector, float_vector)]

    infer_global(symbol)(Template)
    lower_builtin(symbol, float_vector, float_vector)(
        lambda context, builder, signature, arguments: build(builder, *arguments)
    )


_operator(operator.add, ir.IRBuilder.fadd)
_operator(operator.sub, ir.IRBuilder.fsub)
_operator(operator.mul, ir.IRBuilder.fmul)


def polynomial(coefficients: Sequence[float]) -> Any:
    """A function of a vector: the polynomial with these coefficients, lowest first."""

    def horner(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        *others, value = map(filled, coefficients)
        for coefficient in reversed(others):
            value = Emitter(builder).fma(value, x, coefficient)
        return value

    return _lanewise(horner, 1)


@intrinsic
def first_lanes(typing: Any, value: Any, count: Any, others: Any) -> Any:
    """The first `count` lanes of a vector, and the float32 `others` in those behind them."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        vector, limit, filler = arguments
        emit = Emitter(builder)
        lanes = ir.Constant(WORDS, list(range(LANES)))
        kept = builder.icmp_signed("<", lanes, emit.broadcast(builder.trunc(limit, INT32)))
        return builder.select(kept, vector, emit.broadcast(filler))

    return float_vector(float_vector, types.intp, float32), codegen


@intrinsic
def where_equal(typing: Any, x: Any, y: Any, chosen: Any, others: Any) -> Any:
    """The lanes of `chosen` where those of x and y are equal, and of `others` where they are not."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.select(builder.fcmp_ordered("==", *arguments[:2]), *arguments[2:])

    return float_vector(*[float_vector] * 4), codegen


@intrinsic
def find_lane(typing: Any, x: Any, value: Any) -> Any:
    """The number of the first lane of x that is equal to a float32; LANES if none is."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        vector, wanted = arguments
        equal = builder.fcmp_ordered("==", vector, Emitter(builder).broadcast(wanted))
        mask = builder.zext(builder.bitcast(equal, ir.IntType(LANES)), INT64)
        return builder.cttz(builder.or_(mask, INT64(1 << LANES)), ir.IntType(1)(1))

    return types.intp(float_vector, float32), codegen


def _fold(combine: Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]) -> Any:
    """The intrinsic that combines lanes in halves: 8 with 8, 4 with 4, 2 with 2, 1 with 1."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        vector = arguments[0]
        for half in (8, 4, 2, 1):
            picks = (ir.Constant(ir.VectorType(INT32, half), list(range(at, at + half))) for at in (0, half))
            lower, upper = (builder.shuffle_vector(vector, vector, pick) for pick in picks)
            vector = combine(builder, lower, upper)
        return builder.extract_element(vector, INT32(0))

    return intrinsic(lambda typing, x: (float32(float_vector), codegen))


sum_lanes = _fold(ir.IRBuilder.fadd)
max_lanes = _fold(_larger)
min_lanes = _fold(_smaller)
