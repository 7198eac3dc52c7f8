"""Whose files may run here: owners, modes, links, and what is above a folder."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from gte_np.kernels.runtime.trusted_files import distrust, make_folder, read, remove_oldest, write
from tests.users import SOMEONE, give_away

if sys.platform == "win32":
    pytest.skip("needs users and the modes of files", allow_module_level=True)

import grp
import pwd


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of this user's in another one."""
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    return tmp_path / "outer" / "inner"


@pytest.fixture
def shared_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every group has another member."""
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_mem=["somebody"]))


# --- folders ------------------------------------------------------------------------------------------------------


def test_a_folder_of_this_user_is_trusted(folder: Path) -> None:
    assert distrust(folder) == ""
    assert distrust(folder / "not" / "there") == ""


@pytest.mark.usefixtures("shared_group")
@pytest.mark.parametrize("mode", [0o777, 0o757, 0o775, 0o702, 0o720])
@pytest.mark.parametrize("above", [0, 1])
def test_a_folder_that_others_can_write_to(mode: int, above: int, folder: Path) -> None:
    shared = [folder, folder.parent][above]
    shared.chmod(mode)
    assert distrust(folder) == f"others can write to {shared}"
    assert distrust(folder.parent / ".." / "outer" / "inner") == f"others can write to {shared}"


@pytest.mark.parametrize("missing", ["gte_np", "a/b/gte_np"])
def test_a_folder_that_is_to_be_made_where_others_can_write(missing: str, folder: Path) -> None:
    folder.chmod(0o777)
    assert distrust(folder / missing) == f"others can write to {folder}"


def test_in_a_sticky_folder_others_cannot_exchange_what_is_ours(folder: Path) -> None:
    folder.parent.chmod(0o1777)
    assert distrust(folder) == ""
    folder.chmod(0o1777)  # but they can add to it
    assert distrust(folder) == f"others can write to {folder}"


@pytest.mark.parametrize("above", [0, 1])
def test_a_folder_of_someone_else(above: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = [folder, folder.parent][above]
    give_away(path, monkeypatch)
    assert distrust(folder) == f"{path} belongs to user {SOMEONE}"


def test_a_sticky_folder_of_someone_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner can exchange what is in it."""
    folder.parent.chmod(0o1777)
    give_away(folder.parent, monkeypatch)
    assert distrust(folder) == f"{folder.parent} belongs to user {SOMEONE}"


def test_root_is_trusted_by_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: SOMEONE)
    root = Path("/").resolve()
    assert root.stat().st_uid == 0
    assert distrust(root / "not-there") == ""


@pytest.mark.parametrize("others", [[], ["somebody"]])
def test_a_group_of_one(others: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each user has a group of their own, folders are made so that the group can write."""
    own = SimpleNamespace(pw_name="me", pw_gid=folder.stat().st_gid)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: own)
    monkeypatch.setattr(pwd, "getpwall", lambda: [own, SimpleNamespace(pw_name="root", pw_gid=-1)])
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_mem=others))
    folder.parent.chmod(0o775)
    assert (distrust(folder) == "") is (not others)


def test_a_group_by_which_somebody_else_begins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [SimpleNamespace(pw_name=name, pw_gid=folder.stat().st_gid) for name in ("me", "somebody")]
    monkeypatch.setattr(pwd, "getpwuid", lambda _: users[0])
    monkeypatch.setattr(pwd, "getpwall", lambda: users)
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_mem=[]))
    folder.parent.chmod(0o775)
    assert distrust(folder) == f"others can write to {folder.parent}"


def nobody(_: int) -> None:
    raise KeyError


@pytest.mark.parametrize("database", [(pwd, "getpwuid"), (grp, "getgrgid")])
def test_a_number_without_a_name(database: tuple[object, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*database, nobody)
    folder.parent.chmod(0o775)
    assert distrust(folder) == f"others can write to {folder.parent}"


def test_without_users(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    folder.chmod(0o777)
    monkeypatch.delattr(os, "getuid")
    assert distrust(folder) == ""
    write(folder / "file", b"code")
    assert read(folder / "file") == b"code"


# --- links --------------------------------------------------------------------------------------------------------


@pytest.fixture
def link(folder: Path, tmp_path: Path) -> Path:
    """A link to a folder that has another one in it."""
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(Path("..", "outer"))
    return link


def test_a_link_on_the_way(link: Path, folder: Path) -> None:
    assert distrust(link / "inner") == ""
    folder.chmod(0o777)
    assert distrust(link / "inner") == f"others can write to {folder}"


def test_a_way_that_others_can_change_to_a_link(link: Path) -> None:
    link.parent.chmod(0o777)
    assert distrust(link / "inner") == f"others can write to {link.parent}"


def test_a_way_that_others_can_change_between_two_links(link: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.symlink_to(link)
    assert distrust(first / "inner") == ""
    link.parent.chmod(0o777)
    assert distrust(first / "inner") == f"others can write to {link.parent}"


def test_a_link_of_someone_else(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_away(link, monkeypatch)
    assert distrust(link / "inner") == f"{link} belongs to user {SOMEONE}"


def test_a_folder_that_is_a_link(link: Path) -> None:
    assert distrust(link) == f"{link} is a link or a special file"


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="links"):
        distrust(tmp_path / "circle" / "folder")


# --- files --------------------------------------------------------------------------------------------------------


def test_written_and_read(folder: Path) -> None:
    for content in (b"first", b"\r\n\x1a second"):
        write(folder / "file", content)
        assert read(folder / "file") == content
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o622])
def test_a_file_that_others_can_write_to(mode: int, folder: Path) -> None:
    write(folder / "file", b"code")
    (folder / "file").chmod(mode)
    with pytest.raises(PermissionError, match="others can write to"):
        read(folder / "file")


def test_a_file_of_someone_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "file", b"code")
    give_away(folder / "file", monkeypatch)
    with pytest.raises(PermissionError, match=f"belongs to user {SOMEONE}"):
        read(folder / "file")


def a_link(path: Path) -> None:
    write(path.with_name("target"), b"code")
    path.symlink_to("target")


@pytest.mark.parametrize("make", [a_link, os.mkfifo, Path.mkdir])
def test_what_is_no_file(make: Callable[[Path], None], folder: Path) -> None:
    make(folder / "file")
    with pytest.raises(OSError, match="file"):
        read(folder / "file")


def test_a_file_in_the_way_is_not_written_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if its name were guessed."""
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    (folder / "victim").write_bytes(b"precious")
    (folder / "file.guessed").symlink_to("victim")
    with pytest.raises(FileExistsError):
        write(folder / "file", b"code")
    assert (folder / "victim").read_bytes() == b"precious"
    assert (folder / "file.guessed").is_symlink()


def test_names_that_nobody_can_guess(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    replace = Path.replace

    def look(part: Path, path: Path) -> Path:
        names.append(part.name)
        return replace(part, path)

    monkeypatch.setattr(Path, "replace", look)
    for _ in range(10):
        write(folder / "file", b"code")
    assert len(set(names)) == 10


def test_folders_are_made_so_that_only_this_user_can_write(folder: Path) -> None:
    before = os.umask(0)
    try:
        make_folder(folder / "a" / "b" / "c", 0o700)
    finally:
        os.umask(before)
    made = [folder / "a", folder / "a" / "b", folder / "a" / "b" / "c"]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o755, 0o755, 0o700]
    make_folder(made[-1])


def test_the_oldest_are_removed(folder: Path) -> None:
    files = [folder / str(number) for number in range(5)]
    for age, path in enumerate(files):
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    remove_oldest([*files, folder / "removed by another process"], 3)
    assert sorted(folder.iterdir()) == files[:3]
