"""The emulator of AMX: what it does is what NumPy says, and what the processor does where it has AMX."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.emulation import amx, amx_arithmetic, amx_probes
from tests.emulation.amx_probes import LEFT, OUT, Probe
from tests.programs import run_program

pytestmark = pytest.mark.skipif(not amx.CAN_EMULATE, reason="AMX is emulated on Linux and x86-64 only")

REPOSITORY = Path(__file__).resolve().parent.parent
PROBES = amx_probes.all_probes()

START = """
import ctypes, sys
from pathlib import Path
import numpy as np
from tests.emulation import amx

way, emulator, library, *rest = sys.argv[1:]
if way == "processor":
    ctypes.CDLL(None).syscall(158, 0x1023, 18)  # arch_prctl: permission for tile data
else:
    amx.install(Path(emulator))
    amx.install(Path(emulator))  # which changes nothing
probes = ctypes.CDLL(library)
if way == "trapped":
    probes.trap_first()

def run(name, memory):
    getattr(probes, name)(ctypes.c_void_p(memory.ctypes.data))
"""

ALL = """
map_page = ctypes.CDLL(None).mmap
map_page.restype = ctypes.c_void_p
read_write, private_anonymous_fixed = 3, 0x100022
no_base = int(rest[2])
page = [ctypes.c_void_p(no_base), 4096, read_write, private_anonymous_fixed, -1, ctypes.c_long(0)]
assert map_page(*page) == no_base
with np.load(rest[0]) as file:
    memories = dict(file)
counts = []
for name, memory in memories.items():
    before = amx.executed(Path(emulator))
    run(name, memory)
    counts.append(amx.executed(Path(emulator)) - before)
np.savez(rest[1], **memories)
print(*counts)
"""

THREADS = """
import threading
barrier = threading.Barrier(6)
with np.load(rest[0]) as file:
    memories = file["memories"]

def work(memory):
    run("begin", memory)
    for _ in range(20):
        barrier.wait()
        run("go_on", memory)
    barrier.wait()
    run("end", memory)

threads = [threading.Thread(target=work, args=(memory,)) for memory in memories]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
np.save(rest[1], memories)
print(amx.executed(Path(emulator)))
"""

ONE = """
run(rest[0], np.frombuffer(bytearray(Path(rest[1]).read_bytes()), np.uint8))
print("survived")
"""


def has_amx() -> bool:
    """Whether the processor has AMX, and Linux lets processes use it."""
    ask = "import ctypes; print(ctypes.CDLL(None).syscall(158, 0x1023, 18))"
    return "amx_bf16" in Path("/proc/cpuinfo").read_text() and run_program(ask) == "0\n"


WAYS = ["emulator", "trapped", *(["processor"] if amx.CAN_EMULATE and has_amx() else [])]


class Programs:
    """Compiled probes, and the ways to run them.

    - "emulator": the processor refuses instructions, at least those on tile data, and the emulator performs them;
    - "trapped": the emulator performs all instructions, whatever the processor would do;
    - "processor": the processor performs them, and there is no emulator.
    """

    def __init__(self, folder: Path, probes: list[Probe]) -> None:
        self.folder = folder
        self.emulator = amx.build(folder)
        self.libraries = {way: self._compile(way, probes) for way in WAYS}

    def _compile(self, way: str, probes: list[Probe]) -> Path:
        source = self.folder / f"{way}.c"
        handler = Path(amx.__file__).with_name("trap_first.c").read_text("utf-8")
        source.write_text(handler + amx_probes.assembly(probes, trap_first=way == "trapped"), "utf-8")
        return amx.compile_library(source, source.with_suffix(".so"))

    def arguments(self, way: str, *rest: Any) -> list[str]:
        return [way, str(self.emulator), str(self.libraries[way]), *map(str, rest)]

    def run(self, way: str, program: str, *rest: Any) -> str:
        return run_program(START + program, *self.arguments(way, *rest), folder=REPOSITORY)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], list[int]]]:
    """For each way: the memory of each probe afterwards, and how many of its instructions were emulated."""
    folder = tmp_path_factory.mktemp("probes")
    programs = Programs(folder, PROBES)
    memories: dict[str, Any] = {probe.name: probe.memory for probe in PROBES}
    np.savez(folder / "before.npz", **memories)
    found = {}
    for way in WAYS:
        counts = programs.run(way, ALL, folder / "before.npz", folder / f"{way}.npz", amx_probes.NO_BASE)
        with np.load(folder / f"{way}.npz") as file:
            found[way] = dict(file), [int(count) for count in counts.split()]
    return found


@pytest.mark.parametrize("way", WAYS)
def test_probes_do_what_numpy_says(way: str, results: Any) -> None:
    memories, _ = results[way]
    for probe in PROBES:
        probe.check(memories[probe.name])


def test_the_emulator_does_what_the_processor_does(results: Any) -> None:
    """To the last bit, NaNs included; without AMX only the two ways to the emulator are compared."""
    first, _ = results[WAYS[-1]]
    for way in WAYS:
        for name, memory in results[way][0].items():
            np.testing.assert_array_equal(memory, first[name], f"{name}, {way}")


@pytest.mark.parametrize("way", WAYS)
def test_instructions_are_emulated_once(way: str, results: Any) -> None:
    _, counts = results[way]
    for probe, count in zip(PROBES, counts, strict=True):
        on_data = sum(line.startswith(("tdp", "tilel", "tiles", "tilez")) for line in probe.lines)
        least = {"emulator": on_data, "trapped": probe.instructions, "processor": 0}[way]
        most = 0 if way == "processor" else probe.instructions
        assert least <= count <= most, probe.name


@pytest.mark.parametrize("way", WAYS)
def test_threads_have_tiles_of_their_own(way: str, tmp_path: Path) -> None:
    """Six threads, each with its own shapes, go on one after the other with the tiles that they have loaded."""
    random = np.random.default_rng(4)
    shapes = [(rows, 16 - rows, 2 * rows) for rows in range(2, 8)]
    memories = np.stack([amx_probes.product(random, "tdpbusd", (6, 1, 3), shape)[0] for shape in shapes])
    _, lines = amx_probes.product(random, "tdpbusd", (6, 1, 3), shapes[0])
    multiply = next(number for number, line in enumerate(lines) if line.startswith("tdp"))
    parts = {"begin": lines[:multiply], "go_on": lines[multiply : multiply + 1], "end": lines[multiply + 1 :]}
    probes = [Probe(name, part, memories[0], memories[0]) for name, part in parts.items()]
    np.savez(tmp_path / "before.npz", memories=memories)
    programs = Programs(tmp_path, probes)
    count = programs.run(way, THREADS, tmp_path / "before.npz", tmp_path / "after.npy")
    assert (int(count) >= 6 * (3 + 20 + 1)) == (way != "processor")
    for before, after, (rows, columns, depth) in zip(memories, np.load(tmp_path / "after.npy"), shapes, strict=True):
        sums = amx_probes.rows_at(before, amx_probes.SUMS, (rows, columns)).copy().view(np.int32)
        left = amx_probes.rows_at(before, LEFT, (rows, depth)).copy().reshape(rows, depth, 4)
        right = amx_probes.rows_at(before, amx_probes.RIGHT, (depth, columns)).copy().view(np.int8)
        for _ in range(20):
            sums = amx_arithmetic.byte_products(sums, left, right.reshape(depth, columns, 4))
        found = amx_probes.rows_at(after, OUT, (rows, columns)).copy().view(np.int32)
        np.testing.assert_array_equal(found, sums)


CONFIGURE = "ldtilecfg (%rdi)"
ILLEGAL: dict[str, tuple[str, ...]] = {
    "another instruction": (".byte 0x0f, 0xff, 0xc0",),
    "without a configuration": ("tilezero %tmm0",),
    "after the release": (CONFIGURE, "tilezero %tmm0", "tilerelease", "tilezero %tmm0"),
    "a tile that is not configured": (CONFIGURE, "tilezero %tmm5"),
    "an odd number of bytes": (CONFIGURE, "tileloadd (%rdi), %tmm4"),
    "other rows": (CONFIGURE, "tdpbusd %tmm2, %tmm3, %tmm0"),
    "other columns": (CONFIGURE, "tdpbuud %tmm3, %tmm1, %tmm0"),
    "too deep": (CONFIGURE, "tdpbf16ps %tmm7, %tmm1, %tmm0"),
    "not deep enough": (CONFIGURE, "tdpbssd %tmm2, %tmm7, %tmm0"),
    "left and right are one": (CONFIGURE, ".byte 0xc4, 0xe2, 0x49, 0x5e, 0xde"),  # sums in 3, of 6 and 6
    "left and sums are one": (CONFIGURE, ".byte 0xc4, 0xe2, 0x49, 0x5e, 0xdb"),  # in 3, of 3 and 6
    "right and sums are one": (CONFIGURE, ".byte 0xc4, 0xe2, 0x61, 0x5e, 0xde"),  # in 3, of 6 and 3
    "tile 8": (CONFIGURE, ".byte 0xc4, 0x62, 0x7b, 0x49, 0xc0"),
    "stores without a SIB": (CONFIGURE, ".byte 0xc4, 0xe2, 0x7a, 0x4b, 0x07"),
    "a load to be continued": (CONFIGURE, "tilezero %tmm0", "movb $1, 1(%rdi)", CONFIGURE, "tilezero %tmm0"),
}
# A processor continues the load, which the emulator does not.
LEGAL = {("legal", way) for way in WAYS} | {("a load to be continued", "processor")}


@pytest.fixture(scope="module")
def illegal(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """A program for each illegal instruction, and the memory with their configuration."""
    folder = tmp_path_factory.mktemp("illegal")
    memory = np.zeros(amx_probes.SIZE, np.uint8)
    memory[:64] = amx_probes.configuration(
        t0=(3, 4), t1=(3, 2), t2=(2, 4), t3=(2, 2), t4=(2, 2), t6=(2, 2), t7=(3, 4)
    )
    memory[16 + 2 * 4] = 7  # bytes a row of t4
    memory.tofile(folder / "memory")
    names = [f"illegal_{number}" for number in range(len(ILLEGAL))]
    legal = (CONFIGURE, "tdpbusd %tmm2, %tmm1, %tmm0", "tdpbf16ps %tmm2, %tmm1, %tmm0", "tilerelease")
    programs = dict(zip(names, ILLEGAL.values(), strict=True)) | {"legal": legal}
    return Programs(folder, [Probe(name, lines, memory, memory) for name, lines in programs.items()])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", ["legal", *ILLEGAL])
def test_what_is_illegal_ends_the_process(case: str, way: str, illegal: Programs) -> None:
    """By SIGILL, once the handler that was there before, Python's own of faulthandler, has told of it."""
    name = case if case == "legal" else f"illegal_{list(ILLEGAL).index(case)}"
    arguments = illegal.arguments(way, name, illegal.folder / "memory")
    for options in ([], ["-X", "faulthandler"]):
        command = [sys.executable, *options, "-c", START + ONE, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY, timeout=60)
        ended_by = 0 if (case, way) in LEGAL else -signal.SIGILL
        assert (done.returncode, done.stdout) == (ended_by, "" if ended_by else "survived\n")
        assert ("Fatal Python error: Illegal instruction" in done.stderr) == bool(ended_by and options)


def test_a_compiler_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="expected a C compiler, cc"):
        amx.build(tmp_path)


def test_what_the_compiler_says_is_told(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("wrong", "utf-8")
    with pytest.raises(RuntimeError, match="failed:"):
        amx.compile_library(source, tmp_path / "wrong.so")
