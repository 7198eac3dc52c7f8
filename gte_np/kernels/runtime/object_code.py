"""From object code to a function that Python can call. Neither Numba nor a compiler takes part."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import llvmlite.binding as llvm

_engines: list[Any] = []  # code lives as long as its engine

# Numba's functions begin with two arguments: where the result is to be written, and an exception. There are neither.
_NOTHING = ctypes.c_int64()
_NOWHERE = ctypes.addressof(_NOTHING)


def load_function(code: bytes, name: str, arguments: int) -> Callable[..., Any]:
    """The function of this name, of so many 64-bit arguments; other Python threads run while it does."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * (2 + arguments))
    return partial(prototype(engine.get_function_address(name)), _NOWHERE, _NOWHERE)
