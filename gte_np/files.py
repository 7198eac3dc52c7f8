"""Files and folders that are written whole or not at all.

Each is written under a new, hidden name beside its own (so on the same file system), `.NAME.RANDOM.part`, and takes
its place at the end. An error or an interrupt removes what was written so far. A process that is killed may leave it,
or a replaced folder that it was about to remove. Nothing reads such leftovers, and they may be deleted where NAME is
there; `whole_folder` tells when it is not.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import logging
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gte_np.errors import InputError

logger = logging.getLogger("gte_np")

# Both take (folder, path, folder, path, flags); a path that is absolute needs no folder.
_EXCHANGE_FUNCTIONS = {"linux": "renameat2", "darwin": "renameatx_np"}
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_NAME = 40  # characters of a name that are in the name of what becomes it


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give the path of an empty file that takes the place of `path` when the block ends without an error.

    At any moment `path` has all of its old content, or all of the new. An existing file keeps its mode, and a
    symbolic link stays one: the file that it leads to is replaced. A device, a pipe or a socket cannot be replaced:
    for these, the path given is `path`.

    Raises InputError if `path` is a folder, and OSError, which names it, if it cannot be written.
    """
    if path.is_dir():
        raise InputError(f"expected a file to write to, got the folder {os.fspath(path)!r}.")
    if path.exists() and not os.access(path, os.W_OK):  # a rename asks only the folder
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    if path.exists() and not path.is_file():
        yield path
        return
    target = Path(os.path.realpath(path))
    part = _beside(target, "part")
    try:
        with naming(path, part):
            part.touch(exist_ok=False)
            mode = stat.S_IMODE((target if target.exists() else part).stat().st_mode)
        yield part
        with naming(path, part):
            _to_disk(part)
            part.chmod(mode)
            part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file."""
    import hashlib  # OpenSSL, which takes some milliseconds to load

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed have left of `whole_file(path)`. No other may be writing it."""
    target = Path(os.path.realpath(path))
    for leftover in target.parent.glob(f".{glob.escape(target.name[:_NAME])}.*.part"):
        leftover.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, replaces: Callable[[Path], bool]) -> Iterator[Path]:
    """Give a new folder that takes the place of `path`, an absolute path, when the block ends without an error.

    At any moment `path` is the old folder, if there was one, or the new one. Two folders change places in one step on
    Linux and macOS; where the system or the file system cannot do that, in two renames. A kill exactly between these
    leaves nothing under `path`, the old folder under `.NAME.RANDOM.old`, and the new one under `.NAME.RANDOM.part`,
    both whole.

    What is in the old folder is in the new one, too, unless the block has written a file of that name or
    `replaces(path in the folder)` is true: hard links where the file system has them, else copies.

    Raises OSError, which names `path`, if it cannot be written.
    """
    part = _beside(path, "part")
    try:
        with naming(path, part):
            part.mkdir(parents=True)
        yield part
        with naming(path, part):
            for file in filter(Path.is_file, part.rglob("*")):
                _to_disk(file)
            if path.is_dir():
                _carry_over(path, part, replaces)
            _take_place(part, path)
    finally:
        _remove(part)


@contextmanager
def naming(name: str | os.PathLike[str], part: Path | None = None) -> Iterator[None]:
    """Let the system's errors that name no file, or one in `part`, name what the user asked for."""
    try:
        yield
    except OSError as error:
        named = f"{error.filename or ''}{error.filename2 or ''}"
        if error.errno is None or (named and (part is None or os.fspath(part) not in named)):
            raise
        raise OSError(error.errno, error.strerror, os.fspath(name)) from error


def _beside(path: Path, suffix: str) -> Path:
    """A hidden name that nobody else has, and that is not too long."""
    return path.with_name(f".{path.name[:_NAME]}.{secrets.token_hex(8)}.{suffix}")


def _to_disk(path: Path) -> None:
    """Wait until a file's content has been stored: else a power failure could leave its name without it."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _carry_over(old: Path, new: Path, replaces: Callable[[Path], bool]) -> None:
    def left_out(folder: str, names: list[str]) -> list[str]:
        inside = Path(folder).relative_to(old)
        return [name for name in names if replaces(inside / name) or (new / inside / name).is_file()]

    shutil.copytree(old, new, symlinks=True, ignore=left_out, copy_function=_link, dirs_exist_ok=True)
    os.utime(new)  # else it would seem to be as old as the other


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _take_place(part: Path, path: Path) -> None:
    """Rename a folder. What was under the new name is then under the old one, or gone."""
    try:
        part.rename(path)  # where nothing is, or an empty folder
    except OSError:
        if not path.is_dir():
            raise
        if not _exchange(part, path):
            _replace_in_two_steps(part, path)


def _exchange(first: Path, second: Path) -> bool:
    """Let two paths change places in one step. Return False where that cannot be done."""
    name = _EXCHANGE_FUNCTIONS.get(sys.platform)
    if name is None or not hasattr(ctypes.CDLL(None), name):
        return False
    function = getattr(ctypes.CDLL(None), name)
    return bool(function(-1, os.fsencode(first), -1, os.fsencode(second), _EXCHANGE) == 0)


def _replace_in_two_steps(part: Path, path: Path) -> None:
    old = _beside(path, "old")
    try:
        path.rename(old)
        part.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        _remove(old)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        logger.warning("%s could not be removed; nothing needs it any more.", folder)
