"""From object code to a function that Python can call, by LLVM's loader."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm

from gte_np.kernels.runtime.native_call import native_call

_LOADER = 1 << 23  # bytes that LLVM takes beside the code, at most
_engines: list[Any] = []  # code lives as long as its engine


def load_function(code: bytes, name: str, arguments: int) -> Callable[..., Any]:
    """The function of this name, of so many 64-bit arguments.

    Raises MemoryError if there is too little memory, where LLVM would end the process.
    """
    _check_memory(len(code) + _LOADER)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return native_call(engine.get_function_address(name), arguments)


def _check_memory(size: int) -> None:
    try:
        mmap.mmap(-1, size).close()
    except OSError as error:
        raise MemoryError(f"expected {size} bytes of memory to load kernels, got: {error}.") from error
