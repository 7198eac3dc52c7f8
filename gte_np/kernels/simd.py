"""Pointers and vectors in Numba: what the kernels are written with.

A `FloatVector` is 16 float32 values, whatever the processor: LLVM puts them into one register of AVX-512, two of AVX2
or four of SSE or NEON. So the kernels are plain functions of vectors, and a sum over lanes has the same order
everywhere. A pointer is Numba's CPointer; places in memory are counted in elements of its type.

Nothing here reorders arithmetic: an operation does in each lane what IEEE 754 says. `fma` alone is looser: it rounds
once where the processor has the instruction (all but the oldest) and twice where it has not, always the same way on
one processor.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.core.typing.templates import signature as typing_signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from gte_np.kernels.processor import LANES as LANES
from gte_np.kernels.processor import processor

_INT8 = ir.IntType(8)
_INT16 = ir.IntType(16)
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_FLOAT = ir.FloatType()
_BYTES = _INT8.as_pointer()
_FLOATS = ir.VectorType(_FLOAT, LANES)
_HALVES = ir.VectorType(ir.HalfType(), LANES)
_OCTETS = ir.VectorType(_INT8, LANES)
_SHORTS = ir.VectorType(_INT16, LANES)
_INTEGERS = ir.VectorType(_INT32, LANES)

Function = TypeVar("Function", bound=Callable[..., Any])

# Adding it leaves the nearest whole number in the low bits of a float32: beyond 2^23 there are no fractions.
ROUNDER = 1.5 * 2**23

# Types of values inside of kernels. Python sees none of them.
Pointer = Any
Vector = Any


def kernel(function: Function) -> Function:
    """Compile a function that only other compiled functions call. Division by zero gives inf or NaN, as in C."""
    compiled: Function = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    return compiled


# --- types --------------------------------------------------------------------------------------------------------


class FloatVectorType(types.Type):
    """The Numba type of 16 float32 values."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


@register_model(FloatVectorType)
class _FloatVectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Any) -> None:
        super().__init__(manager, vector, _FLOATS)


class StoredType(types.Type):
    """The Numba type of a value that is kept in fewer than 32 bits; `load` widens it to float32."""

    def __init__(self, name: str, bits: ir.IntType) -> None:
        self.bits = bits
        super().__init__(name=name)


class PackedType(StoredType):
    """The Numba type of a 32-bit word of several values of a matrix: 2 bfloat16, or 4 int8."""

    def __init__(self, name: str, values: int) -> None:
        self.values = values
        super().__init__(name, _INT32)


@register_model(StoredType)
@register_model(PackedType)
class _StoredModel(models.PrimitiveModel):
    def __init__(self, manager: Any, stored: Any) -> None:
        super().__init__(manager, stored, stored.bits)


float_vector = FloatVectorType()
float32 = types.float32
# By the names of `gte_np.checkpoint.stored_tensor`.
STORED_TYPES = {
    "float32": float32,
    "float16": StoredType("float16", _INT16),
    "bfloat16": StoredType("bfloat16", _INT16),
    "int8": StoredType("int8", _INT8),
}
# What the weights of linear layers may be; by the last two, x has as many values in a word.
MATRIX_TYPES = {
    "float32": float32,
    "float16": STORED_TYPES["float16"],
    "bfloat16": STORED_TYPES["bfloat16"],
    "bfloat16x2": PackedType("bfloat16x2", 2),
    "int8x4": PackedType("int8x4", 4),
}


def pointer_to(element: types.Type) -> types.CPointer:
    """The type of a pointer."""
    return types.CPointer(element)


# --- building blocks of intrinsics --------------------------------------------------------------------------------


def filled(value: float, vector: ir.VectorType = _FLOATS) -> ir.Constant:
    """A constant vector of one value."""
    return ir.Constant(vector, [value] * vector.count)


def _call(builder: ir.IRBuilder, name: str, *arguments: ir.Value) -> ir.Value:
    """Call an intrinsic of LLVM that takes and gives float vectors of one length."""
    vector = arguments[0].type
    kind = ir.FunctionType(vector, [vector] * len(arguments))
    return builder.call(
        cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{vector.count}f32"), arguments
    )


def multiply_add(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """x * y + z."""
    return _call(builder, "fmuladd", x, y, z)


def broadcast(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """A vector of one value."""
    undefined = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, value, _INT32(0))
    return builder.shuffle_vector(first, undefined, filled(0, _INTEGERS))


def element_at(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value | int) -> ir.Value:
    """The pointer to an element."""
    return builder.gep(pointer, [_INT64(index) if isinstance(index, int) else index])


def load_vector(builder: ir.IRBuilder, pointer: ir.Value, element: types.Type) -> ir.Value:
    """16 elements as float32; the address need only be aligned to an element."""
    if element == float32:
        return builder.load(builder.bitcast(pointer, _FLOATS.as_pointer()), align=4)
    if element == STORED_TYPES["int8"]:
        octets = builder.load(builder.bitcast(pointer, _OCTETS.as_pointer()), align=1)
        return builder.sitofp(builder.sext(octets, _INTEGERS), _FLOATS)
    if element == STORED_TYPES["float16"] and processor().has_float16:
        return builder.fpext(builder.load(builder.bitcast(pointer, _HALVES.as_pointer()), align=2), _FLOATS)
    bits = builder.zext(builder.load(builder.bitcast(pointer, _SHORTS.as_pointer()), align=2), _INTEGERS)
    if element == STORED_TYPES["bfloat16"]:  # the upper half of a float32
        return builder.bitcast(builder.shl(bits, filled(16, _INTEGERS)), _FLOATS)
    return _widen_float16(builder, bits)


def _widen_float16(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    """Bits of finite float16 values, in 32-bit lanes, as float32: for processors without an instruction for it.

    Exponent and fraction move to their places in a float32, which leaves the exponent too small by 127 - 15; the
    product corrects that, exactly, for subnormal numbers as well.
    """
    magnitude = builder.shl(builder.and_(bits, filled(0x7FFF, _INTEGERS)), filled(13, _INTEGERS))
    scaled = builder.fmul(builder.bitcast(magnitude, _FLOATS), filled(2.0**112))
    sign = builder.shl(builder.and_(bits, filled(0x8000, _INTEGERS)), filled(16, _INTEGERS))
    return builder.bitcast(builder.or_(builder.bitcast(scaled, _INTEGERS), sign), _FLOATS)


def store_vector(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value) -> None:
    """Write 16 float32 values; the address need only be aligned to one."""
    builder.store(value, builder.bitcast(pointer, _FLOATS.as_pointer()), align=4)


def prefetch_bytes(builder: ir.IRBuilder, pointer: ir.Value, distance: int) -> None:
    """Ask for the cache line so many bytes behind the pointer; any address will do."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTES, _INT32, _INT32, _INT32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    address = element_at(builder, builder.bitcast(pointer, _BYTES), distance)
    builder.call(function, [address, _INT32(0), _INT32(2), _INT32(1)])  # to read, keep in the second cache, data


# --- memory -------------------------------------------------------------------------------------------------------


@intrinsic
def offset(typing: Any, pointer: Any, elements: Any) -> Any:
    """The pointer, moved by so many elements."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return element_at(builder, *arguments)

    return pointer(pointer, types.intp), codegen


def _pointer_at(element: types.Type, value: ir.Type) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.inttoptr(arguments[0], value.as_pointer())

    return intrinsic(lambda typing, address: (pointer_to(element)(types.intp), codegen))


# The pointer to what lies at an address.
floats_at = _pointer_at(float32, _FLOAT)
float16_at = _pointer_at(STORED_TYPES["float16"], _INT16)
bfloat16_at = _pointer_at(STORED_TYPES["bfloat16"], _INT16)
int8_at = _pointer_at(STORED_TYPES["int8"], _INT8)
integers_at = _pointer_at(types.int32, _INT32)
words_at = _pointer_at(types.int64, _INT64)


@intrinsic
def record_at(typing: Any, records: Any, index: Any) -> Any:
    """A record of an array of them; to Numba a record is where it lies."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return element_at(builder, *arguments)

    return records.dtype(records, types.intp), codegen


@intrinsic
def load(typing: Any, pointer: Any, index: Any) -> Any:
    """16 elements from `index` on, as float32."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return load_vector(builder, element_at(builder, *arguments), pointer.dtype)

    return float_vector(pointer, types.intp), codegen


@intrinsic
def store(typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Write 16 float32 values from `index` on."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        store_vector(builder, arguments[2], element_at(builder, *arguments[:2]))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, float_vector), codegen


@intrinsic
def store_octets(typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Write 16 values from 0 to 255 as bytes, rounded, ties to even; `index` counts bytes."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        target, position, values = arguments
        octets = builder.trunc(builder.bitcast(builder.fadd(values, filled(ROUNDER)), _INTEGERS), _OCTETS)
        address = element_at(builder, builder.bitcast(target, _BYTES), position)
        builder.store(octets, builder.bitcast(address, _OCTETS.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, float_vector), codegen


@intrinsic
def store_bfloat16(typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Write the bfloat16 values nearest to 16 values, ties to even; `index` counts bfloat16 values."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        target, position, vector = arguments
        bits = builder.bitcast(vector, _INTEGERS)
        half = filled(16, _INTEGERS)
        odd = builder.and_(builder.lshr(bits, half), filled(1, _INTEGERS))
        rounded = builder.add(bits, builder.add(odd, filled(0x7FFF, _INTEGERS)))
        shorts = builder.trunc(builder.lshr(rounded, half), _SHORTS)
        address = element_at(builder, builder.bitcast(target, _INT16.as_pointer()), position)
        builder.store(shorts, builder.bitcast(address, _SHORTS.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, float_vector), codegen


@intrinsic
def transpose_block(typing: Any, source: Any, source_stride: Any, target: Any, target_stride: Any) -> Any:
    """Write a block of 16 x 16 elements with rows and columns exchanged."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        source_pointer, source_step, target_pointer, target_step = arguments
        size = 4 if source.dtype == float32 else 2
        block = ir.VectorType(source_pointer.type.pointee, LANES).as_pointer()

        def row_of(pointer: ir.Value, step: ir.Value, row: int) -> ir.Value:
            return builder.bitcast(element_at(builder, pointer, builder.mul(step, _INT64(row))), block)

        rows = [builder.load(row_of(source_pointer, source_step, row), align=size) for row in range(LANES)]
        for row, value in enumerate(_transpose(builder, rows)):
            builder.store(value, row_of(target_pointer, target_step, row), align=size)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), codegen


def _transpose(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """Exchange quadrants of 8 x 8, then in each quadrant those of 4 x 4, of 2 x 2, of 1."""
    for size in (8, 4, 2, 1):
        upper = [lane if not lane & size else LANES + (lane ^ size) for lane in range(LANES)]
        lower = [lane | size if not lane & size else LANES + lane for lane in range(LANES)]
        for row in (row for row in range(LANES) if not row & size):
            pair = rows[row], rows[row | size]
            rows[row] = builder.shuffle_vector(*pair, ir.Constant(_INTEGERS, upper))
            rows[row | size] = builder.shuffle_vector(*pair, ir.Constant(_INTEGERS, lower))
    return rows


# --- arithmetic ---------------------------------------------------------------------------------------------------


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """A vector of one float32 value."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return broadcast(builder, arguments[0])

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


def _larger(builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return builder.select(builder.fcmp_ordered("<", x, y), y, x)  # NaN if x is NaN


def _smaller(builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return builder.select(builder.fcmp_ordered(">", x, y), y, x)


def _scale_by_power_of_two(builder: ir.IRBuilder, x: ir.Value, exponent: ir.Value) -> ir.Value:
    shift = filled(23, _INTEGERS)  # to where a float32 has its exponent; higher bits fall off
    exponents = builder.shl(builder.bitcast(exponent, _INTEGERS), shift)
    return builder.bitcast(builder.add(builder.bitcast(x, _INTEGERS), exponents), _FLOATS)


fma = _lanewise(multiply_add, 3)
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
    """A function of a vector: the polynomial with these coefficients, lowest first, by Horner's rule."""

    def build(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        *others, value = (filled(float(coefficient)) for coefficient in coefficients)
        for coefficient in reversed(others):
            value = multiply_add(builder, value, x, coefficient)
        return value

    return _lanewise(build, 1)


@intrinsic
def first_lanes(typing: Any, value: Any, count: Any, others: Any) -> Any:
    """The first `count` lanes of a vector, and the float32 `others` in those behind them."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        vector, limit, filler = arguments
        lanes = ir.Constant(_INTEGERS, list(range(LANES)))
        kept = builder.icmp_signed("<", lanes, broadcast(builder, builder.trunc(limit, _INT32)))
        return builder.select(kept, vector, broadcast(builder, filler))

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
        equal = builder.fcmp_ordered("==", vector, broadcast(builder, wanted))
        mask = builder.zext(builder.bitcast(equal, ir.IntType(LANES)), _INT64)
        return builder.cttz(builder.or_(mask, _INT64(1 << LANES)), ir.IntType(1)(1))

    return types.intp(float_vector, float32), codegen


def _fold(combine: Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]) -> Any:
    """The intrinsic that combines lanes in halves: 8 with 8, 4 with 4, 2 with 2, 1 with 1."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        vector = arguments[0]
        for half in (8, 4, 2, 1):
            picks = (ir.Constant(ir.VectorType(_INT32, half), list(range(at, at + half))) for at in (0, half))
            lower, upper = (builder.shuffle_vector(vector, vector, pick) for pick in picks)
            vector = combine(builder, lower, upper)
        return builder.extract_element(vector, _INT32(0))

    return intrinsic(lambda typing, x: (float32(float_vector), codegen))


sum_lanes = _fold(ir.IRBuilder.fadd)
max_lanes = _fold(_larger)
min_lanes = _fold(_smaller)


def _known(answer: Callable[[types.Type], int]) -> Any:
    """The intrinsic that tells a fact about what a pointer points to, known when the kernel is compiled."""

    def typed(typing: Any, pointer: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return _INT64(answer(pointer.dtype))

        return types.intp(pointer), codegen

    return intrinsic(typed)


is_float32 = _known(lambda element: int(element == float32))
values_of_word = _known(lambda element: element.values if isinstance(element, PackedType) else 1)


@kernel
def smaller(x: int, y: int) -> int:
    """The smaller of two numbers; Numba's min is slow to compile."""
    return x if x < y else y


@kernel
def larger(x: int, y: int) -> int:
    """The larger of two numbers."""
    return x if x > y else y
