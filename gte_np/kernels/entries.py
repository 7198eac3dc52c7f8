"""The functions that Python calls, with their types, and their way to object code."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import llvmlite.binding as llvm
import numba
from numba import types
from numba.core.compiler_lock import global_compiler_lock

from gte_np.kernels.layers import encode
from gte_np.kernels.pack import pack
from gte_np.kernels.plan import LAYER, PLAN
from gte_np.kernels.processor import Processor
from gte_np.kernels.simd import MATRIX_TYPES, Pointer, pointer_to, record_at


class Entry(NamedTuple):
    """A function and the types of its arguments; it returns nothing."""

    function: Callable[..., None]
    arguments: tuple[types.Type, ...]


def _encode(plan: Pointer, layers: Pointer, matrices: Pointer, rank: int) -> None:
    encode(record_at(plan, 0), layers, matrices, rank)


def _pack(source: Pointer, stride: int, outputs: int, inputs: int, panels: Pointer, panel_size: int) -> None:
    pack(source, stride, outputs, inputs, panels, panel_size)


def _encode_entry(matrices: types.Type) -> Entry:
    plan, layers = (pointer_to(numba.from_dtype(record)) for record in (PLAN, LAYER))
    return Entry(_encode, (plan, layers, pointer_to(matrices), types.int64))


def _pack_entry(stored: types.Type) -> Entry:
    return Entry(_pack, (pointer_to(stored), *[types.int64] * 3, pointer_to(stored), types.int64))


ENTRIES = {
    **{f"encode_{name}": _encode_entry(matrices) for name, matrices in MATRIX_TYPES.items()},
    # Words of several values are packed as float32 is, and bfloat16 as float16.
    **{f"pack_{name}": _pack_entry(MATRIX_TYPES[name]) for name in ("float32", "float16")},
}


def compile_entry(name: str, entry: Entry, processor: Processor) -> bytes:
    """The object code of a function, under that name, for a processor.

    Numba turns the function and all that it calls into LLVM's language; it optimises each callee, and again in each
    caller, so that is switched off, and LLVM optimises the whole once. The code refers to nothing outside of it.
    """
    signature = types.void(*entry.arguments)
    with global_compiler_lock:  # nobody else compiles while the level is changed
        level, numba.config.OPT = numba.config.OPT, 0
        try:
            compiled = numba.njit(signature, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(
                entry.function
            ).overloads[entry.arguments]
        finally:
            numba.config.OPT = level
        return _emit(compiled.library.get_llvm_str(), compiled.fndesc.llvm_func_name, name, processor)


def _emit(source: str, symbol: str, name: str, processor: Processor) -> bytes:
    module = llvm.parse_assembly(source)
    for function in module.functions:
        if function.name == symbol:
            function.name = name
        elif not function.is_declaration:
            function.linkage = "internal"  # so that what is inlined everywhere is left out
    machine = llvm.Target.from_triple(processor.triple).create_target_machine(
        cpu=processor.name,
        features=processor.features,
        opt=3,
        reloc="default",
        codemodel="jitdefault",
        jit=True,
    )
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = False  # the vectors are in the source
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    code: bytes = machine.emit_object(module)
    return code
