"""The package as a wheel has it, with kernels built ahead of time: no compiler, nothing written, in odd places.

A package that is used where its source is has no such kernels: those of this processor's best target are built once,
and put into a copy of the package.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from gte_np import EmbeddingModel
from gte_np.formats import FORMATS
from gte_np.kernels.runtime import compile as entries
from gte_np.kernels.runtime.prebuilt import library_name
from gte_np.kernels.targets.host import runnable_targets
from scripts import build_kernels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are built ahead of time for Linux")

ROOT = Path(__file__).resolve().parent.parent
TARGET = runnable_targets()[0]
TEXTS = ["That is a happy person", "中国的首都是哪里", "", *(f"number {number}" for number in range(40))]
DTYPES = ("float32", "bfloat16", "int8")

# What a process does, after it has found the package in its first argument, to say what the tests want to know.
PRELUDE = """
import os, pwd, sys
sys.modules["numba"] = sys.modules["llvmlite"] = None  # importing them fails
place, model = sys.argv[1:3]
sys.path.insert(0, place)
"""
ENCODE = f"""
import gte_np
assert gte_np.__file__.startswith(place)
for dtype in {DTYPES}:
    sys.stdout.buffer.write(gte_np.EmbeddingModel(model, dtype=dtype, backend="numba").encode({TEXTS}).tobytes())
"""
NOBODY = """
def getpwuid(number):
    raise KeyError(number)
pwd.getpwuid = getpwuid
"""
WATCH = """
def watch(event, arguments):
    if event == "open" and not isinstance(arguments[0], int):  # a number is of a file that is open
        if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            sys.stderr.write(f"writes {arguments[0]}\\n")
    elif event.startswith(("tempfile.", "shutil.", "subprocess.", "os.exec", "os.posix_spawn")):
        sys.stderr.write(f"{event} {arguments}\\n")
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.truncate", "os.system"):
        sys.stderr.write(f"{event} {arguments}\\n")
    elif event == "ctypes.dlopen":
        loaded.append(arguments[0])
loaded = []
sys.addaudithook(watch)
"""
MAPS = """
for line in open("/proc/self/maps"):
    _, rights, _, _, _, *name = line.split()
    if "x" in rights and ("w" in rights or not name or name[0][0] not in "/["):
        sys.stderr.write(f"code that was made here: {line}")
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared object of this processor's best target, from a process that builds nothing else."""
    folder = tmp_path_factory.mktemp("kernels")
    command = [sys.executable, "-m", "scripts.build_kernels", "--target", TARGET.name, "--out", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=300)
    return folder / library_name(TARGET)


@pytest.fixture(scope="module")
def place(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package and its kernels; do not change it."""
    return deploy(library, tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def archive(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with the same."""
    return Path(shutil.make_archive(str(tmp_path_factory.mktemp("archive") / "all"), "zip", place))


@pytest.fixture(scope="module")
def expected(small_folder: Path) -> bytes:
    """The vectors by kernels that are compiled for this very processor, in each dtype."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GTE_NP_TARGET", "native")
        models = [EmbeddingModel(small_folder, dtype=dtype, backend="numba") for dtype in DTYPES]
        return b"".join(model.encode(TEXTS).tobytes() for model in models)


def deploy(library: Path, folder: Path) -> Path:
    """Copy the package and a shared object into a folder, and return the folder."""
    package = shutil.copytree(
        ROOT / "gte_np", folder / "gte_np", ignore=shutil.ignore_patterns("__pycache__", "prebuilt")
    )
    (package / "kernels" / "runtime" / "prebuilt").mkdir()
    shutil.copy(library, package / "kernels" / "runtime" / "prebuilt")
    return folder


def run(
    program: str, place: Path, model: Path, *options: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a program after the prelude, with options of Python, in an environment that is empty by default."""
    command = [sys.executable, *options, "-c", PRELUDE + program, str(place), str(model)]
    return subprocess.run(command, capture_output=True, check=False, env=environment or {}, cwd="/", timeout=100)


def printed(done: subprocess.CompletedProcess[bytes]) -> bytes:
    """What a process printed. Fail if it failed, or said anything on stderr."""
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout


# --- odd places ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("-I",), ("-OO",), ("-I", "-OO", "-B", "-S")], ids=" ".join)
def test_encodes_without_a_compiler(
    options: tuple[str, ...], place: Path, small_folder: Path, expected: bytes
) -> None:
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}  # -S leaves out the folder of NumPy, and -I the variable
    program = f"sys.path += {sys.path}\n{ENCODE}" if "-S" in options else ENCODE
    assert printed(run(program, place, small_folder, *options, environment=environment)) == expected


def test_writes_nothing_and_compiles_nothing(place: Path, small_folder: Path, expected: bytes) -> None:
    before = sorted(place.rglob("*"))
    environment = {"PYTHONDONTWRITEBYTECODE": "1"}  # Python's own files
    check = f"assert {{name for name in loaded if name and place in name}} == {{{str(own_library(place))!r}}}, loaded"
    done = run(WATCH + ENCODE + MAPS + check, place, small_folder, environment=environment)
    assert printed(done) == expected
    assert sorted(place.rglob("*")) == before


def own_library(place: Path) -> Path:
    """Where the kernels of a copy of the package are."""
    return place / "gte_np" / "kernels" / "runtime" / "prebuilt" / library_name(TARGET)


def test_encodes_for_nobody_who_has_no_home(place: Path, small_folder: Path, expected: bytes) -> None:
    environment = {"TMPDIR": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"}
    done = run(NOBODY + WATCH + ENCODE, place, small_folder, "-B", environment=environment)
    assert printed(done) == expected


def test_encodes_from_an_archive_and_unpacks_nothing(archive: Path, small_folder: Path, expected: bytes) -> None:
    assert printed(run(WATCH + ENCODE + MAPS, archive, small_folder, "-B")) == expected


def test_reports_kernels_built_ahead_of_time(place: Path, archive: Path, small_folder: Path) -> None:
    for found in (place, archive):
        done = run("import gte_np.cli; sys.exit(gte_np.cli.main(['doctor']))", found, small_folder)
        [line] = [line for line in done.stdout.decode().splitlines() if line.startswith("kernels ")]
        assert line.endswith(f"built ahead of time, in {own_library(found)}")


def test_no_library_is_one_error(library: Path, tmp_path: Path, small_folder: Path) -> None:
    place = deploy(library, tmp_path)
    own_library(place).write_bytes(b"no library")
    done = run(ENCODE, place, small_folder)
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("gte_np.errors.BackendError: backend 'numba': expected kernels that can be loaded from")
    assert last.endswith("Install gte_np again, or use backend 'numpy'.")


# --- the shared object --------------------------------------------------------------------------------------------

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_GNU_STACK = 1, 2, 3, 0x6474E551
EXECUTE, WRITE = 1, 2
DT_NEEDED, DT_HASH, DT_SYMTAB, DT_STRTAB, DT_TEXTREL, DT_FLAGS, DF_TEXTREL = 1, 4, 6, 5, 22, 30, 4


def segments(elf: bytes) -> list[tuple[int, ...]]:
    """Of each segment: type, flags, offset in the file, two addresses, sizes in the file and in memory."""
    assert elf[:6] == b"\x7fELF\x02\x01"  # of 64 bits, little-endian
    (start,), (size, count) = struct.unpack_from("<Q", elf, 32), struct.unpack_from("<2H", elf, 54)
    return [struct.unpack_from("<2I6Q", elf, start + number * size)[:7] for number in range(count)]


def dynamic(elf: bytes) -> list[tuple[int, int]]:
    """The tags and values of the dynamic section."""
    [(_, _, start, _, _, size, _)] = [segment for segment in segments(elf) if segment[0] == PT_DYNAMIC]
    return list(struct.iter_unpack("<2Q", elf[start : start + size]))


def offset(elf: bytes, address: int) -> int:
    """Where in the file an address is."""
    [(_, _, start, first, *_)] = [
        segment for segment in segments(elf) if segment[0] == PT_LOAD and 0 <= address - segment[3] < segment[5]
    ]
    return start + address - first


def symbols(elf: bytes) -> dict[str, bool]:
    """The names that the dynamic linker knows, and whether each is defined."""
    tags = dict(dynamic(elf))
    table, names = offset(elf, tags[DT_SYMTAB]), offset(elf, tags[DT_STRTAB])
    _, count = struct.unpack_from("<2I", elf, offset(elf, tags[DT_HASH]))
    found = [struct.unpack_from("<I2BH2Q", elf, table + 24 * number) for number in range(1, count)]
    return {elf[names + symbol[0] :].split(b"\0", 1)[0].decode(): symbol[3] != 0 for symbol in found}


def test_the_library_asks_for_nothing(library: Path) -> None:
    """No other library, no change of its code when it is loaded, no stack that can be executed."""
    elf = library.read_bytes()
    tags = dynamic(elf)
    assert not {tag for tag, _ in tags} & {DT_NEEDED, DT_TEXTREL}
    assert not dict(tags).get(DT_FLAGS, 0) & DF_TEXTREL
    kinds = {kind: flags for kind, flags, *_ in segments(elf)}
    assert PT_INTERP not in kinds
    assert not kinds[PT_GNU_STACK] & EXECUTE
    assert not [segment for segment in segments(elf) if segment[1] & EXECUTE and segment[1] & WRITE]


def test_the_library_has_all_functions_and_no_other(library: Path) -> None:
    names = [f"encode_{weight_format.name}" for weight_format in FORMATS] + ["pack_4_bytes", "pack_2_bytes"]
    if TARGET.matrix_unit is not None:
        names += ["multiply_tiles_bfloat16", "multiply_tiles_int8"]
    if TARGET.int8_dot_product.cuts_off:
        names += ["order_features"]
    assert symbols(library.read_bytes()) == dict.fromkeys(names, True)


def test_a_build_in_another_order_gives_the_same_bytes(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another process, too, which has compiled much before."""
    functions = list(entries.entries(TARGET).items())
    code = {name: entries.compile_for_linker(name, entry, TARGET) for name, entry in reversed(functions)}
    monkeypatch.setattr(entries, "compile_for_linker", lambda name, entry, target: code[name])
    assert build_kernels.build(TARGET.name, tmp_path).read_bytes() == library.read_bytes()
