"""Damage to files: flipped bits, cuts, moved blocks, and changed fields in the formats that models come in.

Every choice is made by a Random, which may be Hypothesis's.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

Files = Mapping[str, bytes]  # by their paths in a folder

NEAR_AN_END = 600  # bytes at either end of a file, where headers and directories are
DEEPEST = 2000  # levels of JSON, more than Python reads

# Numbers and texts that are hardly right anywhere.
ODD_VALUES: Sequence[Any] = (
    None, True, False, 0, -1, 1, 2, 3, 2**31, 2**63, 10**30, 10**5000, 0.5, -0.0, 1e-320, 1e308, math.nan, math.inf,
    "", "a", "\0", "\ud800", "\u00e9" * 300, "../config.json", "/dev/zero", "bert", "BertModel", "float32", "BF16",
    [], {}, [[]], [None], {"": None}, {"content": "[CLS]"}, [0, 2**40], "[UNK]", "[PAD]", "happy",
)  # fmt: skip


# --- bytes --------------------------------------------------------------------------------------------------------


def place(random: Random, length: int) -> int:
    """An offset into so many bytes, often near an end."""
    anywhere = random.randrange(max(1, length))
    near = random.randrange(max(1, min(length, NEAR_AN_END)))
    return random.choice((anywhere, near, max(0, length - 1 - near)))


def flip_bits(random: Random, content: bytes) -> bytes:
    """One bit or a few."""
    flipped = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8)) if content else 0):
        flipped[place(random, len(content))] ^= 1 << random.randrange(8)
    return bytes(flipped)


def write_over(random: Random, content: bytes) -> bytes:
    """A few bytes that are all alike, or random."""
    start, size = place(random, len(content)), random.choice((1, 4, 8, 100))
    over = (
        random.choice((b"\0", b"\xff", b"\x7f", b" ", b'"')) * size if random.randrange(2) else random.randbytes(size)
    )
    return content[:start] + over + content[start + size :]


def write_floats(random: Random, content: bytes) -> bytes:
    """float32 numbers that are very large, very small or none, where such numbers may be."""
    start, count = place(random, len(content)) // 4 * 4, random.choice((1, 1, 16, 1000))
    number = random.choice((3e38, -1e38, 1e30, 1e19, 1e-45, 0.0, math.inf, math.nan))
    over = (struct.pack("<f", number) * count)[: len(content) - start]
    return content[:start] + over + content[start + len(over) :]


def cut(random: Random, content: bytes) -> bytes:
    """Only the beginning, or without a part."""
    start = place(random, len(content))
    return content[:start] + random.choice((b"", content[start + random.choice((1, 4, 100)) :]))


def repeat(random: Random, content: bytes) -> bytes:
    """A part twice, or a few bytes more at the end."""
    start, size = place(random, len(content)), random.choice((1, 8, 64, 1000))
    where = random.choice((start, len(content)))
    return content[:where] + content[start : start + size] + content[where:]


def exchange(random: Random, content: bytes) -> bytes:
    """Two parts of the same size in each other's place."""
    size = random.choice((1, 4, 8, 200))
    first, second = sorted(place(random, len(content)) for _ in range(2))
    if second - first < size:
        return content[::-1][:second] + content[second:]
    parts = content[:first], content[second : second + size], content[first + size : second]
    return b"".join((*parts, content[first : first + size], content[second + size :]))


BYTES: Sequence[Callable[[Random, bytes], bytes]] = (
    *(flip_bits, flip_bits, flip_bits, write_over, write_floats, cut, repeat, exchange),
)


def damaged_bytes(random: Random, content: bytes) -> bytes:
    """Content with any damage."""
    return random.choice(BYTES)(random, content)


# --- JSON ---------------------------------------------------------------------------------------------------------


def place_in(random: Random, value: Any) -> tuple[Any, Any] | None:
    """(container, key) of a place in a value, near its top more often than deep in it; None if it has none."""
    found = None
    while isinstance(value, dict | list) and value and (found is None or random.randrange(3)):
        key = random.choice(list(value)) if isinstance(value, dict) else random.randrange(len(value))
        found, value = (value, key), value[key]
    return found


def odd_value(random: Random) -> Any:
    """What is hardly right anywhere."""
    if random.randrange(20):
        return random.choice(ODD_VALUES)
    value: Any = random.choice(ODD_VALUES)
    for _ in range(random.choice((3, 100, random.randrange(900, 1000), DEEPEST))):
        value = [value]
    return value


def _replace(random: Random, container: Any, key: Any) -> None:
    container[key] = odd_value(random)


def _swap(random: Random, container: Any, key: Any) -> None:
    other = random.choice(list(container)) if isinstance(container, dict) else random.randrange(len(container))
    container[key], container[other] = container[other], container[key]


def _remove(random: Random, container: Any, key: Any) -> None:
    del container[key]


def _rename(random: Random, container: Any, key: Any) -> None:
    if isinstance(container, dict):
        container[random.choice((key.upper(), key + "s", "", "\ud800", "type"))] = container.pop(key)


def _change_number(random: Random, container: Any, key: Any) -> None:
    number = container[key]
    if type(number) in (int, float) and abs(number) < 2**70:
        container[key] = random.choice((number + 1, number * 2, -number, number // 2, 0.5, str(number)[:9]))


_JSON: Sequence[Callable[[Random, Any, Any], None]] = (_replace, _replace, _swap, _remove, _rename, _change_number)


def damaged_json(random: Random, content: bytes) -> bytes:
    """JSON with other values, or text that is no JSON."""
    if not random.randrange(4):
        return damaged_bytes(random, content)
    value = json.loads(content)
    for _ in range(random.choice((1, 1, 1, 3))):
        found = place_in(random, value)
        if found is None or not random.randrange(30):
            value = odd_value(random)
        else:
            random.choice(_JSON)(random, *found)
    return dumped(value)


def dumped(value: Any) -> bytes:
    """JSON of a value, also of one that is deeper than Python writes."""
    try:
        return json.dumps(value).encode()
    except (RecursionError, ValueError):  # too deep, or a whole number of too many digits
        return b"[" * DEEPEST + b"1" * 5000 + b"]" * DEEPEST


# --- weights ------------------------------------------------------------------------------------------------------


def damaged_safetensors(random: Random, content: bytes) -> bytes:
    """Damaged anywhere, or in its header's fields."""
    if random.randrange(2):
        return damaged_bytes(random, content)
    end = 8 + int.from_bytes(content[:8], "little")
    header = damaged_json(random, content[8:end])
    size = len(header) + random.choice((0, 0, 0, 0, 1, -1, 2**31, 2**63 - 1))
    return (size % 2**64).to_bytes(8, "little") + header + content[end:]


def damaged_torch_zip(random: Random, content: bytes) -> bytes:
    """Damaged anywhere, or in its members."""
    if random.randrange(2):
        return damaged_bytes(random, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    for _ in range(random.choice((1, 1, 2))):
        number = random.choice((0, random.randrange(len(members))))  # data.pkl is the first
        name, data = members[number]
        other, other_data = members[random.randrange(len(members))]
        changes: Sequence[tuple[str, bytes]] = (
            (name, damaged_bytes(random, data)),
            (name, other_data),
            (other, data),
        )
        members[number] = random.choice((changes[0], changes[0], *changes, ("a/" + name, data)))
    return _zipped(members, random.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,)))


def _zipped(members: Sequence[tuple[str, bytes]], compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for number, (name, data) in enumerate(members):
            is_new = name not in [other for other, _ in members[:number]]
            archive.writestr(name if is_new else name + "'", data)
    return file.getvalue()


# --- files of a folder --------------------------------------------------------------------------------------------

BY_SUFFIX: Mapping[str, Callable[[Random, bytes], bytes]] = {
    "json": damaged_json,
    "safetensors": damaged_safetensors,
    "bin": damaged_torch_zip,
    "npy": damaged_bytes,
    "txt": damaged_bytes,
}


def damaged_file(random: Random, name: str, content: bytes) -> bytes:
    """A file with damage that suits its kind."""
    return BY_SUFFIX[name.rpartition(".")[2]](random, content)


def damaged_files(random: Random, files: Files, others: Files) -> dict[str, bytes | None]:
    """What changes in a folder: new contents by path, None for a file that is not there; `others` are another's."""
    changes: dict[str, bytes | None] = {}
    for _ in range(random.choice((1, 1, 1, 1, 2, 3))):
        name = random.choice(sorted(files))
        kind = random.randrange(20)
        if kind == 0:
            changes[name] = None
        elif kind == 1:
            second = random.choice(sorted(files))
            changes |= {name: files[second], second: files[name]}
        elif kind == 2 and others:
            another = random.choice(sorted(others))
            changes[random.choice((name, another))] = others[another]
        else:
            changes[name] = damaged_file(random, name, files[name])
    return changes
