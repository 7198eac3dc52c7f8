"""An assembler of the files that torch.save writes, well formed or not, without torch."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path

from gte_np.formats.stored_tensor import StoredTensor


def text(value: str) -> bytes:
    """BINUNICODE."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    """BININT, or LONG1 for a larger one."""
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def group(*items: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(items) + b"t"


def integers(values: tuple[int, ...]) -> bytes:
    """A tuple of integers."""
    return group(*map(integer, values))


def reference(module: str, name: str) -> bytes:
    """GLOBAL."""
    return f"c{module}\n{name}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    """REDUCE."""
    return function + group(*arguments) + b"R"


ORDERED_DICT = reference("collections", "OrderedDict")
REBUILD_TENSOR = reference("torch._utils", "_rebuild_tensor_v2")
REBUILD_PARAMETER = reference("torch._utils", "_rebuild_parameter")
HOOKS = call(ORDERED_DICT)


def storage(kind: str = "FloatStorage", key: str = "0", count: int = 6) -> bytes:
    """A persistent id of a storage."""
    return group(text("storage"), reference("torch", kind), text(key), text("cpu"), integer(count)) + b"Q"


FLOATS = storage()


def tensor(
    sizes: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    start: int = 0,
    elements: bytes = FLOATS,
) -> bytes:
    """A call of _rebuild_tensor_v2."""
    return call(REBUILD_TENSOR, elements, integer(start), integers(sizes), integers(strides), b"\x89", HOOKS)


def state_dict(**values: bytes) -> bytes:
    """An OrderedDict."""
    items = b"".join(text(name) + value for name, value in values.items())
    return call(ORDERED_DICT) + b"(" + items + b"u"


def program(value: bytes) -> bytes:
    """A pickle of protocol 2."""
    return b"\x80\x02" + value + b"."


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return file.getvalue()


_STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
}


def save_torch_zip(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Write a pytorch_model.bin, as torch.save does for a state dict of contiguous tensors."""
    values, members = {}, {}
    for key, (name, stored) in enumerate(tensors.items()):
        strides = tuple(prod(stored.shape[axis + 1 :]) for axis in range(len(stored.shape)))
        elements = storage(_STORAGES[stored.dtype], str(key), stored.data.size)
        values[name] = tensor(stored.shape, strides, 0, elements)
        members[f"pytorch_model/data/{key}"] = stored.data.tobytes()
    head = {"pytorch_model/data.pkl": program(state_dict(**values))}
    path.write_bytes(zipped(head | members | {"pytorch_model/version": b"3\n"}))
