"""Intel's AMX instructions in software, see amx.c.

It is for processes on Linux and x86-64 whose processor lacks AMX, or that have not asked Linux for tile data (a
permission that exec takes away). Use it in a child process of the test: nothing removes the emulator.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("amx.c")
CAN_EMULATE = sys.platform == "linux" and platform.machine() == "x86_64"


def compile_library(source: Path, library: Path, *options: str) -> Path:
    """Compile C to a shared library; return its path.

    Raises RuntimeError if there is no C compiler, or if it fails.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("expected a C compiler, cc, on the PATH, and found none; install gcc or clang")
    command = [compiler, "-std=c11", "-O2", "-shared", "-fPIC", *options, str(source), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return library


def build(folder: Path) -> Path:
    """Compile the emulator into a folder; return the library's path.

    Raises RuntimeError if there is no C compiler, or if it fails.
    """
    return compile_library(SOURCE, folder / "amx.so")


def install(path: Path) -> None:
    """From now on emulate AMX in all threads of this process, wherever its instructions are refused.

    Handlers of SIGILL that are installed later come first, so install those, as faulthandler's, before.

    Raises RuntimeError if the system refuses the handler.
    """
    if ctypes.CDLL(str(path)).amx_install():
        raise RuntimeError("the system refused a handler of SIGILL")


def executed(path: Path) -> int:
    """The number of instructions that have been emulated in this process."""
    function = ctypes.CDLL(str(path)).amx_executed
    function.restype = ctypes.c_long
    return int(function())
