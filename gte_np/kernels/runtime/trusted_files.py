"""Files whose content may run in this process: only this user and root can have put them where they are.

That is so if nobody else can change the folder, or exchange it or any folder or link on the way to it. Each step is
checked from the root of the file system downwards, so nobody else can undo what was seen. OpenSSH asks the same of
its users' keys. Windows has no such modes; there a user's folders are private by access control lists.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_MOST_LINKS = 40  # on one way, as in Linux
_TEMPORARY_BYTES = 8  # of a name that nobody guesses


def distrust(folder: Path) -> str:
    """Why files of this folder are not trusted, as "others can write to /shared"; "" if they are.

    Of a folder that is not there, the way to it is checked. Raises OSError if the way cannot be looked at.
    """
    if not hasattr(os, "getuid"):
        return ""
    for step, is_last in _way_to(folder.absolute()):
        try:
            status = step.lstat()
        except FileNotFoundError:
            break
        fault = _fault_of_content(status, step) if is_last else _fault_of_step(status, step)
        if fault:
            return fault
    return ""


def _way_to(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Each folder and each link that a path leads through, and whether it is the last, which is not followed."""
    at, links = Path(folder.anchor), 0
    waiting = list(reversed(folder.parts[1:]))
    yield at, False
    while waiting:
        part = waiting.pop()
        at = at.parent if part == ".." else at / part
        yield at, not waiting
        if waiting and at.is_symlink():
            links += 1
            if links > _MOST_LINKS:
                raise OSError(f"too many links on the way to {folder}")
            target = at.readlink()
            at = Path(target.anchor) if target.is_absolute() else at.parent
            waiting += reversed(target.relative_to(target.anchor).parts)


def _fault_of_step(status: os.stat_result, path: Path) -> str:
    """What is wrong with a folder or a link on the way. In a sticky folder others cannot exchange what is ours."""
    if stat.S_ISLNK(status.st_mode):
        return _fault_of_owner(status, path)
    exclusive = status.st_mode & stat.S_ISVTX or not _others_can_write(status)
    return _fault_of_owner(status, path) or ("" if exclusive else f"others can write to {path}")


def _fault_of_content(status: os.stat_result, path: Path) -> str:
    """What is wrong with a folder or a file whose content is to be trusted."""
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        return f"{path} is a link or a special file"
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return _fault_of_owner(status, path) or (f"others can write to {path}" if shared else "")


def _fault_of_owner(status: os.stat_result, path: Path) -> str:
    return "" if status.st_uid in (0, os.getuid()) else f"{path} belongs to user {status.st_uid}"


def _others_can_write(status: os.stat_result) -> bool:
    by_group = status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_gid)
    return bool(status.st_mode & stat.S_IWOTH or by_group)


def _is_private_group(group: int) -> bool:
    """Whether this user is the only member of a group: many systems give each user one, and let it write."""
    import grp
    import pwd

    try:
        own, others = pwd.getpwuid(os.getuid()), grp.getgrgid(group).gr_mem
    except KeyError:
        return False
    members = {user.pw_name for user in pwd.getpwall() if user.pw_gid == group} | set(others)
    return members == {own.pw_name}


def read(path: Path) -> bytes:
    """The content of a file in a trusted folder. Raises OSError if it cannot be read, or is not to be trusted."""
    with open(path, "rb", opener=_open_itself) as file:  # Path.open takes no opener
        fault = _fault_of_content(os.fstat(file.fileno()), path) if hasattr(os, "getuid") else ""
        if fault:
            raise PermissionError(fault)
        return file.read()


def _open_itself(path: str, flags: int) -> int:
    """Open a file, not what it links to, and do not wait for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o644)


def write(path: Path, content: bytes) -> None:
    """Write a file of a trusted folder, in one step for all who look: other processes may do the same."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(_TEMPORARY_BYTES)}")
    file = open(part, "xb", opener=_open_itself)  # noqa: SIM115
    try:
        with file:
            file.write(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def make_folder(folder: Path, mode: int = 0o755) -> None:
    """Make a folder and all above it that are missing; nobody else can write to what is made."""
    if not folder.parent.is_dir():
        make_folder(folder.parent)
    folder.mkdir(mode=mode, exist_ok=True)


def remove_oldest(files: Iterable[Path], most: int) -> None:
    """Remove the oldest files but so many. Who has one open can still read it."""
    ages: list[tuple[float, Path]] = []
    for path in files:
        with suppress(OSError):  # another process was faster
            ages.append((path.lstat().st_mtime, path))
    for _, path in sorted(ages, reverse=True)[most:]:
        with suppress(OSError):
            path.unlink()
