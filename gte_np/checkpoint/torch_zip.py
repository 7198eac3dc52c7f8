"""Tensors of a `pytorch_model.bin` in torch's zip format (torch >= 1.6), read without torch, without trust.

The file is a zip of uncompressed members: `<root>/data.pkl`, a pickle that lays out the named tensors, and
`<root>/data/<key>`, the elements of each storage. A pickle is a program for a stack machine. The machine here
obeys only the opcodes that `torch.save` writes for a state dict. Its stack holds text, integers, booleans,
tuples, dicts, storages and tensors; nothing that the file names is imported or called.

`pickle.Unpickler` is not used: its BUILD sets any attribute of any object on the stack, and its SETITEM
crashes the process when the key is a tuple that is nested deeply enough.
"""

from __future__ import annotations

import io
import math
import pickletools
import reprlib
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_np.checkpoint.mapping import mapping
from gte_np.errors import CheckpointError
from gte_np.formats.stored_tensor import NUMPY_DTYPES, StoredTensor

_LONGEST_PICKLE = 2**20  # bytes, a bound on time and memory; the 391 tensors of a BERT-large take 2**16
_MOST_DIMENSIONS = 32
_OPCODES = {info.code: info for info in pickletools.opcodes}
_SIGNATURE = b"PK\x03\x04"  # of the header in front of each member of a zip file
_LOCAL_HEADER = struct.Struct("<4s2x2H16x2H")  # that header: signature, flags, method, lengths of name and extra
_ENCRYPTED = 0x1  # of the flags

_ORDERED_DICT = "collections OrderedDict"
_REBUILD_TENSOR = "torch._utils _rebuild_tensor_v2"
_REBUILD_PARAMETER = "torch._utils _rebuild_parameter"
_STORAGE_DTYPES = {
    "torch DoubleStorage": "float64",
    "torch FloatStorage": "float32",
    "torch HalfStorage": "float16",
    "torch BFloat16Storage": "bfloat16",
    "torch LongStorage": "int64",
    "torch IntStorage": "int32",
    "torch ShortStorage": "int16",
    "torch CharStorage": "int8",
    "torch ByteStorage": "uint8",
    "torch BoolStorage": "bool",
}
_GLOBALS = frozenset({_ORDERED_DICT, _REBUILD_TENSOR, _REBUILD_PARAMETER, *_STORAGE_DTYPES})

_BOUNDED = reprlib.Repr()  # shows what a file says on one short line, however long or deep it is
_BOUNDED.maxstring = _BOUNDED.maxother = 100
_BOUNDED.maxlevel = 2


def read_torch_zip(path: Path) -> dict[str, StoredTensor]:
    """Tensors of the state dict in `path`, by name: read-only views of the mapped file, maybe unaligned.

    Raises `CheckpointError` for a file that cannot be read, is cut short, contradicts itself, asks for more
    than tensors, or is in another of torch's formats.
    """
    try:
        return _read_state_dict(_open_archive(path))
    except _RefusedError as problem:
        advice = "Download it again, or save its state dict again with safetensors or torch >= 1.6."
        raise CheckpointError(f"{path}: {problem}. {advice}") from problem


class _RefusedError(Exception):
    """What is wrong with a file, in one line, raised where its path is not known."""

    def __init__(self, expected: str, came: str) -> None:
        super().__init__(" ".join(f"expected {expected}, got {came}".split()))


@dataclass(frozen=True)
class _Archive:
    """The bytes of a zip file, and its directory by names below the folder that torch puts around all."""

    contents: NDArray[np.uint8]
    members: dict[str, zipfile.ZipInfo]

    def read(self, name: str) -> NDArray[np.uint8]:
        """Bytes of a member, as a view of the file."""
        if name not in self.members:
            raise _RefusedError(f"a member {_BOUNDED.repr(name)}", "an archive without it")
        info = self.members[name]
        start = self._find_data(info)
        data = self.contents[start : start + info.file_size]
        if not len(data) == info.file_size == info.compress_size:
            raise _RefusedError("whole members", f"{_BOUNDED.repr(name)} cut short or of two sizes")
        return data

    def _find_data(self, info: zipfile.ZipInfo) -> int:
        """Offset of a member's first byte: only the header in front of it tells how long that header is."""
        start = info.header_offset
        header = self.contents[start : start + _LOCAL_HEADER.size].tobytes()
        if len(header) < _LOCAL_HEADER.size or not header.startswith(_SIGNATURE):
            raise _RefusedError(f"a member at byte {start}", "other bytes or the end of the file")
        _, flags, method, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        if (flags | info.flag_bits) & _ENCRYPTED or not method == info.compress_type == zipfile.ZIP_STORED:
            raise _RefusedError("plain members", f"{_BOUNDED.repr(info.filename)} compressed or encrypted")
        return start + _LOCAL_HEADER.size + int(name_length) + int(extra_length)


def _open_archive(path: Path) -> _Archive:
    try:
        with path.open("rb") as file, mapping(path):
            _check_format(file.read(20))
            members = _list_members(file)
            return _Archive(np.asarray(np.memmap(file, dtype=np.uint8, mode="r")), members)
    except OSError as error:
        raise _RefusedError("a readable file", str(error.strerror)) from error


def _check_format(start: bytes) -> None:
    if start.startswith(b"\x80"):
        raise _RefusedError("torch's zip format", "a bare pickle, the format of torch < 1.6")
    if not start.startswith(_SIGNATURE):
        raise _RefusedError("torch's zip format", f"a file that starts with {start!r}")


def _list_members(file: io.BufferedReader) -> dict[str, zipfile.ZipInfo]:
    """Directory of the archive, by names below the one folder that holds `data.pkl`."""
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except MemoryError:
        raise
    except Exception as error:  # zipfile has no common error for broken archives
        raise _RefusedError("a whole zip archive", f"a broken one ({_BOUNDED.repr(error)})") from error
    roots = [info.filename.removesuffix("data.pkl") for info in infos if info.filename.endswith("/data.pkl")]
    if len(roots) != 1:
        raise _RefusedError("an archive with one data.pkl", f"one with {len(roots)}")
    members = {info.filename.removeprefix(roots[0]): info for info in infos}
    if len(members) < len(infos):
        raise _RefusedError("members of different names", "an archive with two of the same name")
    return members


def _read_state_dict(archive: _Archive) -> dict[str, StoredTensor]:
    if "constants.pkl" in archive.members:
        raise _RefusedError("a saved state dict", "a TorchScript program")
    if "byteorder" in archive.members and archive.read("byteorder").tobytes() != b"little":
        raise _RefusedError("little-endian numbers", "a file saved on a big-endian machine")
    program = archive.read("data.pkl")
    if len(program) > _LONGEST_PICKLE:
        raise _RefusedError(f"a data.pkl of at most {_LONGEST_PICKLE} bytes", f"one of {len(program)}")
    state_dict = _Machine(archive).run(program.tobytes())
    if not isinstance(state_dict, dict):
        raise _RefusedError("a dict of tensors", f"one {type(state_dict).__name__}")
    for name, value in state_dict.items():
        if not isinstance(value, StoredTensor):
            raise _RefusedError(f"a tensor as {_BOUNDED.repr(name)}", f"a {type(value).__name__}")
    return state_dict


@dataclass(frozen=True)
class _Global:
    """Something that the pickle refers to, as "module name"; never more than that name."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """All elements of a member `data/<key>`, (count,) of `NUMPY_DTYPES[dtype]`."""

    dtype: str
    elements: NDArray[Any]


class _Machine:
    """The stack machine: `run` executes a program by the `_OPERATIONS`, which are all that it can do."""

    def __init__(self, archive: _Archive) -> None:
        self.archive = archive
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, program: bytes) -> object:
        """Execute `program`, and give the one value that it leaves on the stack."""
        try:
            for opcode, argument in _instructions(program):
                _OPERATIONS[opcode](self, argument)
            (result,) = self.stack
        except (LookupError, TypeError, ValueError) as error:
            raise _RefusedError("a state dict", f"a broken data.pkl ({_BOUNDED.repr(error)})") from error
        return result

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        """Take off the last `count` values; they come in the order in which they were pushed."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def pop_to_mark(self) -> list[Any]:
        return self.pop(len(self.stack) - self.marks.pop())

    def store(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def set_items(self, items: list[Any]) -> None:
        """Put `[name, value, name, value, ...]` into the dict on top of the stack."""
        for name, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(name, str):  # the hash of a deeply nested tuple would overflow the C stack
                raise _RefusedError("text as a name", f"a {type(name).__name__}")
            self.stack[-1][name] = value

    def push_global(self, name: str) -> None:
        if name not in _GLOBALS:
            raise _RefusedError("nothing but tensors", f"a request for {_BOUNDED.repr(name)}")
        self.push(_Global(name))

    def push_storage(self) -> None:
        match self.stack.pop():
            case ("storage", _Global(kind), str(key), str(), int(count)) if kind in _STORAGE_DTYPES:
                self.push(_load_storage(self.archive, _STORAGE_DTYPES[kind], key, count))
            case other:
                raise _RefusedError("('storage', type, key, place, count)", _BOUNDED.repr(other))

    def call(self) -> None:
        match self.pop(2):
            case [_Global(name), ()] if name == _ORDERED_DICT:
                self.push({})
            case [_Global(name), (_Storage() as storage, *layout)] if name == _REBUILD_TENSOR:
                self.push(_build_tensor(storage, *layout[:3]))  # then requires_grad, hooks and metadata
            case [_Global(name), (StoredTensor() as tensor, *_)] if name == _REBUILD_PARAMETER:
                self.push(tensor)
            case [function, _]:
                raise _RefusedError("a call that builds a tensor", f"another of {_BOUNDED.repr(function)}")


# The opcodes that torch.save writes for a state dict, by their names in `pickletools`: no other is obeyed.
_OPERATIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda machine, version: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    **dict.fromkeys(("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"), _Machine.push),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop(3))),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.store),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, index: machine.push(machine.memo[index])),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "GLOBAL": _Machine.push_global,
    "BINPERSID": lambda machine, _: machine.push_storage(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.pop(1),  # an object's attributes: `_metadata`, which nothing needs
    "STOP": lambda machine, _: None,
}


def _instructions(program: bytes) -> Iterator[tuple[str, Any]]:
    """Names of the opcodes up to STOP, with their arguments; those of a refused opcode are not even read."""
    stream = io.BytesIO(program)
    while code := stream.read(1).decode("latin-1"):
        info = _OPCODES[code]
        if info.name not in _OPERATIONS:
            raise _RefusedError("only what lays out tensors", f"the pickle opcode {info.name}")
        yield info.name, _read_argument(info, stream)
        if info.name == "STOP":
            return
    raise ValueError("it ends without STOP")


def _read_argument(opcode: pickletools.OpcodeInfo, stream: io.BytesIO) -> Any:
    if opcode.name == "GLOBAL":  # pickletools would undo escapes there, and warn of wrong ones; pickle has none
        return " ".join(stream.readline().decode("ascii").rstrip("\n") for _ in range(2))
    return opcode.arg.reader(stream) if opcode.arg else None


def _load_storage(archive: _Archive, dtype: str, key: str, count: int) -> _Storage:
    data = archive.read(f"data/{key}")
    if len(data) != count * NUMPY_DTYPES[dtype].itemsize:
        raise _RefusedError(f"{count} {dtype} elements in {_BOUNDED.repr(key)}", f"{len(data)} bytes")
    return _Storage(dtype, data.view(NUMPY_DTYPES[dtype]))


def _build_tensor(storage: _Storage, start: int, sizes: tuple[int, ...], strides: tuple[int, ...]) -> StoredTensor:
    """View of `storage` from element `start` on; `strides` count elements."""
    elements = storage.elements
    if not _fits(len(elements), start, sizes, strides):
        layout = _BOUNDED.repr((start, sizes, strides))
        raise _RefusedError(f"a tensor within {len(elements)} elements", f"(start, sizes, strides) {layout}")
    steps = [stride * elements.itemsize for stride in strides]
    view = np.ndarray(sizes, elements.dtype, elements, start * elements.itemsize, steps)
    return StoredTensor(storage.dtype, view)


def _fits(count: int, start: int, sizes: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether a view stays inside a storage of `count` elements, and holds no more elements than that."""
    if not len(sizes) == len(strides) <= _MOST_DIMENSIONS:
        return False
    if any(type(number) is not int or number < 0 for number in (start, *sizes, *strides)):
        return False
    if 0 in sizes:
        return start <= count
    last = start + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    return last < count and math.prod(sizes) <= count
