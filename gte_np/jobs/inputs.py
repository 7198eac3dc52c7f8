"""The inputs of a job: files, compressed or not, folders and globs of them, standard input; in chunks of records."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from gte_np.errors import InputError
from gte_np.jobs.optional import arrow
from gte_np.jobs.rows import Fields, Record

STANDARD_INPUT = "-"
BLOCK = 1 << 20  # bytes that are read at once
MOST_BYTES = 1 << 26  # of one line: more is no text, and would fill the memory


class Chunk(NamedTuple):
    """Records that become one shard.

    `place` finds them again, and can be written as JSON. `digest` is the SHA-256 of what was read. `position` is how
    many bytes of the file have been read, compressed if it is.
    """

    source: Input
    place: dict[str, Any]
    records: Sequence[Any]
    digest: str
    position: int


class InputFormat(Protocol):
    """A format of files: how they are divided into chunks, and what is in a record."""

    def chunks(self, source: Input, size: int, fields: Fields, place: dict[str, Any] | None) -> Iterator[Chunk]:
        """Divide an input into chunks of `size` records, from a place on, if one is given."""

    def records(self, chunk: Chunk) -> Iterator[Record]:
        """The records of a chunk, with fields."""


class Input(NamedTuple):
    """One file, or standard input: its name as it was given, its format, and "gz" or "zst" if it is compressed."""

    name: str
    format: InputFormat
    compression: str = ""

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return "standard input" if self.name == STANDARD_INPUT else self.name

    @property
    def size(self) -> int:
        """Bytes of the file; 0 for standard input and other streams, whose size nobody knows."""
        return 0 if self.name == STANDARD_INPUT else Path(self.name).stat().st_size


@contextmanager
def opened(source: Input) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The content of an input, and the file itself, whose position tells how far it has been read.

    Raises InputError, in the block too, for a file that is not what its name says it is, or has been cut.
    """
    try:
        with _file(source) as file, _decompressed(source, file) as content:
            yield content, file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"expected {source.label} to be a whole .gz file, got: {error}.") from error


@contextmanager
def _file(source: Input) -> Iterator[IO[bytes]]:
    if source.name == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    with Path(source.name).open("rb") as file:
        yield file


@contextmanager
def _decompressed(source: Input, file: IO[bytes]) -> Iterator[IO[bytes]]:
    if source.compression == "gz":
        with gzip.open(file) as content:
            yield content  # type: ignore[misc]
    elif source.compression == "zst":
        pa = arrow("an input that ends in .zst")
        try:
            with pa.CompressedInputStream(file, "zstd") as content:
                yield content
        except OSError as error:
            raise InputError(f"expected {source.label} to be a whole .zst file, got: {error}.") from error
    else:
        yield file
