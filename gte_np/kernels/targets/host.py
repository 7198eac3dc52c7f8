"""The processor that this process runs on, as the system describes it, and the targets that it runs.

`host_features` and `runnable_targets` ask the system alone. Only `host_target`, for kernels that are compiled for
this very processor, asks LLVM.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from gte_np.errors import BackendError
from gte_np.kernels.targets import TARGETS
from gte_np.kernels.targets.target import Target
from gte_np.kernels.targets.x86 import AMX, V2, V3, V4

# What Linux calls instructions of x86 in /proc/cpuinfo, where LLVM has another name.
_LINUX_X86_NAMES = {
    "abm": "lzcnt",
    "amx_bf16": "amx-bf16",
    "amx_int8": "amx-int8",
    "amx_tile": "amx-tile",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "avx512_vnni": "avx512vnni",
    "avx_vnni": "avxvnni",
    "bmi1": "bmi",
    "lahf_lm": "sahf",
    "pni": "sse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
}
# The system call by which a process asks Linux for the registers of AMX, and its arguments.
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18
# Bits of the two words in which Linux describes an ARM processor to a process (getauxval), with LLVM's names.
_LINUX_ARM_BITS = ({20: "dotprod", 22: "sve"}, {1: "sve2", 13: "i8mm", 14: "bf16"})
_LINUX_ARM_WORDS = (16, 26)  # AT_HWCAP, AT_HWCAP2
# What NumPy calls instructions, or groups of them that come together, in all of its versions.
_NUMPY_NAMES = {
    "SSE42": V2,
    "X86_V2": V2,
    "FMA3 AVX2": V3,
    "X86_V3": V3,
    "AVX512_SKX": V4,
    "X86_V4": V4,
    "AVX512_CLX": frozenset({"avx512vnni"}),
    "AVX512_ICL": frozenset({"avx512vnni"}),
    "AVX512_SPR": frozenset({"avx512bf16"}),
    "ASIMDDP": frozenset({"dotprod"}),
}


def this_machine() -> str:
    """The architecture of this process, by the names that targets use."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


@cache
def host_features() -> frozenset[str]:
    """The instructions of this processor, by LLVM's names where a target needs them, and whatever the system adds."""
    if sys.platform == "linux" and this_machine() == "aarch64":
        return _features_of_linux_arm()
    if sys.platform == "linux" and (flags := _cpuinfo_flags()):
        features = frozenset(_LINUX_X86_NAMES.get(flag, flag) for flag in flags)
        return features if "amx-tile" in features and may_use_amx() else features - AMX
    return _features_by_numpy()


def runnable_targets() -> list[Target]:
    """The targets that this processor runs, the best one first."""
    return [target for target in TARGETS if target.runs_on(this_machine(), host_features())]


@cache
def host_target() -> Target:
    """The best target that this processor runs, adapted to this very processor by what LLVM knows of it.

    Raises BackendError if there is none.
    """
    import llvmlite.binding as llvm

    targets = runnable_targets()
    if not targets:
        raise BackendError(
            f"backend 'numba': expected a processor of one of {', '.join(target.name for target in TARGETS)}, "
            f"got {this_machine()}: use backend='numpy'."
        )
    known = llvm.get_host_cpu_features()
    features = frozenset(feature for feature, is_here in known.items() if is_here) | targets[0].features
    return replace(targets[0], cpu=llvm.get_host_cpu_name(), features=features, lacking=frozenset(known) - features)


def _cpuinfo_flags() -> list[str]:
    """The flags of the first processor of /proc/cpuinfo; none where there is no such file."""
    try:
        with Path("/proc/cpuinfo").open(
            encoding="utf-8", errors="replace"
        ) as lines:  # it has a page for each processor
            return next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    except OSError:
        return []


def may_use_amx() -> bool:
    """Ask Linux for this process's use of AMX's registers, whose 8 KB it saves only where they are used.

    Linux refuses where it does not know them, a filter of system calls does not let the question pass, or a stack for
    signals is too small to hold them.
    """
    ask = ctypes.CDLL(None).syscall
    ask.argtypes = [ctypes.c_long] * 3
    return bool(ask(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0)


def _features_of_linux_arm() -> frozenset[str]:
    """By getauxval: /proc/cpuinfo need not be there, and under emulation describes another processor."""
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.argtypes, getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    words = [getauxval(word) for word in _LINUX_ARM_WORDS]
    return frozenset(
        name
        for word, names in zip(words, _LINUX_ARM_BITS, strict=True)
        for bit, name in names.items()
        if word >> bit & 1
    )


def _features_by_numpy() -> frozenset[str]:
    """By what NumPy found when it was imported."""
    simd = np.show_config(mode="dicts").get("SIMD Extensions", {})
    found = {*simd.get("baseline", []), *simd.get("found", [])}
    present = (features for names, features in _NUMPY_NAMES.items() if found.issuperset(names.split()))
    return frozenset[str]().union(*present)
