"""Files of other users, for tests of whom to trust."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SOMEONE = 54321  # a user who is neither root nor this one


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a file or a folder another user's: truly if this is root, else as far as the system calls tell."""
    if os.getuid() == 0:
        os.chown(path, SOMEONE, -1, follow_symlinks=False)
        return
    number, lstat, fstat = path.lstat().st_ino, Path.lstat, os.fstat

    def changed(status: os.stat_result) -> os.stat_result:
        return os.stat_result([*status[:4], SOMEONE, *status[5:]]) if status.st_ino == number else status

    monkeypatch.setattr(Path, "lstat", lambda path: changed(lstat(path)))
    monkeypatch.setattr(os, "fstat", lambda file: changed(fstat(file)))
