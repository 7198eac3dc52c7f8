"""The inputs of a job by their names, and their chunks, one input after the other."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gte_np.errors import InputError
from gte_np.jobs.input_formats import INPUT_FORMATS
from gte_np.jobs.inputs import STANDARD_INPUT, Chunk, Input
from gte_np.jobs.rows import Fields


def find_inputs(names: Sequence[str], format_name: str | None = None) -> list[Input]:
    """The inputs by their names: files, folders, globs, or "-" for standard input, which is text by default.

    Files of a folder and of a glob are in the order of their paths; hidden ones are left out, and in a folder those
    of other formats, too. Raises InputError for what is not there and for an unknown format.
    """
    found = [source for name in names for source in _find(name, format_name)]
    if not found:
        raise InputError("expected inputs, got none.")
    return found


def _find(name: str, format_name: str | None) -> list[Input]:
    path = Path(name)
    if name == STANDARD_INPUT:
        return [Input(name, INPUT_FORMATS[format_name or "txt"])]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
        inputs = [_input_of(file, None) for file in files if _split_suffix(file)[0] in INPUT_FORMATS]
        if not inputs:
            raise InputError(f"expected files of {', '.join(INPUT_FORMATS)} in the folder {name!r}, got none.")
        return inputs
    if not path.exists() and any(character in name for character in "*?["):
        matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern
        if not matches:
            raise InputError(f"expected files that match {name!r}, got none.")
        return [_input_of(Path(match), format_name) for match in matches if Path(match).is_file()]
    return [_input_of(path, format_name)]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _input_of(path: Path, format_name: str | None) -> Input:
    suffix, compression = _split_suffix(path)
    format_name = format_name or suffix or "txt"
    if format_name not in INPUT_FORMATS:
        raise InputError(
            f"expected an input that ends in {', '.join(INPUT_FORMATS)}, perhaps with .gz or .zst, got "
            f"{os.fspath(path)!r}: give --input-format, such as txt for one text a line."
        )
    return Input(os.fspath(path), INPUT_FORMATS[format_name], compression)


def _split_suffix(path: Path) -> tuple[str, str]:
    """The format and the compression of a file, by its name."""
    suffix = path.suffix[1:].lower()
    if suffix in ("gz", "zst"):
        return Path(path.stem).suffix[1:].lower(), suffix
    return suffix, ""


class Numbered(NamedTuple):
    """A chunk, its number, and the number of its first row, both among those of all inputs, from 0."""

    number: int
    first_row: int
    chunk: Chunk


def all_chunks(inputs: Iterable[Input], size: int, fields: Fields) -> Iterator[Numbered]:
    """The chunks of all inputs, one input after the other."""
    number = first_row = 0
    for source in inputs:
        for chunk in source.format.chunks(source, size, fields, None):
            yield Numbered(number, first_row, chunk)
            number, first_row = number + 1, first_row + len(chunk.records)


def reread(source: Input, place: dict[str, Any], size: int, fields: Fields) -> Chunk:
    """A chunk that was found before. Raises InputError if it is no longer there."""
    for chunk in source.format.chunks(source, size, fields, place):
        return chunk
    raise InputError(f"expected {source.name} to be as it was when the job began, got a shorter one.")
