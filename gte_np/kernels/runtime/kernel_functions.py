"""The compiled kernels by name, and the target that this process uses.

Kernels that were built ahead of time come first. Where there are none for this processor, or where the variable
GTE_NP_TARGET asks for "native", Numba compiles them for this very processor: `object_cache` is imported only then.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from gte_np.errors import BackendError, InputError, MissingDependencyError
from gte_np.forks import ForkGuard
from gte_np.kernels.runtime import prebuilt
from gte_np.kernels.runtime.unit_check import unit_functions, unit_is_right
from gte_np.kernels.targets import TARGETS, Target
from gte_np.kernels.targets.host import runnable_targets

logger = logging.getLogger("gte_np")

TARGET_VARIABLE = "GTE_NP_TARGET"
NATIVE = "native"
_PREFIX = "backend 'numba': "
_guard = ForkGuard("loading kernels")


def function(name: str, target: Target, arguments: int) -> Callable[..., Any]:
    """The compiled function of this name, of so many arguments, for a target that this processor runs.

    Raises BackendError or MissingDependencyError if it cannot be had.
    """
    if prebuilt.is_built(target):
        return _prebuilt(name, target, arguments)
    from gte_np.kernels.runtime import object_cache

    return object_cache.function(name, target, arguments)


def chosen_target() -> Target:
    """The target that GTE_NP_TARGET names, or the best one whose kernels are there, or else this very processor.

    Raises InputError for a name that is unknown or of another processor, and BackendError or MissingDependencyError
    where the kernels cannot be had.
    """
    wanted = os.environ.get(TARGET_VARIABLE, "")
    if wanted not in ("", NATIVE):
        return _named_target(wanted)
    built = (target for target in runnable_targets() if not wanted and prebuilt.is_built(target))
    return next(filter(_unit_works, built), None) or _native_target()


def kernel_files() -> list[Path]:
    """The files with all kernels of the chosen target, which are compiled now if they were not before.

    Raises as `chosen_target` does, and BackendError if something cannot be compiled.
    """
    target = chosen_target()
    if prebuilt.is_built(target):
        return [prebuilt.FOLDER / prebuilt.library_name(target)]
    from gte_np.kernels.runtime import object_cache

    return object_cache.compile_all(target)


def _named_target(name: str) -> Target:
    known = {target.name: target for target in TARGETS}
    if name not in known:
        raise InputError(f"{TARGET_VARIABLE}: expected one of {', '.join([*known, NATIVE])}, got {name!r:.80}.")
    runnable = [target.name for target in runnable_targets()]
    if name not in runnable:
        raise InputError(
            f"{TARGET_VARIABLE}: expected a target that this processor runs, of {', '.join(runnable)}, got {name}."
        )
    if not prebuilt.is_built(known[name]):
        from gte_np.kernels.runtime import object_cache

        object_cache.check_numba()
    elif not _unit_works(known[name]):
        raise BackendError(
            f"{TARGET_VARIABLE}: expected a processor whose AMX multiplies rightly for {name}, got another."
        )
    return known[name]


def _native_target() -> Target:
    from gte_np.kernels.runtime import object_cache

    try:
        object_cache.check_numba()
    except MissingDependencyError as error:
        raise MissingDependencyError(
            f"{_PREFIX}expected kernels that were built ahead of time for this processor, found none; to "
            f"compile them, {str(error).removeprefix(_PREFIX)}"
        ) from error
    return object_cache.native_target()


@cache
def _unit_works(target: Target) -> bool:
    """Whether the matrix unit of a target that was built, if it has one, gives the right sums in this process."""
    functions = unit_functions(target).items()
    works = all(unit_is_right(each, target, function(name, target, arguments=3)) for name, each in functions)
    if not works:
        logger.warning("The matrix unit of this processor gives wrong sums here: it is not used.")
    return works


@cache
def _prebuilt(name: str, target: Target, arguments: int) -> Callable[..., Any]:
    try:
        with _guard.no_fork():
            return prebuilt.load_function(name, target, arguments)
    except (OSError, AttributeError) as error:  # no such file, or no such function in it
        raise BackendError(
            f"{_PREFIX}expected kernels that can be loaded from {prebuilt.FOLDER}, got: {error}. "
            "Install gte_np again, or use backend 'numpy'."
        ) from error
