"""The functions that Python calls, with their types, and their way to object code for any target."""

from __future__ import annotations

import re
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
from gte_np.kernels.operations.feature_order import order_features
from gte_np.kernels.operations.matrix_unit import multiply_tiles
from gte_np.kernels.operations.pack import pack
from gte_np.kernels.operations.program import run_program
from gte_np.kernels.operations.records import BATCH, LAYOUT, ORDERING, RUN, STEP
from gte_np.kernels.runtime.unit_check import unit_functions
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


def _order_features(natural: Pointer, panels: Pointer, orders: Pointer, sizes: Pointer, layout: Pointer) -> None:
    order_features(natural, panels, orders, sizes, record_at(layout, 0))


def _order_features_entry() -> Entry:
    octets, layout = pointer_to(types.int8), pointer_to(numba.from_dtype(ORDERING))
    return Entry(_order_features, (octets, octets, pointer_to(types.int32), pointer_to(types.float32), layout))


def _multiply_tiles(x: Pointer, weights: Pointer, sums: Pointer) -> None:
    multiply_tiles(x, weights, sums)


def _multiply_tiles_entry(weight_format: WeightFormat, target: Target) -> Entry:
    floats = pointer_to(types.float32)
    return Entry(_multiply_tiles, (floats, panel_pointer(weight_format, target), floats))


def entry_names(target: Target) -> list[str]:
    """The names of all functions that Python calls, for a target."""
    names = [f"encode_{each.name}" for each in FORMATS] + list(_WORDS) + list(unit_functions(target))
    return [*names, "order_features"] if _orders_features(target) else names


def _orders_features(target: Target) -> bool:
    return any(each.orders_features(target) for each in FORMATS)


def entries(target: Target) -> dict[str, Entry]:
    """Name -> function, for a target."""
    encoders = [_encode_entry(each, target) for each in FORMATS]
    packers = [_pack_entry(word) for word in _WORDS.values()]
    in_tiles = [_multiply_tiles_entry(each, target) for each in unit_functions(target).values()]
    orders = [_order_features_entry()] if _orders_features(target) else []
    return dict(zip(entry_names(target), encoders + packers + in_tiles + orders, strict=True))


def compile_entry(name: str, entry: Entry, target: Target) -> bytes:
    """The object code of a function, under that name, for a target, which need not be the processor at hand.

    The code refers to nothing outside of it, and LLVM loads it into this process. What a process has compiled before
    changes no byte of it.
    """
    return _emit(name, entry, target_machine(target))


def compile_for_linker(name: str, entry: Entry, target: Target) -> bytes:
    """The same as position-independent code, to be linked into a shared object for Linux."""
    triple = f"{target.machine}-unknown-linux-gnu"
    return _emit(name, entry, _machine(target, triple, reloc="pic", codemodel="small", jit=False))


def target_machine(target: Target) -> Any:
    """What generates code for a target that this process loads."""
    system = llvm.get_process_triple().split("-", 1)[1]  # vendor, system and format: what code is loaded by
    return _machine(target, f"{target.machine}-{system}", reloc="default", codemodel="jitdefault", jit=True)


def _machine(target: Target, triple: str, **model: Any) -> Any:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=target.cpu, features=target.feature_list, opt=3, **model
    )


def _emit(name: str, entry: Entry, machine: Any) -> bytes:
    code: bytes = machine.emit_object(optimized_module(name, entry, machine))
    return code


def optimized_module(name: str, entry: Entry, machine: Any) -> Any:
    """The LLVM module with a function, under that name, and all that it calls, for a target machine.

    Numba turns them into LLVM's language; it optimises each callee, and again in each caller, so that is switched
    off, and LLVM optimises the whole once.
    """
    with global_compiler_lock, _no_code_for_this_process():  # nobody else compiles meanwhile
        module = llvm.parse_assembly(_renamed(*_translate(entry), name))
        for function in module.functions:
            if function.name != name and not function.is_declaration:
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


# A function in LLVM's language, with its name, and where a function or a global variable is named.
_DEFINITION = re.compile(r"^define [^\n]*?@([\w.$-]+)\(.*?^}\n", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"@([\w.$-]+)")
_NUMBAS_VARIABLE = re.compile(r"^@_ZN08NumbaEnv.*\n", re.MULTILINE)  # for exceptions, of which there are none


def _renamed(source: str, symbol: str, name: str) -> str:
    """A module with functions in the order in which the one named `symbol`, now `name`, first comes to them.

    They are named by their numbers: Numba's names count what was compiled before and hold addresses, and names and
    order would find their way into the object code.
    """
    definitions = {found[1]: found[0] for found in _DEFINITION.finditer(source)}
    names, waiting = dict[str, str](), [symbol]
    while waiting:
        function = waiting.pop()
        if function not in names:
            names[function] = f"function_{len(names)}" if names else name
            called = dict.fromkeys(_NAME.findall(definitions[function]))
            waiting += [other for other in reversed(called) if other in definitions]
    others = _NUMBAS_VARIABLE.sub("", _DEFINITION.sub("", source))
    text = "".join([others, *(definitions[function] for function in names)])
    return _NAME.sub(lambda found: "@" + names.get(found[1], found[1]), text)


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
