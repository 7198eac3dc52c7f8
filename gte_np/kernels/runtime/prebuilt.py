"""Kernels that were built ahead of time: a shared object for each target, which needs no compiler and no library.

`python -m scripts.build_kernels` builds them, and a wheel for Linux has those of its processors in `prebuilt`. A
package that is used where its source is has none: its kernels would be those of an older source.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from gte_np.kernels.runtime.native_call import native_call
from gte_np.kernels.targets import TARGETS, Target

FOLDER = Path(__file__).with_name("prebuilt")


def library_name(target: Target) -> str:
    """The name of the file with a target's kernels."""
    return f"{target.name}.so"


@cache
def is_built(target: Target) -> bool:
    """Whether this package has the kernels of a target."""
    if sys.platform != "linux" or target not in TARGETS:
        return False
    path = FOLDER / library_name(target)
    return path.is_file() or _from_archive(path) is not None


def load_function(name: str, target: Target, arguments: int) -> Callable[..., Any]:
    """The function of this name, of so many 64-bit arguments, of a target that `is_built` and that runs here."""
    address = ctypes.cast(_library(target)[name], ctypes.c_void_p).value
    assert address is not None  # the dynamic linker found it
    return native_call(address, arguments)


@cache
def _library(target: Target) -> ctypes.CDLL:
    path = FOLDER / library_name(target)
    content = None if path.is_file() else _from_archive(path)
    if content is None:
        return ctypes.CDLL(str(path))
    descriptor = os.memfd_create(path.name)  # a file in memory: nothing is unpacked to a disk
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        return ctypes.CDLL(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _from_archive(path: Path) -> bytes | None:
    """The file at a path in the archive that this package was imported from; None if there is none."""
    try:
        content: bytes = __loader__.get_data(str(path))  # type: ignore[name-defined]  # every module has one
    except (AttributeError, OSError):
        return None
    return content
