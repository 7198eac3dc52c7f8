"""From object code to a function that Python can call, by LLVM's loader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm

from gte_np.kernels.runtime.native_call import native_call

_engines: list[Any] = []  # code lives as long as its engine


def load_function(code: bytes, name: str, arguments: int) -> Callable[..., Any]:
    """The function of this name, of so many 64-bit arguments."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return native_call(engine.get_function_address(name), arguments)
