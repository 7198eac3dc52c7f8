"""The target of the processor that this process runs on."""

from __future__ import annotations

import platform
from dataclasses import replace
from functools import cache
from pathlib import Path

from gte_np.errors import BackendError
from gte_np.kernels.targets import TARGETS
from gte_np.kernels.targets.target import Target

# What Linux calls instructions of ARM that LLVM does not look for, by LLVM's names.
_LINUX_ARM_FEATURES = {"asimddp": "dotprod"}


@cache
def host_target() -> Target:
    """The best target that this processor runs, made out for this very processor.

    Raises BackendError if there is none.
    """
    import llvmlite.binding as llvm

    machine, features = this_machine(), host_features()
    for target in TARGETS:
        if target.runs_on(machine, features):
            lacking = frozenset(llvm.get_host_cpu_features()) - features
            return replace(target, cpu=llvm.get_host_cpu_name(), features=features, lacking=lacking)
    raise BackendError(
        f"backend 'numba': expected a processor of one of {', '.join(target.name for target in TARGETS)}, "
        f"got {machine}: use backend='numpy'."
    )


def this_machine() -> str:
    """The architecture of this process, by the names that targets use."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def host_features() -> frozenset[str]:
    """The instructions of this processor, by LLVM's names."""
    import llvmlite.binding as llvm

    known = llvm.get_host_cpu_features()
    return frozenset({feature for feature, is_here in known.items() if is_here} | _more_features())


def _more_features() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return set()
    words = next((line.partition(":")[2].split() for line in lines if line.startswith("Features")), [])
    return {_LINUX_ARM_FEATURES[word] for word in words if word in _LINUX_ARM_FEATURES}
