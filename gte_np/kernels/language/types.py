"""The types of values in kernels: vectors, pointers, and panels of packed weights.

A `FloatVector` is 16 float32 values, whatever the processor: LLVM puts them into one register of AVX-512, two of AVX2
or four of SSE or NEON. So kernels are plain functions of vectors, and a sum over lanes has the same order everywhere.

A pointer is Numba's CPointer; places in memory are counted in elements of its type. A pointer to packed weights has a
`PanelType`, which says in which format they are and for which target the kernel is compiled: this is how a kernel
that gets one knows both, at no cost when it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from zlib import crc32

from llvmlite import ir
from numba import njit, types
from numba.extending import models, register_model

from gte_np.formats import WeightFormat
from gte_np.kernels.targets import Target

LANES = 16  # float32 values of a vector, on every processor

# Types of values inside of kernels. Python sees none of them.
Pointer = Any
Vector = Any

Function = TypeVar("Function", bound=Callable[..., Any])

INT8 = ir.IntType(8)
INT16 = ir.IntType(16)
INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
FLOAT = ir.FloatType()
BYTE_POINTER = INT8.as_pointer()
FLOATS = ir.VectorType(FLOAT, LANES)
WORDS = ir.VectorType(INT32, LANES)
SHORTS = ir.VectorType(INT16, LANES)
OCTETS = ir.VectorType(INT8, LANES)


def kernel(function: Function) -> Function:
    """Compile a function that only other compiled functions call. Division by zero gives inf or NaN, as in C."""
    compiled: Function = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    return compiled


class FloatVectorType(types.Type):
    """The Numba type of 16 float32 values."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


@register_model(FloatVectorType)
class _FloatVectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Any) -> None:
        super().__init__(manager, vector, FLOATS)


class PanelType(types.Type):
    """The Numba type of a word of packed weights in a format, in a kernel for a target."""

    def __init__(self, weight_format: WeightFormat, target: Target) -> None:
        self.format = weight_format
        self.target = target
        super().__init__(name=f"{weight_format.name} {target.name} {crc32(str(target).encode()):08x}")


@register_model(PanelType)
class _PanelModel(models.PrimitiveModel):
    def __init__(self, manager: Any, panel: Any) -> None:
        bits = 8 * panel.format.word.itemsize
        super().__init__(manager, panel, FLOAT if panel.format.word.kind == "f" else ir.IntType(bits))


float_vector = FloatVectorType()
float32 = types.float32


def pointer_to(element: types.Type) -> types.CPointer:
    """The type of a pointer."""
    return types.CPointer(element)


def panel_pointer(weight_format: WeightFormat, target: Target) -> types.CPointer:
    """The type of a pointer to packed weights."""
    return pointer_to(PanelType(weight_format, target))
