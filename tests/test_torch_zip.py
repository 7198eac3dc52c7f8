"""`pytorch_model.bin` without torch: what torch saves is read, and nothing that a file says is run."""

from __future__ import annotations

import contextlib
import copyreg
import io
import mmap
import pickle
import pickletools
import random
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np.checkpoint.torch_zip import read_torch_zip
from gte_np.errors import CheckpointError
from gte_np.formats.stored_tensor import NUMPY_DTYPES, StoredTensor
from tests.torch_pickle import (
    FLOATS,
    HOOKS,
    ORDERED_DICT,
    REBUILD_PARAMETER,
    REBUILD_TENSOR,
    call,
    group,
    integer,
    integers,
    program,
    reference,
    state_dict,
    storage,
    tensor,
    text,
    zipped,
)

SIX_FLOATS = np.arange(6, dtype="<f4")
ONE_TENSOR = state_dict(weight=tensor())


def archive(value: bytes = ONE_TENSOR, others: dict[str, bytes] | None = None, root: str = "model") -> bytes:
    """A file as torch.save lays it out: the program of `value`, six floats as storage 0, and other members."""
    members = {"data.pkl": program(value), "data/0": SIX_FLOATS.tobytes(), "version": b"3\n"}
    return zipped({f"{root}/{name}": content for name, content in (members | (others or {})).items()})


def patched(header: str, position: int, value: bytes) -> bytes:
    """A good file with other bytes in the local header of data/0, or in its entry of the directory."""
    content = bytearray(archive())
    name = b"model/data/0"
    start = content.index(name) - 30 if header == "local" else content.rindex(name) - 46
    content[start + position : start + position + len(value)] = value
    return bytes(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pytorch_model.bin"


def read(path: Path, content: bytes) -> dict[str, StoredTensor]:
    """Tensors of a new file: Windows lets nobody write to one that is still mapped."""
    path.write_bytes(content)
    return read_torch_zip(path)


def assert_refused(path: Path, content: bytes, match: str) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        read(path, content)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected ")
    assert ", got " in message
    assert message.endswith(". Download it again, or save its state dict again with safetensors or torch >= 1.6.")
    assert "\n" not in message
    assert len(message) < 1000 + len(str(path))


# --- what torch saves -----------------------------------------------------------------------------------------

# data.pkl of torch 2.13: a transposed float16 parameter of six elements under two names, and `_metadata`.
SAVED_BY_TORCH = (
    b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(X\x01\x00\x00\x00wq\x02ctorch._utils\n_rebuild_tensor_v2\n"
    b"q\x03((X\x07\x00\x00\x00storageq\x04ctorch\nHalfStorage\nq\x05X\x01\x00\x00\x000q\x06X\x03\x00\x00\x00cpuq"
    b"\x07K\x06tq\x08QK\x00K\x03K\x02\x86q\tK\x01K\x03\x86q\n\x89h\x00)Rq\x0btq\x0cRq\rX\x04\x00\x00\x00tiedq\x0e"
    b"h\x03((h\x04h\x05h\x06h\x07K\x06tq\x0fQK\x00K\x03K\x02\x86q\x10K\x01K\x03\x86q\x11\x89h\x00)Rq\x12tq\x13Rq"
    b"\x14u}q\x15X\t\x00\x00\x00_metadataq\x16h\x00)Rq\x17X\x00\x00\x00\x00q\x18}q\x19X\x07\x00\x00\x00versionq"
    b"\x1aK\x01sssb."
)


def test_a_file_of_torch(path: Path) -> None:
    elements = np.array([1, 2, 3, 4, 5, 6], "<f2")
    members = {"g/data.pkl": SAVED_BY_TORCH, "g/data/0": elements.tobytes(), "g/byteorder": b"little"}
    tensors = read(path, zipped({**members, "g/.data/serialization_id": b"1", "g/version": b"3\n"}))
    assert list(tensors) == ["w", "tied"]
    assert tensors["w"].dtype == "float16"
    np.testing.assert_array_equal(tensors["w"].data, elements.reshape(2, 3).T)
    assert np.shares_memory(tensors["w"].data, tensors["tied"].data)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("DoubleStorage", "float64"),
        ("FloatStorage", "float32"),
        ("HalfStorage", "float16"),
        ("BFloat16Storage", "bfloat16"),
        ("LongStorage", "int64"),
        ("IntStorage", "int32"),
        ("ShortStorage", "int16"),
        ("CharStorage", "int8"),
        ("ByteStorage", "uint8"),
        ("BoolStorage", "bool"),
    ],
)
def test_each_dtype(path: Path, kind: str, dtype: str) -> None:
    values = np.array([[0, 1, 1], [1, 0, 127]]).astype(NUMPY_DTYPES[dtype])
    value = state_dict(weight=tensor(elements=storage(kind)))
    weight = read(path, archive(value, {"data/0": values.tobytes()}))["weight"]
    assert weight.dtype == dtype
    assert weight.data.dtype == NUMPY_DTYPES[dtype]
    np.testing.assert_array_equal(weight.data, values)


@pytest.mark.parametrize(
    ("sizes", "strides", "start", "expected"),
    [
        pytest.param((2, 3), (3, 1), 0, [[0, 1, 2], [3, 4, 5]], id="contiguous"),
        pytest.param((3, 2), (1, 3), 0, [[0, 3], [1, 4], [2, 5]], id="transposed"),
        pytest.param((2,), (3,), 2, [2, 5], id="column"),
        pytest.param((2, 2), (2, 1), 2, [[2, 3], [4, 5]], id="from an element on"),
        pytest.param((1, 2), (2**40, 1), 4, [[4, 5]], id="stride of a single row"),
        pytest.param((3, 2), (1, 0), 3, [[3, 3], [4, 4], [5, 5]], id="expanded"),
        pytest.param((), (), 5, 5, id="no dimension"),
        pytest.param((0, 3), (3, 1), 0, np.empty((0, 3)), id="no element"),
        pytest.param((0,), (1,), 6, np.empty(0), id="no element, at the end"),
    ],
)
def test_layouts(path: Path, sizes: tuple[int, ...], strides: tuple[int, ...], start: int, expected: Any) -> None:
    weight = read(path, archive(state_dict(weight=tensor(sizes, strides, start))))["weight"]
    assert weight.shape == sizes
    np.testing.assert_array_equal(weight.data, np.array(expected, np.float32))


def test_an_empty_storage(path: Path) -> None:
    value = state_dict(weight=tensor((0, 768), (768, 1), elements=storage(count=0)))
    assert read(path, archive(value, {"data/0": b""}))["weight"].shape == (0, 768)


def test_tensors_are_read_only_views_of_the_file(path: Path) -> None:
    tensors = read(path, archive(state_dict(all=tensor(), transposed=tensor((3, 2), (1, 3)))))
    assert np.shares_memory(tensors["all"].data, tensors["transposed"].data)
    for stored in tensors.values():
        assert not stored.data.flags.writeable
        assert type(stored.data) is np.ndarray
        assert isinstance(owner_of(stored.data), mmap.mmap)


def owner_of(array: Any) -> object:
    while isinstance(array, np.ndarray):
        array = array.base.obj if isinstance(array.base, memoryview) else array.base
    return array


@pytest.mark.parametrize("root", ["a", "ab", "abc", "model", "pytorch_model", "模型", ".."])
def test_any_root_and_any_alignment(path: Path, root: str) -> None:
    np.testing.assert_array_equal(read(path, archive(root=root))["weight"].data, SIX_FLOATS.reshape(2, 3))
    assert list(path.parent.iterdir()) == [path]


def test_padding_that_only_the_local_header_tells(path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("m/data.pkl", program(ONE_TENSOR))
        info = zipfile.ZipInfo("m/data/0")
        info.extra = b"FB\x05\x00ZZZZZ"  # torch aligns its storages so
        out.writestr(info, SIX_FLOATS.tobytes())
        info.extra = b""
    np.testing.assert_array_equal(read(path, file.getvalue())["weight"].data, SIX_FLOATS.reshape(2, 3))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(state_dict(weight=call(REBUILD_PARAMETER, tensor(), b"\x88", HOOKS)), id="parameter"),
        pytest.param(b"}" + text("weight") + tensor() + b"s", id="plain dict"),
        pytest.param(
            b"}" + text("weight") + b"r\xff\xff\xff\xff" + integer(7) + b"sj\xff\xff\xff\xff" + tensor() + b"s",
            id="large memo index",
        ),
        pytest.param(ONE_TENSOR + b"}" + text("_metadata") + b"}sb", id="metadata"),
    ],
)
def test_other_ways_to_write_it(path: Path, value: bytes) -> None:
    np.testing.assert_array_equal(read(path, archive(value))["weight"].data, SIX_FLOATS.reshape(2, 3))


@pytest.mark.parametrize(
    "state", [text("state"), b"}" + text("items") + integer(1) + b"s", group(b"}", b"}" + text("keys") + b"}s")]
)
def test_attributes_that_a_pickle_sets_are_forgotten(path: Path, state: bytes) -> None:
    assert read(path, archive(ONE_TENSOR + state + b"b")).keys() == {"weight"}


def test_a_pickle_cannot_change_the_reader(path: Path) -> None:
    slots = group(b"}", b"}" + text("__defaults__") + b")s" + text("name") + text("changed") + b"s")
    changed = call(REBUILD_TENSOR + slots + b"b", FLOATS, integer(0), integers((6,)), integers((1,)))
    for name in ("first", "second"):
        assert read(path.with_name(name), archive(state_dict(weight=changed)))["weight"].shape == (6,)


# --- pickles that run code ------------------------------------------------------------------------------------


class Trap:
    """It makes a folder at each door by which pickle enters a class."""

    def __new__(cls, *folders: str) -> Trap:
        for folder in folders:
            Path(folder).mkdir()
        return super().__new__(cls)

    def __setstate__(self, folder: str) -> None:
        Path(folder).mkdir()


MKDIR = reference("os", "mkdir")
TRAP = reference(__name__, "Trap")


@pytest.fixture
def extension() -> Iterator[Callable[[int], None]]:
    """A registry of numbers for `os.mkdir`, which pickles then need not name."""
    codes: list[int] = []

    def add(code: int) -> None:
        copyreg.add_extension("os", "mkdir", code)
        codes.append(code)

    yield add
    for code in codes:
        copyreg.remove_extension("os", "mkdir", code)


def assert_disarmed(path: Path, attack: Callable[[bytes], bytes]) -> None:
    """The attack makes a folder when `pickle` runs it, and nothing here."""
    target = path.with_name("made by pickle")
    with contextlib.suppress(pickle.UnpicklingError):
        pickle.loads(program(attack(text(str(target)))))
    assert target.exists()
    target = path.with_name("made by gte_np")
    assert_refused(path, archive(attack(text(str(target)))), "got a request for|got the pickle opcode")
    assert not target.exists()


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(lambda folder: call(MKDIR, folder), id="GLOBAL and REDUCE"),
        pytest.param(lambda folder: call(text("os") + text("mkdir") + b"\x93", folder), id="STACK_GLOBAL"),
        pytest.param(lambda folder: b"(" + folder + b"ios\nmkdir\n", id="INST"),
        pytest.param(lambda folder: b"(" + MKDIR + folder + b"o", id="OBJ"),
        pytest.param(lambda folder: TRAP + group(folder) + b"\x81", id="NEWOBJ"),
        pytest.param(lambda folder: TRAP + group(folder) + b"}\x92", id="NEWOBJ_EX"),
        pytest.param(lambda folder: TRAP + b")\x81" + folder + b"b", id="BUILD"),
        pytest.param(lambda folder: state_dict(weight=call(MKDIR, folder)), id="in place of a tensor"),
        pytest.param(lambda folder: HOOKS + b"}" + text("_metadata") + call(MKDIR, folder) + b"sb", id="as a state"),
        pytest.param(lambda folder: call(MKDIR, folder) + b"Q", id="as a persistent id"),
        pytest.param(lambda folder: call(MKDIR, folder) + b"0" + state_dict(), id="in front of a state dict"),
    ],
)
def test_no_attack_runs(path: Path, attack: Callable[[bytes], bytes]) -> None:
    assert_disarmed(path, attack)


@pytest.mark.parametrize(
    ("opcode", "code"), [(b"\x82\x7e", 0x7E), (b"\x83\x7e\x7e", 0x7E7E), (b"\x84\x00\x00\x00\x7e", 0x7E000000)]
)
def test_no_extension_runs(path: Path, extension: Callable[[int], None], opcode: bytes, code: int) -> None:
    extension(code)
    assert_disarmed(path, lambda folder: call(opcode, folder))


OBEYED = (
    "PROTO STOP MARK GLOBAL REDUCE BUILD BINPERSID BINUNICODE BININT BININT1 BININT2 LONG1 NEWTRUE NEWFALSE "
    "EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 TUPLE EMPTY_DICT SETITEM SETITEMS BINPUT LONG_BINPUT BINGET LONG_BINGET"
)


@pytest.mark.parametrize(
    "opcode", [pytest.param(info, id=info.name) for info in pickletools.opcodes if info.name not in OBEYED.split()]
)
def test_every_other_opcode_is_refused_unread(path: Path, opcode: pickletools.OpcodeInfo) -> None:
    value = ONE_TENSOR + opcode.code.encode("latin-1")
    assert_refused(path, archive(value), rf"got the pickle opcode {opcode.name}\.")


# --- pickles that lie -----------------------------------------------------------------------------------------

FAR = 2**63


@pytest.mark.parametrize(
    ("sizes", "strides", "start"),
    [
        pytest.param((7,), (1,), 0, id="one too many"),
        pytest.param((6,), (1,), 1, id="one too late"),
        pytest.param((), (), 6, id="scalar past the end"),
        pytest.param((0,), (1,), 7, id="nothing past the end"),
        pytest.param((3,), (3,), 0, id="stride too long"),
        pytest.param((2, 3), (4, 1), 0, id="rows too far apart"),
        pytest.param((7,), (0,), 0, id="more elements than are stored"),
        pytest.param((2**40, 2**40), (0, 0), 0, id="a product beyond 64 bits"),
        pytest.param((2,), (FAR,), 0, id="huge stride"),
        pytest.param((3,), (FAR,), 0, id="a stride that is 0 in 64 bits"),
        pytest.param((2**62 + 1,), (4,), 0, id="a reach that is 0 in 64 bits"),
        pytest.param((2,), (1,), FAR, id="huge start"),
        pytest.param((FAR,), (1,), 0, id="huge size"),
        pytest.param((-1,), (1,), 0, id="negative size"),
        pytest.param((-2, -3), (3, 1), 0, id="two negative sizes"),
        pytest.param((2,), (-1,), 1, id="negative stride"),
        pytest.param((2,), (1,), -1, id="negative start"),
        pytest.param((2, 3), (1,), 0, id="a stride too few"),
        pytest.param((6,), (1, 1), 0, id="a stride too many"),
        pytest.param((1,) * 33, (1,) * 33, 0, id="33 dimensions"),
    ],
)
def test_layouts_outside_the_storage(
    path: Path, sizes: tuple[int, ...], strides: tuple[int, ...], start: int
) -> None:
    value = state_dict(weight=tensor(sizes, strides, start))
    assert_refused(path, archive(value), r"expected a tensor within 6 elements, got \(start, sizes, strides\) ")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        # what is under a name
        pytest.param(state_dict(epoch=integer(3)), "a tensor as 'epoch', got a int", id="int"),
        pytest.param(state_dict(state_dict=ONE_TENSOR), "a tensor as 'state_dict', got a dict", id="nested"),
        pytest.param(state_dict(weight=FLOATS), "a tensor as 'weight', got a _Storage", id="bare storage"),
        pytest.param(state_dict(weight=ORDERED_DICT), "a tensor as 'weight', got a _Global", id="bare name"),
        pytest.param(state_dict(**{"x" * 99_999: integer(3)}), "a tensor as 'xxx", id="long name"),
        pytest.param(tensor(), "a dict of tensors, got one StoredTensor", id="a tensor alone"),
        pytest.param(b"})" + integer(1) + b"s", "text as a name|broken", id="no dict"),
        pytest.param(b"}" + integer(1) + tensor() + b"s", "text as a name, got a int", id="number as a name"),
        pytest.param(b"}(" + text("a") + b"u", "broken", id="name without a value"),
        pytest.param(b"})" + b"\x85" * 900_000 + b"}s", "text as a name, got a tuple", id="deep name"),
        # names and calls
        pytest.param(reference("torch", "QInt8Storage"), "'torch QInt8Storage'", id="unknown dtype"),
        pytest.param(reference("torch", "float32"), "'torch float32'", id="unknown name"),
        pytest.param(reference("torch FloatStorage", ""), "'torch FloatStorage '", id="blank in a name"),
        pytest.param(call(ORDERED_DICT, b"}"), "a call", id="dict of something"),
        pytest.param(call(HOOKS), "a call", id="call of a dict"),
        pytest.param(call(text("exec"), text("1")), "a call", id="call of text"),
        pytest.param(call(reference("torch", "FloatStorage"), integer(9)), "a call", id="call of a dtype"),
        pytest.param(call(REBUILD_PARAMETER, FLOATS), "a call", id="parameter of a storage"),
        pytest.param(call(REBUILD_PARAMETER), "a call", id="parameter of nothing"),
        pytest.param(REBUILD_TENSOR + text("storage") + b"R", "a call", id="arguments as text"),
        pytest.param(call(REBUILD_TENSOR, tensor()), "a call", id="tensor of a tensor"),
        pytest.param(call(REBUILD_TENSOR, FLOATS), "broken", id="no layout"),
        pytest.param(call(REBUILD_TENSOR, FLOATS, b")", b")", b")"), "within 6", id="tuple as a start"),
        pytest.param(call(REBUILD_TENSOR, FLOATS, b"\x88", b")", b")"), "within 6", id="truth as a start"),
        pytest.param(call(REBUILD_TENSOR, FLOATS, *map(integer, (0, 6, 1))), "broken", id="number as sizes"),
        pytest.param(
            call(REBUILD_TENSOR, FLOATS, integer(0), text("ab"), text("ab")), "within 6", id="text as sizes"
        ),
        pytest.param(
            call(REBUILD_TENSOR, FLOATS, integer(0), integers((0, FAR)), integers((1, 1))), "broken", id="0 x 2**63"
        ),
        pytest.param(state_dict(weight=tensor((1,), (FAR,))), "broken", id="stride of a single element"),
        # storages
        pytest.param(storage(count=5), "5 float32 elements in '0', got 24 bytes", id="count too small"),
        pytest.param(storage(count=7), "7 float32 elements in '0', got 24 bytes", id="count too large"),
        pytest.param(storage(count=-6), "-6 float32 elements", id="negative count"),
        pytest.param(storage(count=6 + 2**64), "elements in '0', got 24 bytes", id="count beyond 64 bits"),
        pytest.param(storage("HalfStorage"), "6 float16 elements", id="another dtype"),
        pytest.param(storage(key="1"), "a member 'data/1', got an archive without it", id="missing"),
        pytest.param(storage(key="../../secret"), "a member 'data/../../secret'", id="outside"),
        pytest.param(storage(key="/etc/passwd"), "a member 'data//etc/passwd'", id="absolute"),
        pytest.param(storage("OrderedDict"), "'torch OrderedDict'", id="storage of no dtype"),
        pytest.param(text("0") + b"Q", r"\('storage', .*, got '0'", id="text as a persistent id"),
        pytest.param(integer(0) + b"Q", r"\('storage', .*, got 0", id="number as a persistent id"),
        pytest.param(b")Q", r"\('storage', .*, got \(\)", id="empty persistent id"),
        pytest.param(FLOATS + b"Q", r"\('storage', .*, got _Storage", id="storage as a persistent id"),
        pytest.param(
            group(text("module"), ORDERED_DICT, text("0"), text("cpu"), integer(6)) + b"Q", "'module'", id="a module"
        ),
        pytest.param(
            group(text("storage"), ORDERED_DICT, text("0"), text("cpu"), integer(6)) + b"Q",
            r"\('storage', .*OrderedDict",
            id="no dtype",
        ),
        pytest.param(
            group(text("storage"), reference("torch", "FloatStorage"), b")", text("cpu"), integer(6)) + b"Q",
            r"\('storage', ",
            id="tuple as a key",
        ),
        pytest.param(tensor() + b"Q", r"\('storage', .*, got StoredTensor", id="tensor as a persistent id"),
        # broken programs
        pytest.param(b"R", "broken", id="empty stack"),
        pytest.param(b"t", "broken", id="no mark"),
        pytest.param(b"((t", "got one tuple", id="forgotten mark"),
        pytest.param(b"h\x07", "broken", id="empty memo"),
        pytest.param(b"q\x07", "broken", id="nothing to store"),
        pytest.param(b"b", "broken", id="no state"),
        pytest.param(ONE_TENSOR * 2, "broken", id="two values"),
        pytest.param(b"", "broken", id="no value"),
        pytest.param(b"\xff", "broken", id="no opcode"),
        pytest.param(b"\n", "broken", id="line break"),
        pytest.param(b"X\xff\xff\xff\xff", "broken", id="text of 4 GB"),
        pytest.param(b"X\x01\x00\x00\x00\xff", "broken", id="text that is no UTF-8"),
        pytest.param(b"ccollections\nOrdered", "a request for 'collections Ordered", id="name without its end"),
        pytest.param(b"ccollections\nOrdered\\x44ict\n", r"'collections Ordered.*x44ict'", id="escapes in a name"),
        pytest.param(b"ccollections\n\\l\n", r"'collections ..l'", id="wrong escapes in a name"),
        pytest.param(b"c\xff\nOrderedDict\n", "broken", id="name that is no ASCII"),
        pytest.param(b"\x8a\xff", "broken", id="integer without its end"),
        pytest.param(b"}" * (2**20 + 1), "at most 1048576 bytes", id="long program"),
        pytest.param(b"}q\x00" + b"(h\x00h\x00tq\x00" * 99 + b"Q", "'storage'", id="doubled 99 times"),
    ],
)
def test_pickles_that_lie(path: Path, value: bytes, match: str) -> None:
    assert_refused(path, archive(value), match)


def test_a_pickle_without_its_end(path: Path) -> None:
    for length in range(len(program(ONE_TENSOR))):
        content = zipped({"m/data.pkl": program(ONE_TENSOR)[:length], "m/data/0": SIX_FLOATS.tobytes()})
        assert_refused(path.with_name(str(length)), content, "a broken data.pkl|a request for")


# --- files that lie -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "match"),
    [
        # other formats
        pytest.param(b"", "torch's zip format, got a file that starts with b''", id="empty"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "starts with b'version https", id="git lfs"),
        pytest.param(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a bare pickle.*torch < 1.6", id="legacy"),
        pytest.param(
            archive(others={"constants.pkl": b"", "code/m.py": b""}), "a TorchScript program", id="TorchScript"
        ),
        pytest.param(archive(others={"byteorder": b"big"}), "a big-endian machine", id="big-endian"),
        pytest.param(b"#!/bin/sh\n" + archive(), "starts with b'#!/bin/sh", id="a zip behind a script"),
        # the archive
        pytest.param(b"PK\x03\x04" + bytes(99), "a whole zip archive", id="a signature alone"),
        pytest.param(zipped({"model/weights": b""}), "one data.pkl, got one with 0", id="no data.pkl"),
        pytest.param(zipped({"data.pkl": program(b"}")}), "one data.pkl, got one with 0", id="no root"),
        pytest.param(zipped({"a/data.pkl": b"", "b/data.pkl": b""}), "one data.pkl, got one with 2", id="two roots"),
        pytest.param(
            archive(others={"data/1": b""}).replace(b"model/data/1", b"model/data/0"), "of the same name", id="twins"
        ),
        pytest.param(
            zipped({"a/data.pkl": program(ONE_TENSOR), "b/data/0": SIX_FLOATS.tobytes()}), "without", id="strangers"
        ),
        pytest.param(
            zipped({"m/data.pkl": program(b"}") + bytes(9_999_999)}, zipfile.ZIP_DEFLATED),
            "compressed",
            id="zip bomb",
        ),
        # the headers of data/0
        pytest.param(patched("local", 0, b"PK\x05\x06"), "a member at byte", id="local signature"),
        pytest.param(patched("local", 6, b"\x01"), "compressed or encrypted", id="local: encrypted"),
        pytest.param(patched("local", 8, b"\x08"), "compressed or encrypted", id="local: compressed"),
        pytest.param(patched("local", 26, b"\xff\xff"), "cut short", id="local: name past the end"),
        pytest.param(patched("local", 28, b"\xff\xff"), "cut short", id="local: extra past the end"),
        pytest.param(patched("directory", 8, b"\x01"), "compressed or encrypted", id="encrypted"),
        pytest.param(patched("directory", 10, b"\x08"), "compressed or encrypted", id="compressed"),
        pytest.param(patched("directory", 20, b"\x19"), "of two sizes", id="compressed size"),
        pytest.param(patched("directory", 24, b"\x17"), "of two sizes", id="size"),
        pytest.param(patched("directory", 20, b"\xff\xff\xff\x7f" * 2), "cut short", id="2 GB"),
        pytest.param(patched("directory", 42, b"\x01"), "a member at byte 1,", id="offset of other bytes"),
        pytest.param(
            patched("directory", 42, b"\xff\xff\xff\x7f"), "a member at byte 2147483647", id="offset past the end"
        ),
        pytest.param(patched("directory", 46, b"\xff" * 12), "a member 'data/0'", id="another name"),
    ],
)
def test_files_that_lie(path: Path, content: bytes, match: str) -> None:
    assert_refused(path, content, match)


def test_a_member_at_the_end_of_the_file(path: Path) -> None:
    content = patched("directory", 42, struct.pack("<I", len(archive())))
    content = content[:-2] + b"\x04\x00" + b"PK\x03\x04"  # the archive's comment
    assert_refused(path, content, "a member at byte")


def test_a_member_in_front_of_the_file(path: Path) -> None:
    """A directory that claims to lie further back than it does puts the members at negative offsets."""
    content = bytearray(archive())
    end = content.rindex(b"PK\x05\x06")
    (start,) = struct.unpack_from("<I", content, end + 16)
    struct.pack_into("<I", content, end + 16, start + 40)
    assert_refused(path, bytes(content), "a member at byte -|a whole zip archive")


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))}: expected a readable file, got \w+"):
            read_torch_zip(path)


def test_a_file_without_its_end(path: Path) -> None:
    content = archive()
    for length in range(len(content)):
        assert_refused(path.with_name(str(length)), content[:length], "expected")


def test_flipped_bytes_give_tensors_or_an_error(path: Path) -> None:
    choose = random.Random(0)
    original = archive(ONE_TENSOR + b"}" + text("_metadata") + b"}sb", {"byteorder": b"little"})
    for number in range(4000):
        content = bytearray(original)
        for position in choose.choices(range(len(content)), k=choose.randint(1, 3)):
            content[position] = choose.randrange(256)
        try:
            tensors = read(path.with_name(str(number)), bytes(content))
        except CheckpointError:
            continue
        for name, stored in tensors.items():
            assert isinstance(name, str)
            assert len(stored.data.tobytes()) == stored.data.nbytes  # each element is in the mapped file
