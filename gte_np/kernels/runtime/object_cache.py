"""Functions that Numba compiles, by name: from a file of an earlier run, or compiled now and kept for the next one.

The cache is this package's own, not Numba's: files of object code, whose names tell all that the code depends on, so
a copied environment, a rebuilt container or another processor needs no care. A file that is damaged is compiled
afresh, and so is one that somebody else could have written: see `trusted_files`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import pkgutil
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gte_np.errors import BackendError, GteError, MissingDependencyError
from gte_np.forks import ForkGuard
from gte_np.kernels.runtime import trusted_files
from gte_np.kernels.targets import Target
from gte_np.kernels.targets.host import host_target

logger = logging.getLogger("gte_np.kernels")

_PACKAGE = Path(__file__).resolve().parent.parent.parent
_DIGEST_SIZE = hashlib.sha256().digest_size
_FINGERPRINT_SIZE = 24  # characters
# A file of the cache, of any version, and one that is being written.
_FILE_NAME = re.compile(
    rf"(encode|pack|multiply_tiles|order)_\w+-[0-9a-f]{{{_FINGERPRINT_SIZE}}}\.o(\.[0-9a-f]{{16}})?"
)
_MOST_FILES = 144  # of a folder: of sixteen versions or processors, about 5 MB; the tests compile for nine
_guard = ForkGuard("compiling or loading kernels")
_lock = threading.RLock()  # taken within _guard
_functions: dict[tuple[str, Target], Callable[..., Any]] = {}


def check_numba() -> None:
    """Raise MissingDependencyError if there is no Numba, or if it is told not to compile."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        raise MissingDependencyError(
            "backend 'numba': expected that Numba may compile, got NUMBA_DISABLE_JIT; unset it."
        )
    if find_spec("numba") is None or find_spec("llvmlite") is None:
        raise MissingDependencyError(
            "backend 'numba': expected Numba, which is not installed: pip install 'gte_np[jit]'."
        )
    with importing():
        import llvmlite.binding  # noqa: F401  # it is a compiled library, which may not fit the system


@contextmanager
def importing() -> Iterator[None]:
    """Make one error of whatever an import of Numba or llvmlite raises that does not fit the other packages.

    A process forked in the middle of an import would wait for its end for ever: forks wait.
    """
    try:
        with _guard.no_fork():
            yield
    except GteError:
        raise
    except Exception as error:
        raise MissingDependencyError(f"backend 'numba': expected Numba, got: {error}.") from error


@contextmanager
def _compiling() -> Iterator[None]:
    """Compile or load in one thread at a time. Whatever goes wrong inside Numba and LLVM is one error."""
    try:
        with _guard.no_fork(), _lock:
            yield
    except GteError:
        raise
    except Exception as error:
        raise BackendError(
            f"backend 'numba': expected kernels that Numba {_version('numba')} and llvmlite {_version('llvmlite')} "
            f"compile and load, got {type(error).__name__}: {error}. Install the versions that gte_np asks for "
            "(pip check names them), or use backend 'numpy'."
        ) from error


def function(name: str, target: Target, arguments: int) -> Callable[..., Any]:
    """The compiled function of this name, of so many arguments, for a target that this processor runs.

    Raises BackendError if it cannot be had.
    """
    if (name, target) not in _functions:
        with _compiling():
            if (name, target) not in _functions:  # another thread was faster
                from gte_np.kernels.runtime.object_code import load_function

                _functions[name, target] = load_function(_object_code(name, target), name, arguments)
    return _functions[name, target]


def native_target() -> Target:
    """The target of this processor. Raises BackendError if there is none, or if llvmlite cannot tell."""
    with _compiling():
        return host_target()


def compile_all(target: Target | None = None) -> list[Path]:
    """Compile what no cache has, for checkpoints of every precision, and return the files, old and new.

    `target` is this processor by default.

    Raises BackendError if something cannot be compiled, and MissingDependencyError if Numba cannot be imported.
    """
    with importing():
        from gte_np.kernels.runtime.compile import entry_names

    target = target or native_target()
    for name in entry_names(target):
        with _compiling():
            _object_code(name, target)
    found = [_find(name, target) for name in entry_names(target)]
    return [path for path, _ in filter(None, found)]


def cache_folders() -> list[Path]:
    """Where compiled functions are looked for, in this order; they are written to the first that can be written to.

    NUMBA_CACHE_DIR if it is set, the package's own folder, the user's folder for caches, the folder for temporary
    files. A folder that others could have written to is passed over.
    """
    return list(_cache_folders())


def kept_files() -> list[Path]:
    """The files of the cache that this process can use, in the order in which they are looked for."""
    files: list[Path] = []
    with suppress(_NoCodeError):
        for folder in cache_folders():
            if not why_passed_over(folder):
                files += sorted(folder.glob(_file_name("*", native_target())))
    return files


def why_passed_over(folder: Path) -> str:
    """Why nothing is read from or written to a folder of the cache; "" if it may be."""
    try:
        return trusted_files.distrust(folder)
    except OSError as error:
        return str(error)


def _cache_folders() -> Iterator[Path]:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        yield Path(chosen) / "gte_np"
    yield _PACKAGE / "kernels" / "__pycache__"
    with suppress(RuntimeError):  # nobody's home
        yield _user_caches() / "gte_np"
    temporary = _temporary_folder()
    if temporary is not None:
        yield temporary / f"gte_np-{os.getuid() if hasattr(os, 'getuid') else ''}"


def _temporary_folder() -> Path | None:
    try:
        return Path(tempfile.gettempdir())
    except OSError:  # nothing can be written anywhere
        return None


def _user_caches() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _object_code(name: str, target: Target) -> bytes:
    found = _find(name, target)
    if found is not None:
        return found[1]
    code = _compile(name, target)
    _keep(name, target, code)
    return code


def _find(name: str, target: Target) -> tuple[Path, bytes] | None:
    """The file of this function and the code in it, if there is one that is whole."""
    for folder in cache_folders():
        try:
            path = folder / _file_name(name, target)
            content = b"" if trusted_files.distrust(folder) else trusted_files.read(path)
        except OSError:
            continue
        digest, code = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
        if hashlib.sha256(code).digest() == digest:
            return path, code
    return None


def _keep(name: str, target: Target, code: bytes) -> None:
    try:
        file_name = _file_name(name, target)
    except _NoCodeError as error:
        _tell_that_nothing_is_kept(str(error))
        return
    for folder in cache_folders():
        try:
            if _make(folder):
                trusted_files.write(folder / file_name, hashlib.sha256(code).digest() + code)
                _forget_old_files(folder)
                return
        except OSError:
            continue
    _tell_that_nothing_is_kept("found no folder to keep compiled kernels in")


def _make(folder: Path) -> bool:
    """Make a folder of the cache if it is missing and nobody else can write to it; return whether nobody can."""
    if trusted_files.distrust(folder):
        return False
    is_temporary = folder.parent == _temporary_folder()
    trusted_files.make_folder(folder, 0o700 if is_temporary else 0o755)  # the former is its user's alone
    return not trusted_files.distrust(folder)


def _forget_old_files(folder: Path) -> None:
    ours = [path for path in folder.iterdir() if _FILE_NAME.fullmatch(path.name)]
    trusted_files.remove_oldest(ours, _MOST_FILES)


def _compile(name: str, target: Target) -> bytes:
    _tell_of_compiling()
    with importing():
        from gte_np.kernels.runtime.compile import compile_entry, entries
    return compile_entry(name, entries(target)[name], target)


@cache  # once in a process
def _tell_of_compiling() -> None:
    logger.warning("compiling kernels for this processor, once: it takes about ten seconds ...")


@cache
def _tell_that_nothing_is_kept(why: str) -> None:
    logger.warning("%s: the next process compiles them again.", why)


@cache
def _file_name(name: str, target: Target) -> str:
    return f"{name}-{_fingerprint(target)}.o"


@cache
def _fingerprint(target: Target) -> str:
    """A hash of all that object code depends on: the source, the compilers, the target.

    Raises _NoCodeError if the source is nowhere, so that nobody can tell whether compiled kernels are up to date.
    """
    import llvmlite

    digest = hashlib.sha256(f"{llvmlite.__version__} {_version('numba')} {target}".encode())
    for code in _code_of_kernels():
        digest.update(code)
    return digest.hexdigest()[:_FINGERPRINT_SIZE]


class _NoCodeError(OSError):
    """The package has neither source nor bytecode that could be read, as in some frozen applications."""


def _code_of_kernels() -> list[bytes]:
    """The source of all that is compiled, or its bytecode where the source is not shipped; in an archive, too."""
    try:
        found = dict(_modules(str(_PACKAGE)))
        packages = ("kernels", "formats")
        names = [*packages, *(name for name in found if name.startswith(("kernels.", "formats."))), "reference.erf"]
        loaders = [(found[name].loader, found[name].origin) for name in names]
        return [loader.get_data(origin) for loader, origin in loaders]
    except (AttributeError, KeyError, OSError) as error:
        raise _NoCodeError("found no source of the kernels by which to keep them compiled") from error


def _modules(folder: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The names and specifications of the modules of a folder and of all packages in it, in their order."""
    for _, name, _ in pkgutil.iter_modules([folder]):
        module = PathFinder.find_spec(name, [folder])
        yield prefix + name, module
        for inner in (module and module.submodule_search_locations) or ():
            yield from _modules(inner, f"{prefix}{name}.")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # frozen into an application, say
        return "unknown"
