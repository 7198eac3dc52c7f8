"""Pointers: moving them, reading and writing vectors where they point, and what their types tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gte_np.kernels.language.emitter import Emitter
from gte_np.kernels.language.types import (
    FLOAT,
    INT8,
    INT16,
    INT32,
    INT64,
    LANES,
    WORDS,
    PanelType,
    float32,
    float_vector,
    kernel,
    pointer_to,
)


@intrinsic
def offset(typing: Any, pointer: Any, elements: Any) -> Any:
    """The pointer, moved by so many elements."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.intp), codegen


def _pointer_at(element: types.Type, value: ir.Type) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.inttoptr(arguments[0], value.as_pointer())

    return intrinsic(lambda typing, address: (pointer_to(element)(types.intp), codegen))


# The pointer to what lies at an address.
floats_at = _pointer_at(float32, FLOAT)
int32s_at = _pointer_at(types.int32, INT32)
int64s_at = _pointer_at(types.int64, INT64)


def _panel_at(kind: Callable[[Any], PanelType]) -> Any:
    def typed(typing: Any, floats: Any, packed: Any) -> Any:
        panel = pointer_to(kind(packed.dtype))

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return builder.bitcast(arguments[0], context.get_value_type(panel))

        return panel(floats, packed), codegen

    return intrinsic(typed)


# A pointer to float32 values, taken for a panel of the format of packed weights, or of that into which it is widened.
panel_like = _panel_at(lambda packed: packed)
widened_panel = _panel_at(lambda packed: PanelType(packed.format.widened(packed.target), packed.target))


@intrinsic
def record_at(typing: Any, records: Any, index: Any) -> Any:
    """A record of an array of them; to Numba a record is where it lies."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.gep(arguments[0], [arguments[1]])

    return records.dtype(records, types.intp), codegen


@intrinsic
def load(typing: Any, pointer: Any, index: Any) -> Any:
    """16 float32 values from `index` on."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        emit = Emitter(builder)
        return emit.load_floats(emit.at(*arguments))

    return float_vector(pointer_to(float32), types.intp), codegen


def _storing(write: Callable[..., None], element: ir.Type, vectors: int = 1) -> Any:
    """The intrinsic that writes vectors at an index, which counts elements of a type."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointer, index, *values = arguments
        emit = Emitter(builder)
        write(emit, *values, emit.at(builder.bitcast(pointer, element.as_pointer()), index))
        return context.get_dummy_value()

    signature = types.void(pointer_to(float32), types.intp, *[float_vector] * vectors)
    if vectors == 1:
        return intrinsic(lambda typing, pointer, index, value: (signature, codegen))
    return intrinsic(lambda typing, pointer, index, first, second: (signature, codegen))


store = _storing(Emitter.store_floats, FLOAT)  # 16 float32 values
store_bfloat16 = _storing(Emitter.store_bfloat16, INT16)  # 16 bfloat16 values, rounded, ties to even
store_uint8 = _storing(Emitter.store_octets, INT8)  # 16 bytes, of values from 0 to 255, rounded, ties to even
store_bfloat16_pairs = _storing(Emitter.store_bfloat16_pairs, INT32, vectors=2)  # 16 words of one of each vector


@intrinsic
def transpose_block(typing: Any, source: Any, source_stride: Any, target: Any, target_stride: Any) -> Any:
    """Write a block of 16 x 16 elements with rows and columns exchanged."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        source_pointer, source_step, target_pointer, target_step = arguments
        size = 2 if source.dtype == types.int16 else 4
        block = ir.VectorType(source_pointer.type.pointee, LANES).as_pointer()

        def row_of(pointer: ir.Value, step: ir.Value, row: int) -> ir.Value:
            return builder.bitcast(builder.gep(pointer, [builder.mul(step, INT64(row))]), block)

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
            rows[row] = builder.shuffle_vector(*pair, ir.Constant(WORDS, upper))
            rows[row | size] = builder.shuffle_vector(*pair, ir.Constant(WORDS, lower))
    return rows


# --- what the type of a pointer to packed weights tells, known when the kernel is compiled ------------------------


def known(answer: Callable[[PanelType], int]) -> Any:
    """A function of a pointer to packed weights, whose answer is a constant in compiled code."""

    def typed(typing: Any, weights: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return INT64(answer(weights.dtype))

        return types.intp(weights), codegen

    return intrinsic(typed)


panel_width = known(lambda panel: panel.target.panel)  # output features of a panel
tile_rows = known(lambda panel: panel.target.tile_rows)  # the most rows of a tile of float32
product_rows = known(lambda panel: panel.format.tile_rows(panel.target))  # of a tile of products in the format


@intrinsic
def widened_steps(typing: Any, packed: Any, steps: Any) -> Any:
    """How many steps, in words, a product with packed weights has that are widened."""
    weight_format = packed.dtype.format
    factor = weight_format.values_of_word // weight_format.widened(packed.dtype.target).values_of_word

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.mul(arguments[1], INT64(factor))

    return types.intp(packed, types.intp), codegen


@kernel
def smaller(x: int, y: int) -> int:
    """The smaller of two numbers; Numba's min is slow to compile."""
    return x if x < y else y


@kernel
def larger(x: int, y: int) -> int:
    """The larger of two numbers."""
    return x if x > y else y
