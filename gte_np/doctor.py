"""What a bug report needs: versions, processor, threads, caches."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from gte_np.errors import GteError
from gte_np.kernels.runtime import prebuilt
from gte_np.kernels.runtime.kernel_functions import TARGET_VARIABLE, chosen_target
from gte_np.kernels.runtime.object_cache import cache_folders, kept_files, why_passed_over
from gte_np.kernels.runtime.threads import available_processors
from gte_np.kernels.targets import TARGETS, Target
from gte_np.kernels.targets.host import host_features

PACKAGES = ("gte_np", "numpy", "tokenizers", "safetensors", "huggingface_hub", "numba", "llvmlite")
# Instructions for matrix products that some processors have and no target uses, by LLVM's names.
UNUSED_FEATURES = ("avx512fp16", "sve")
VARIABLES = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
    TARGET_VARIABLE,
    "NUMBA_CACHE_DIR",
    "NUMBA_DISABLE_JIT",
)


def report() -> dict[str, str]:
    """Return name -> value of what the environment is, without secrets."""
    lines = {"python": f"{sys.version.split()[0]} on {platform.platform()}"}
    lines |= {package: _version(package) for package in PACKAGES}
    lines |= {
        "processor": _processor(),
        "processors usable": str(available_processors()),
        "kernels": _kernels(),
        "instructions beyond the kernels": _unused_features(),
        "caches of kernels passed over": _passed_over(),
        "threads": f"{os.environ.get('OPENBLAS_NUM_THREADS', 'as many as processors')} in NumPy's BLAS",
        "numpy baseline and found features": _numpy_features(),
        "blas": _blas(),
        "hub cache": _hub_cache(),
    }
    return lines | {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # platform.processor() is empty on most Linux systems
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _kernels() -> str:
    """The target that is used, and where its kernels are."""
    try:
        target = chosen_target()
        place = _place(target)
    except GteError as error:
        return f"none: {error}"
    return f"{target.name} for {target.cpu}, vectors of {target.vector_width}, {place}"


def _place(target: Target) -> str:
    if prebuilt.is_built(target):
        return f"built ahead of time, in {prebuilt.FOLDER / prebuilt.library_name(target)}"
    found = next((str(path.parent) for path in kept_files()), "nowhere yet")
    return f"compiled in {found}"


def _unused_features() -> str:
    """What this processor has that would suit kernels, and that no target, or not the one that is used, asks for."""
    try:
        used = chosen_target().features
    except GteError:
        used = frozenset()
    known = {*UNUSED_FEATURES, *(feature for target in TARGETS for feature in target.features)}
    return " ".join(sorted(host_features() & known - used)) or "none"


def _passed_over() -> str:
    """Folders that compiled kernels could be in, and why they are not looked for there."""
    reasons = ((folder, why_passed_over(folder)) for folder in cache_folders())
    return "; ".join(f"{folder} ({why})" for folder, why in reasons if why) or "none"


def _numpy_features() -> str:
    simd = np.show_config(mode="dicts").get("SIMD Extensions", {})
    return " ".join([*simd.get("baseline", []), "+", *simd.get("found", [])])


def _blas() -> str:
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{blas.get('name')} {blas.get('version')}"


def _hub_cache() -> str:
    try:
        from huggingface_hub import constants
    except ImportError:
        return "none without huggingface_hub"
    cache = Path(constants.HF_HUB_CACHE)
    return f"{cache} ({'there' if cache.is_dir() else 'not there'})"
