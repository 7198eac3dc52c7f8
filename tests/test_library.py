"""The cache of compiled kernels: where it is, what it trusts, what makes a file another one, and doing without."""

from __future__ import annotations

import ast
import compileall
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numpy as np
import pytest

from gte_np import BackendError, EmbeddingModel, GteError, MissingDependencyError
from gte_np.cli import main
from gte_np.kernels.runtime import compile as entries
from gte_np.kernels.runtime import object_cache
from gte_np.kernels.targets import TARGETS, Target
from gte_np.kernels.targets.host import host_target
from tests.programs import run_program
from tests.users import give_away

TEXTS = ["That is a happy person", "中国的首都是哪里", "", *(f"number {number}" for number in range(40))]
COMPILING = "compiling kernels for this processor, once: it takes about ten seconds ..."
FUNCTIONS = ["pack_4_bytes", "encode_float32"]  # of a float32 checkpoint
PACKAGE = Path(object_cache.__file__).resolve().parent.parent.parent
DIGEST_SIZE = 32
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs users and the modes of files")


def file_name(name: str) -> str:
    """The name of a function's file in the cache."""
    return object_cache._file_name(name, host_target())


@pytest.fixture(scope="module")
def object_code() -> dict[str, bytes]:
    """What the compiler gave before the tests."""
    return {name: object_cache._object_code(name, host_target()) for name in entries.entries(host_target())}


@pytest.fixture
def compiled(object_code: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names that are compiled from now on, as in a new process; the compiler gives what it gave before."""
    names: list[str] = []

    def compile_entry(name: str, *_: Any) -> bytes:
        names.append(name)
        return object_code[name]

    monkeypatch.setattr(entries, "compile_entry", compile_entry)
    monkeypatch.setattr(object_cache, "_functions", {})
    for tell in (object_cache._tell_of_compiling, object_cache._tell_that_nothing_is_kept):
        tell.cache_clear()
    yield names
    for tell in (object_cache._tell_of_compiling, object_cache._tell_that_nothing_is_kept):
        tell.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder for compiled functions; it is not there yet."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(object_cache, "cache_folders", lambda: [folder])
    return folder


@pytest.fixture
def no_folder(tmp_path: Path) -> Path:
    """A folder that cannot be made, not even by root: it would be below a file."""
    (tmp_path / "a-file").touch()
    return tmp_path / "a-file" / "folder"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of this user's cache in everybody's folder for temporary files."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp" / f"gte_np-{os.getuid()}"


def load(folder: Path) -> Any:
    """The vectors that a model gives which is loaded now."""
    return EmbeddingModel(folder, backend="numba").encode(TEXTS)


def forget_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know no functions, as the next process."""
    monkeypatch.setattr(object_cache, "_functions", {})


def is_whole(path: Path) -> bool:
    """Whether a file of the cache is as it was written."""
    content = path.read_bytes()
    return hashlib.sha256(content[DIGEST_SIZE:]).digest() == content[:DIGEST_SIZE]


def messages(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """The level and the text of all that was logged."""
    return [(record.levelno, record.getMessage()) for record in caplog.records]


# --- where the files are ------------------------------------------------------------------------------------------


@POSIX
def test_the_folders_in_their_order(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "chosen"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    own, home = PACKAGE / "kernels" / "__pycache__", tmp_path / "home" / ".cache" / "gte_np"
    assert object_cache.cache_folders() == [tmp_path / "chosen" / "gte_np", own, home, temporary]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    assert object_cache.cache_folders() == [own, tmp_path / "xdg" / "gte_np", temporary]


@pytest.mark.parametrize(
    ("platform", "variable", "folder"),
    [
        ("linux", "HOME", ".cache/gte_np"),
        ("darwin", "HOME", "Library/Caches/gte_np"),
        ("win32", "HOME", "AppData/Local/gte_np"),
        ("win32", "LOCALAPPDATA", "gte_np"),
    ],
)
def test_a_user_s_folder(
    platform: str, variable: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert object_cache.cache_folders()[-2] == tmp_path / folder


@POSIX
def test_nobody_s_home(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container a user may have a number, and neither a name nor a home."""

    def nobody(user: int) -> Any:
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert object_cache.cache_folders() == [PACKAGE / "kernels" / "__pycache__", temporary]


@POSIX
@pytest.mark.usefixtures("compiled")
def test_only_the_folder_for_temporary_files_is_left(
    no_folder: Path, temporary: Path, small_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert object_cache._fingerprint(
        host_target()
    )  # of the package, which is then made to look as if nothing could be written to it
    monkeypatch.setattr(object_cache, "_PACKAGE", no_folder)
    monkeypatch.setenv("HOME", str(no_folder))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(no_folder))
    load(small_folder)
    assert sorted(path.name for path in temporary.iterdir()) == sorted(map(file_name, FUNCTIONS))
    assert temporary.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o022 == 0 for path in temporary.iterdir())


def others_may_write(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def the_group_may_write(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o770)


def a_link(folder: Path) -> None:
    target = folder.with_name("elsewhere")
    target.mkdir(mode=0o700)
    folder.symlink_to(target)


@POSIX
@pytest.mark.parametrize("prepare", [others_may_write, the_group_may_write, a_link])
def test_a_temporary_folder_that_others_could_write_to_is_not_trusted(
    prepare: Any, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(temporary)
    expect_no_trust(temporary, tmp_path / "cache", monkeypatch)


@POSIX
def test_a_temporary_folder_of_someone_else_is_not_trusted(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary.mkdir(mode=0o700)
    give_away(temporary, monkeypatch)
    expect_no_trust(temporary, tmp_path / "cache", monkeypatch)


@POSIX
@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"])
@pytest.mark.parametrize("depth", [0, 1])
def test_a_chosen_folder_that_others_can_write_to_is_not_trusted(
    variable: str, depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    shared = tmp_path / "shared"
    chosen = shared / "deeper" if depth else shared
    chosen.mkdir(parents=True)
    shared.chmod(0o777)
    monkeypatch.setenv(variable, str(chosen))
    monkeypatch.setattr(sys, "platform", "linux")
    [folder] = [folder for folder in object_cache.cache_folders() if shared in folder.parents]
    assert object_cache.why_passed_over(folder) == f"others can write to {shared}"
    before = list(shared.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(object_cache, "cache_folders", lambda: [folder])
        object_cache._keep("pack_4_bytes", host_target(), b"code")
    assert list(shared.rglob("*")) == before
    folder.mkdir(parents=True)
    expect_no_trust(folder, tmp_path / "cache", monkeypatch)


def everybody_s(path: Path, _: pytest.MonkeyPatch) -> None:
    path.chmod(0o666)


@POSIX
@pytest.mark.parametrize("spoil", [everybody_s, give_away])
def test_a_file_that_others_could_have_written_is_replaced(
    spoil: Any, cache: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = object_cache._object_code("pack_4_bytes", host_target())
    path = cache / file_name("pack_4_bytes")
    path.write_bytes(hashlib.sha256(b"evil").digest() + b"evil")
    found = object_cache._object_code("pack_4_bytes", host_target())
    assert found == b"evil"  # the digest says only that it is whole
    spoil(path, monkeypatch)
    assert object_cache._object_code("pack_4_bytes", host_target()) == code
    assert compiled == ["pack_4_bytes"] * 2


def expect_no_trust(folder: Path, next_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the folder is not read, and none is written there."""
    monkeypatch.setattr(object_cache, "cache_folders", lambda: [folder, next_folder])
    assert object_cache.why_passed_over(folder)
    path = folder / file_name("pack_4_bytes")
    path.write_bytes(hashlib.sha256(b"evil").digest() + b"evil")
    assert path not in object_cache.kept_files()
    assert object_cache._find("pack_4_bytes", host_target()) is None
    object_cache._keep("pack_4_bytes", host_target(), b"good")
    assert path.read_bytes()[DIGEST_SIZE:] == b"evil"
    assert object_cache._find("pack_4_bytes", host_target()) == (next_folder / path.name, b"good")
    assert object_cache._object_code("pack_4_bytes", host_target()) == b"good"


def test_without_any_folder_it_works(
    no_folder: Path, small: EmbeddingModel, small_folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_cache, "cache_folders", lambda: [no_folder])
    assert np.array_equal(load(small_folder), small.encode(TEXTS))
    assert np.array_equal(load(small_folder), small.encode(TEXTS))
    assert compiled == FUNCTIONS  # once for the process
    assert object_cache.compile_all() == []


@pytest.mark.usefixtures("compiled")
def test_without_any_folder_one_warning_tells(
    no_folder: Path, small_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_cache, "cache_folders", lambda: [no_folder])
    load(small_folder)
    warning = "found no folder to keep compiled kernels in: the next process compiles them again."
    assert messages(caplog) == [(logging.WARNING, COMPILING), (logging.WARNING, warning)]


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose files can only be read, with the kernels in its image, needs none."""

    def gettempdir() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", gettempdir)
    assert object_cache._find("pack_4_bytes", host_target()) is not None


# --- what is in them ----------------------------------------------------------------------------------------------


def test_compiled_once_and_kept(
    cache: Path, small: EmbeddingModel, small_folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert np.array_equal(load(small_folder), small.encode(TEXTS))
        forget_functions(monkeypatch)
    assert compiled == FUNCTIONS
    assert sorted(path.name for path in cache.iterdir()) == sorted(map(file_name, FUNCTIONS))
    assert all(is_whole(path) for path in cache.iterdir())


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "no code": lambda content: content[:DIGEST_SIZE],
    "short": lambda content: content[: len(content) // 2],
    "one byte off": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    "longer": lambda content: content + b"\0",
    "something else": lambda content: bytes(range(256)) * 10,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_replaced(damage: str, cache: Path, small_folder: Path, compiled: list[str]) -> None:
    object_cache.compile_all()
    path = cache / file_name("encode_float32")
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    compiled.clear()
    load(small_folder)
    assert compiled == ["encode_float32"]
    assert path.read_bytes() == whole
    assert len(list(cache.iterdir())) == len(entries.entries(host_target()))


def test_a_file_that_cannot_be_read_is_passed_over(cache: Path, compiled: list[str]) -> None:
    (cache / file_name("pack_4_bytes")).mkdir(parents=True)  # not even root can read it
    assert object_cache._object_code("pack_4_bytes", host_target())
    assert compiled == ["pack_4_bytes"]


@POSIX
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from gte_np.kernels.runtime import object_cache\n"
        "from gte_np.kernels.targets.host import host_target\n"
        "object_cache.cache_folders = lambda: [Path(sys.argv[1])]\n"
        "object_cache._fingerprint(host_target())\n"
        "object_cache.logger.disabled = True\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "object_cache._keep('pack_4_bytes', host_target(), bytes(5000))\n"
    )
    run_program(program, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@POSIX
def test_what_one_user_warms_up_others_can_read(cache: Path) -> None:
    """As in an image that root builds and another user runs."""
    before = os.umask(0o022)
    try:
        object_cache._keep("pack_4_bytes", host_target(), b"code")
    finally:
        os.umask(before)
    assert cache.stat().st_mode & 0o777 == 0o755
    assert (cache / file_name("pack_4_bytes")).stat().st_mode & 0o777 == 0o644


@POSIX
def test_what_is_kept_under_any_umask_is_found(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_cache, "cache_folders", lambda: [cache / "deep" / "deeper"])
    before = os.umask(0)
    try:
        object_cache._keep("pack_4_bytes", host_target(), b"code")
    finally:
        os.umask(before)
    assert object_cache._find("pack_4_bytes", host_target()) is not None
    assert cache.stat().st_mode & 0o777 == 0o755


def test_old_files_are_forgotten(cache: Path) -> None:
    """Only the oldest ones of this cache, and nothing else."""
    cache.mkdir()
    ours = [cache / f"encode_float32-{number:024x}.o" for number in range(object_cache._MOST_FILES + 10)]
    ours += [cache / f"pack_float16-{0:024x}.o.{number:016x}" for number in range(3)]  # of processes that were killed
    others = [cache / name for name in ("simd.cpython-311.pyc", "encode_float32-1.o", f"evil-{0:024x}.o")]
    for age, path in enumerate([*ours, *others]):
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    folder = cache / f"encode_int8x4-{0:024x}.o"
    folder.mkdir()
    os.utime(folder, (0, 0))
    object_cache._keep("pack_4_bytes", host_target(), b"code")
    newest = {cache / file_name("pack_4_bytes"), *ours[: object_cache._MOST_FILES - 1]}
    assert set(cache.iterdir()) == {*newest, *others, folder}
    assert object_cache._find("pack_4_bytes", host_target()) is not None


def test_all_files_of_the_cache_are_known() -> None:
    for target in TARGETS:
        for name in entries.entry_names(target):
            assert object_cache._FILE_NAME.fullmatch(object_cache._file_name(name, target)), name


def without_caches(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__"]


def copy_package(folder: Path) -> Path:
    """Copy the package without what was compiled, and return the copy."""
    return shutil.copytree(PACKAGE, folder / "gte_np", ignore=without_caches)


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that uses a copy of the package, whose folder cannot keep anything."""
    package = copy_package(tmp_path / "copy")
    (package / "kernels" / "__pycache__").touch()
    return os.environ | {
        "PYTHONPATH": str(package.parent),
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "HOME": "/nonexistent",
        "HF_HUB_OFFLINE": "1",
    }


def test_four_processes_fill_one_empty_cache(
    elsewhere: dict[str, str], tmp_path: Path, small: EmbeddingModel, small_folder: Path
) -> None:
    """The one test that compiles: in each process, at the same time."""
    command = [sys.executable, "-m", "gte_np", "embed", str(small_folder), "-"]
    texts = tmp_path / "texts"
    texts.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    children = []
    for number in range(4):
        with texts.open() as stdin, (tmp_path / f"{number}.jsonl").open("wb") as stdout:
            children.append(
                subprocess.Popen(
                    [*command, "--backend", "numba"],
                    stdin=stdin,
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=elsewhere,
                    cwd=tmp_path,
                )
            )
    told = [child.communicate(timeout=200)[1] for child in children]
    assert [child.returncode for child in children] == [0] * 4
    assert f"gte-np: {COMPILING}\n" in told
    assert set(told) <= {f"gte-np: {COMPILING}\n", ""}  # a late one may find all there
    for number in range(4):
        rows = [json.loads(line) for line in (tmp_path / f"{number}.jsonl").read_text("utf-8").splitlines()]
        assert np.array_equal(np.array([row["embedding"] for row in rows], np.float32), small.encode(TEXTS))
    files = list((tmp_path / "cache" / "gte_np").iterdir())
    assert sorted(path.name for path in files) == sorted(map(file_name, FUNCTIONS))
    assert all(is_whole(path) for path in files)


def test_a_warm_start_needs_no_compiler(small_folder: Path) -> None:
    program = (
        "import sys, gte_np; gte_np.EmbeddingModel(sys.argv[1], backend='numba').encode(['happy'] * 3)\n"
        "assert 'llvmlite' in sys.modules and 'numba' not in sys.modules"
    )
    run_program(program, small_folder)


# --- what makes a file another one ------------------------------------------------------------------------------


def fingerprint(target: Target | None = None) -> str:
    """The fingerprint as a new process would compute it."""
    return object_cache._fingerprint.__wrapped__(target or host_target())


def test_the_place_and_the_age_of_the_package_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fingerprint()
    package = copy_package(tmp_path)
    for path in package.rglob("*.py"):
        os.utime(path, (0, 0))
    monkeypatch.setattr(object_cache, "_PACKAGE", package)
    assert fingerprint() == expected == object_cache._fingerprint(host_target())


SOURCES = [
    path.relative_to(PACKAGE) for package in ("kernels", "formats") for path in (PACKAGE / package).rglob("*.py")
]
SOURCES.append(Path("reference", "erf.py"))


def test_each_source_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = copy_package(tmp_path)
    monkeypatch.setattr(object_cache, "_PACKAGE", package)
    found = {fingerprint()}
    for path in SOURCES:
        with (package / path).open("a") as file:
            file.write("# another line\n")
        found.add(fingerprint())
    assert len(found) == 1 + len(SOURCES)


def file_of(module: list[str]) -> Path:
    """The file of a module or a package."""
    path = Path(*module)
    return path / "__init__.py" if (PACKAGE / path).is_dir() else path.with_suffix(".py")


def test_all_that_is_compiled_is_in_the_fingerprint() -> None:
    """What the module of the entries imports of this package, and what these modules import."""
    seen: set[Path] = set()
    waiting = [Path("kernels", "runtime", "compile.py")]
    while waiting:
        path = waiting.pop()
        if path in seen or path.parts[0] not in ("kernels", "formats", "reference"):
            continue
        seen.add(path)
        nodes = list(ast.walk(ast.parse((PACKAGE / path).read_text("utf-8"))))
        modules = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
        names = [module.split(".") for module in modules if module.startswith("gte_np.")]
        waiting += [file_of(name[1:]) for name in names]
    assert Path("kernels", "language", "vectors.py") in seen
    assert seen <= set(SOURCES)


# --- where there are no files of source ------------------------------------------------------------------------


def to_bytecode(package: Path) -> None:
    """Take a package's source away and leave its bytecode."""
    assert compileall.compile_dir(package, quiet=1, legacy=True)
    for path in package.rglob("*.py"):
        path.unlink()


def zipped(package: Path) -> Path:
    """Put a package into an archive, and leave nothing else."""
    archive = package.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(package.rglob("*.py*")):
            file.write(path, path.relative_to(package.parent))
    shutil.rmtree(package)
    return archive


def zipped_bytecode(package: Path) -> Path:
    """As py2exe, say, does it."""
    to_bytecode(package)
    return zipped(package)


ENCODE = """
import sys, gte_np
import numpy as np

model = gte_np.EmbeddingModel(sys.argv[1], backend="numba")
np.save(sys.argv[2], model.encode(["happy person"]))
print(gte_np.__file__)
"""


@pytest.mark.parametrize("pack", [zipped, zipped_bytecode])
def test_in_an_archive(
    pack: Callable[[Path], Path], small: EmbeddingModel, small_folder: Path, tmp_path: Path
) -> None:
    """Compiled the first time, and kept for the second."""
    archive = pack(copy_package(tmp_path / "copy"))
    environment = os.environ | {"PYTHONPATH": str(archive), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for number in range(2):
        output = tmp_path / f"{number}.npy"
        done = subprocess.run(
            [sys.executable, "-c", ENCODE, str(small_folder), str(output)],
            capture_output=True,
            check=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )
        assert done.stdout.startswith(str(archive))
        assert done.stderr.splitlines() == [COMPILING] * (number == 0)
        assert np.array_equal(np.load(output), small.encode(["happy person"]))
    assert len(list((tmp_path / "cache" / "gte_np").iterdir())) == len(FUNCTIONS)


def test_an_archive_of_the_source_has_its_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fingerprint()
    archive = zipped(copy_package(tmp_path))
    monkeypatch.setattr(object_cache, "_PACKAGE", archive / "gte_np")
    assert fingerprint() == expected


@pytest.mark.parametrize("pack", [lambda package: package.parent, zipped])
def test_bytecode_counts(pack: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: set[str] = set()
    for line in ("", "# another line\n", "another = 3\n"):
        package = copy_package(tmp_path / str(len(found)))
        with (package / "kernels" / "simd.py").open("a") as file:
            file.write(line)
        os.utime(package / "kernels" / "simd.py", (0, 0))
        to_bytecode(package)
        monkeypatch.setattr(object_cache, "_PACKAGE", pack(package) / "gte_np")
        found.add(fingerprint())
    assert len(found) == 3


def no_package(folder: Path) -> None:
    shutil.rmtree(folder / "gte_np")


def no_reference(folder: Path) -> None:
    shutil.rmtree(folder / "gte_np" / "reference")


def no_kernels(folder: Path) -> None:
    shutil.rmtree(folder / "gte_np" / "kernels")


@pytest.mark.parametrize("remove", [no_package, no_reference, no_kernels])
def test_without_any_source_nothing_is_kept(
    remove: Callable[[Path], None],
    cache: Path,
    small: EmbeddingModel,
    small_folder: Path,
    compiled: list[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is compiled in each process: nobody can tell whether what was kept is up to date."""
    package = copy_package(tmp_path)
    remove(tmp_path)
    for cached in (object_cache._fingerprint, object_cache._file_name):
        cached.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(object_cache, "_PACKAGE", package)
        assert np.array_equal(load(small_folder), small.encode(TEXTS))
        assert object_cache.kept_files() == []
        assert object_cache.compile_all() == []
    warning = "found no source of the kernels by which to keep them compiled: the next process compiles them again."
    assert [text for _, text in messages(caplog)] == [COMPILING, warning]
    assert compiled[: len(FUNCTIONS)] == FUNCTIONS
    assert not cache.exists()


@pytest.mark.parametrize("change", [{"cpu": "nehalem"}, {"features": frozenset()}, {"name": "another"}])
def test_another_target_counts(change: dict[str, Any]) -> None:
    assert fingerprint(replace(host_target(), **change)) != fingerprint()


def test_other_compilers_count(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [fingerprint()]
    monkeypatch.setattr(object_cache, "_version", lambda _: "0.0")
    found.append(fingerprint())
    monkeypatch.setattr(llvmlite, "__version__", "0.0")
    found.append(fingerprint())
    assert len(set(found)) == 3


# --- without a compiler -----------------------------------------------------------------------------------------


def hide(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do as if a package were not installed."""
    monkeypatch.setattr(object_cache, "find_spec", lambda wanted: None if wanted == name else find_spec(wanted))


@pytest.mark.parametrize("missing", ["numba", "llvmlite", "leave to compile"])
def test_without_a_compiler_the_reference_is_used(
    missing: str, small_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "leave to compile":
        monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    else:
        hide(missing, monkeypatch)
    model = EmbeddingModel(small_folder)
    assert type(model.bert._encoder).__name__ == "ReferenceEncoder"
    [(level, text)] = messages(caplog)
    assert level == logging.WARNING
    assert text.startswith("backend 'numba': expected")
    assert text.endswith("The slower NumPy encoder is used.")
    assert np.array_equal(model.encode(TEXTS), EmbeddingModel(small_folder, backend="numpy").encode(TEXTS))
    with pytest.raises(MissingDependencyError, match="backend 'numba': expected"):
        EmbeddingModel(small_folder, backend="numba")
    assert len(caplog.records) == 1


@pytest.mark.parametrize("value", ["", "0"])
def test_leave_to_compile(value: str, small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", value)
    assert type(EmbeddingModel(small_folder).bert._encoder).__name__ == "KernelEncoder"


def command(*arguments: str | Path, environment: dict[str, str], folder: Path) -> tuple[int, list[str]]:
    """The exit status of gte-np, and its lines on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "gte_np", *map(str, arguments)],
        input="happy\n",
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=folder,
    )
    return done.returncode, done.stderr.splitlines()


def test_the_command_without_a_compiler(elsewhere: dict[str, str], small_folder: Path, tmp_path: Path) -> None:
    environment = elsewhere | {"NUMBA_DISABLE_JIT": "1"}
    status, told = command("embed", small_folder, environment=environment, folder=tmp_path)
    assert (status, len(told)) == (0, 1)
    assert told[0].endswith("The slower NumPy encoder is used.")
    for arguments in (["warmup"], ["embed", small_folder, "--backend", "numba"]):
        status, told = command(*arguments, environment=environment, folder=tmp_path)
        assert (status, len(told)) == (2, 1)
        assert told[0].startswith("gte-np: error: backend 'numba': expected")


@pytest.mark.parametrize(
    ("package", "error"),
    [
        ("numba", "ImportError('Numba needs NumPy 2.0 or less')"),
        ("numba", "SystemError('Numba needs NumPy 2.0 or less')"),
        ("llvmlite", "ImportError('DLL load failed')"),
        ("llvmlite", "OSError('cannot load libllvmlite.so')"),
    ],
)
def test_a_broken_compiler(
    package: str, error: str, elsewhere: dict[str, str], small_folder: Path, tmp_path: Path
) -> None:
    """One that is installed and cannot be imported, as after an upgrade of NumPy."""
    break_package(package, error, tmp_path, elsewhere)
    status, told = command("embed", small_folder, environment=elsewhere, folder=tmp_path)
    assert status == 0
    assert told[-1].endswith("The slower NumPy encoder is used.")


def test_warmup_with_a_broken_compiler(elsewhere: dict[str, str], tmp_path: Path) -> None:
    break_package("numba", "ImportError('Numba needs NumPy 2.0 or less')", tmp_path, elsewhere)
    status, told = command("warmup", environment=elsewhere, folder=tmp_path)
    assert (status, len(told)) == (2, 1)


def break_package(package: str, error: str, folder: Path, environment: dict[str, str]) -> None:
    """Put a package before the installed one that raises an error when it is imported."""
    (folder / "broken" / package).mkdir(parents=True)
    (folder / "broken" / package / "__init__.py").write_text(f"raise {error}\n")
    environment["PYTHONPATH"] = os.pathsep.join([str(folder / "broken"), environment["PYTHONPATH"]])


def fail_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_entry(*_: Any) -> bytes:
        raise ValueError("no such instruction")

    monkeypatch.setattr(entries, "compile_entry", compile_entry)


def compile_by_another_llvmlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(llvmlite.binding, "create_pass_builder")


def compile_by_another_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.njit", lambda *_, **__: lambda function: object())


def fail_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(llvmlite.binding, "create_mcjit_compiler")


def know_no_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(llvmlite.binding, "get_host_cpu_name")
    host_target.cache_clear()
    object_cache._fingerprint.cache_clear()
    object_cache._file_name.cache_clear()


FAILURES = [
    (fail_to_compile, "ValueError: no such instruction"),
    (compile_by_another_llvmlite, "AttributeError: .*create_pass_builder"),
    (compile_by_another_numba, "AttributeError: .*overloads"),
    (fail_to_load, "AttributeError: .*create_mcjit_compiler"),
    (know_no_processor, "AttributeError: .*get_host_cpu_name"),
]


@pytest.mark.parametrize(("spoil", "message"), FAILURES)
def test_a_compiler_that_fails(
    spoil: Callable[[pytest.MonkeyPatch], None],
    message: str,
    cache: Path,
    small_folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forget_functions(monkeypatch)
    object_cache._tell_of_compiling()  # nothing more is told of it
    caplog.clear()
    with monkeypatch.context() as patch:
        spoil(patch)
        model = EmbeddingModel(small_folder)
        [(level, text)] = messages(caplog)
        with pytest.raises(BackendError, match=message) as caught:
            EmbeddingModel(small_folder, backend="numba")
    host_target.cache_clear()
    assert isinstance(caught.value, GteError)
    assert text == f"{caught.value} The slower NumPy encoder is used."
    assert level == logging.WARNING
    assert len(caplog.records) == 1
    assert type(model.bert._encoder).__name__ == "ReferenceEncoder"
    assert np.array_equal(model.encode(TEXTS), EmbeddingModel(small_folder, backend="numpy").encode(TEXTS))
    assert object_cache._object_code("pack_4_bytes", host_target())  # the next one may succeed


def test_the_command_with_a_compiler_that_fails(
    elsewhere: dict[str, str], small_folder: Path, tmp_path: Path
) -> None:
    package = Path(elsewhere["PYTHONPATH"]) / "gte_np"
    with (package / "kernels" / "runtime" / "compile.py").open("a") as file:
        file.write("\n\nnumba = None\n")
    status, told = command("embed", small_folder, environment=elsewhere, folder=tmp_path)
    assert (status, told[0]) == (0, f"gte-np: {COMPILING}")
    assert told[1].endswith("The slower NumPy encoder is used.")
    assert len(told) == 2
    for arguments in (["warmup"], ["embed", small_folder, "--backend", "numba"]):
        status, told = command(*arguments, environment=elsewhere, folder=tmp_path)
        assert (status, len(told)) == (2, 2)
        assert told[1].startswith("gte-np: error: backend 'numba': expected kernels that Numba ")


# --- warmup -----------------------------------------------------------------------------------------------------


def test_warmup_prints_the_files(cache: Path, compiled: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["warmup"]) == 0
        printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
        assert printed == [cache / file_name(name) for name in entries.entries(host_target())]
        assert all(is_whole(path) for path in printed)
    assert compiled == list(entries.entries(host_target()))  # the first time


@pytest.mark.usefixtures("cache", "compiled")
def test_the_first_compilation_is_told_of_once(small_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        load(small_folder)
        object_cache.compile_all()
    assert messages(caplog) == [(logging.WARNING, COMPILING)]


COMPILE_OFTEN = """
import sys
from gte_np import EmbeddingModel
from gte_np.kernels.runtime import compile as entries
from gte_np.kernels.runtime import object_cache
from gte_np.kernels.targets.host import host_target

code = {name: object_cache._object_code(name, host_target()) for name in entries.entries(host_target())}
entries.compile_entry = lambda name, *_: code[name]
if sys.argv[2] == "cold":
    object_cache.cache_folders = list
for _ in range(2):
    EmbeddingModel(sys.argv[1], backend="numba").encode("happy")
"""


@pytest.mark.parametrize(("cache_is", "told"), [("cold", 1), ("warm", 0)])
def test_who_has_set_up_no_logging_is_told_of_compiling(cache_is: str, told: int, small_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILE_OFTEN, str(small_folder), cache_is], capture_output=True, check=True, text=True
    )
    assert done.stderr.splitlines().count(COMPILING) == told


@pytest.mark.usefixtures("cache")
def test_an_error_of_the_compiler_s_import_is_one_of_this_package(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gte_np.kernels.runtime.compile", None)
    with pytest.raises(MissingDependencyError, match="expected Numba, got: ") as caught:
        object_cache._object_code("pack_4_bytes", host_target())
    assert isinstance(caught.value, GteError)
    assert compiled == []
