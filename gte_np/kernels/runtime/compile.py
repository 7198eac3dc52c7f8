"""The functions that Python calls, with their types, and their way to object code for any target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numba
from numba import types
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.cpu import CPUContext

from gte_np.formats import FORMATS, WeightFormat
from gte_np.kernels.language.memory import record_at
from gte_np.kernels.language.types import Pointer, panel_pointer, pointer_to
from gte_np.kernels.operations.pack import pack
from gte_np.kernels.operations.program import run_program
from gte_np.kernels.operations.records import BATCH, LAYOUT, RUN, STEP
from gte_np.kernels.targets import Target


class Entry(NamedTuple):
    """A function and the types of its arguments; it returns nothing."""

    function: Callable[..., None]
    arguments: tuple[types.Type, ...]


def _encode(run: Pointer, program: Pointer, batch: Pointer, weights: Pointer, rank: int) -> None:
    run_program(record_at(run, 0), program, record_at(batch, 0), weights, rank)


def _pack(source: Pointer, panels: Pointer, layout: Pointer) -> None:
    pack(source, panels, record_at(layout, 0))


def _encode_entry(weight_format: WeightFormat, target: Target) -> Entry:
    run, program, batch = (pointer_to(numba.from_dtype(record)) for record in (RUN, STEP, BATCH))
    return Entry(_encode, (run, program, batch, panel_pointer(weight_format, target), types.int64))


def _pack_entry(word: types.Type) -> Entry:
    return Entry(_pack, (pointer_to(word), pointer_to(word), pointer_to(numba.from_dtype(LAYOUT))))


_WORDS = {"pack_4_bytes": types.int32, "pack_2_bytes": types.int16}


def entry_names() -> list[str]:
    """The names of all functions that Python calls."""
    return [f"encode_{weight_format.name}" for weight_format in FORMATS] + list(_WORDS)


def entries(target: Target) -> dict[str, Entry]:
    """Name -> function, for a target."""
    encoders = [_encode_entry(weight_format, target) for weight_format in FORMATS]
    return dict(zip(entry_names(), encoders + [_pack_entry(word) for word in _WORDS.values()], strict=True))


def compile_entry(name: str, entry: Entry, target: Target) -> bytes:
    """The object code of a function, under that name, for a target, which need not be the processor at hand.

    The code refers to nothing outside of it.
    """
    machine = target_machine(target)
    code: bytes = machine.emit_object(optimized_module(name, entry, machine))
    return code


def target_machine(target: Target) -> Any:
    """What generates code for a target."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    system = llvm.get_process_triple().split("-", 1)[1]  # vendor, system and format: what code is loaded by
    return llvm.Target.from_triple(f"{target.machine}-{system}").create_target_machine(
        cpu=target.cpu, features=target.feature_list, opt=3, reloc="default", codemodel="jitdefault", jit=True
    )


def optimized_module(name: str, entry: Entry, machine: Any) -> Any:
    """The LLVM module with a function, under that name, and all that it calls, for a target machine.

    Numba turns them into LLVM's language; it optimises each callee, and again in each caller, so that is switched
    off, and LLVM optimises the whole once.
    """
    with global_compiler_lock, _no_code_for_this_process():  # nobody else compiles meanwhile
        source, symbol = _translate(entry)
        module = llvm.parse_assembly(source)
        for function in module.functions:
            if function.name == symbol:
                function.name = name
            elif not function.is_declaration:
                function.linkage = "internal"  # so that what is inlined everywhere is left out
        _optimize(module, machine)
    return module


def _translate(entry: Entry) -> tuple[str, str]:
    """A function and all that it calls in LLVM's language, and the name that it has there."""
    compile_for = numba.njit(
        types.void(*entry.arguments), error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
    )
    compiled = compile_for(entry.function).overloads[entry.arguments]
    return compiled.library.get_llvm_str(), compiled.fndesc.llvm_func_name


@contextmanager
def _no_code_for_this_process() -> Iterator[None]:
    """Keep Numba from generating machine code for the processor at hand, which may not have the instructions."""
    replacements: list[tuple[Any, str, Any]] = [
        (JITCPUCodegen, "_add_module", lambda *arguments: None),
        (JITCodeLibrary, "_finalize_specific", lambda *arguments: None),
        (CPUContext, "get_executable", _finalize),
        (numba.config, "OPT", 0),
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replacements]
    try:
        for owner, name, replacement in replacements:
            setattr(owner, name, replacement)
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def _finalize(context: Any, library: Any, *others: Any) -> Callable[..., Any]:
    """Link what a function calls. Numba tells functions apart by the built-in one that is returned, never called."""
    library._ensure_finalized()
    return [].append


def _optimize(module: Any, machine: Any) -> None:
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = False  # the vectors are in the source
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
