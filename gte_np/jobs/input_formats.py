"""The formats of inputs: text, JSON lines, comma and tab separated values, Parquet."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import IO, Any, NamedTuple, NoReturn

from gte_np.errors import InputError
from gte_np.jobs.inputs import BLOCK, MOST_BYTES, STANDARD_INPUT, Chunk, Input, InputFormat, opened
from gte_np.jobs.optional import arrow
from gte_np.jobs.rows import TEXT, Fields, Record, RowError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OTHER_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class Line(NamedTuple):
    """A line with its end, its number from 1, and where the next one begins, in bytes."""

    content: bytes
    number: int
    end: int


def read_lines(source: Input, content: IO[bytes], offset: int, first: int) -> Iterator[Line]:
    """The lines of an input from `offset` on, where line number `first` begins. A byte order mark is left out.

    A line ends with LF, CR LF or CR. Raises InputError for UTF-16, and for a line without an end.
    """
    if offset:
        _skip(content, offset)
    for number, line in enumerate(_split(source, content), first):
        offset += len(line)
        if number == 1:
            _check_encoding(source, line)
            line = line.removeprefix(_BYTE_ORDER_MARK)
        yield Line(line, number, offset)


def _skip(content: IO[bytes], offset: int) -> None:
    if content.seekable():
        content.seek(offset)
        return
    while offset and (block := content.read(min(BLOCK, offset))):
        offset -= len(block)


def _split(source: Input, content: IO[bytes]) -> Iterator[bytes]:
    read = getattr(content, "read1", content.read)  # of a pipe, what is there
    rest = b""
    while block := read(BLOCK):
        # The last line may go on in the next block, and a CR at its end may be half of CR LF.
        *lines, rest = (rest + block).splitlines(keepends=True)
        if len(rest) > MOST_BYTES:
            raise InputError(f"expected lines in {source.label}, got {len(rest)} bytes without the end of a line.")
        yield from lines
    if rest:
        yield rest


def _check_encoding(source: Input, line: bytes) -> None:
    encoding = _OTHER_ENCODINGS.get(line[:2])
    if encoding:
        raise InputError(
            f"expected UTF-8 text in {source.label}, got {encoding}: convert it, with iconv for instance."
        )


def decode(line: bytes) -> str:
    """A line as text. Raises RowError if it is no UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        characters = len(line[: error.start].decode())
        raise RowError(
            f"expected UTF-8 text, got byte {line[error.start]:#x} after {characters} characters."
        ) from error


class Lines:
    """A format whose records are lines."""

    def chunks(self, source: Input, size: int, fields: Fields, place: dict[str, Any] | None) -> Iterator[Chunk]:
        """Divide an input into chunks: see InputFormat."""
        offset, first = (place["offset"], place["line"]) if place else (0, 1)
        with opened(source) as (content, file):
            lines = (line for line in read_lines(source, content, offset, first) if self.is_record(line.content))
            while group := list(islice(lines, size)):
                here = {"offset": offset, "line": first}
                yield Chunk(source, here, group, _digest(line.content for line in group), _position(source, file))
                offset, first = group[-1].end, group[-1].number + 1

    def records(self, chunk: Chunk) -> Iterator[Record]:
        """The records of a chunk: see InputFormat."""
        for line in chunk.records:
            yield Record(f"{chunk.source.label}, line {line.number}", self._fields_or_error(line.content))

    def _fields_or_error(self, line: bytes) -> dict[str, Any] | RowError:
        try:
            return self.fields(decode(line))
        except RowError as error:
            return error

    def is_record(self, line: bytes) -> bool:
        """Whether a line is a record."""
        raise NotImplementedError

    def fields(self, line: str) -> dict[str, Any]:
        """The fields of a line. Raises RowError if it has none."""
        raise NotImplementedError


class TextLines(Lines):
    """One text a line, an empty one too."""

    def is_record(self, line: bytes) -> bool:
        """Every line is."""
        return True

    def fields(self, line: str) -> dict[str, Any]:
        """The line without its end."""
        return {TEXT: line.rstrip("\r\n")}


class JsonLines(Lines):
    """One JSON object a line; empty lines are passed over."""

    def is_record(self, line: bytes) -> bool:
        """What is not empty."""
        return bool(line.strip())

    def fields(self, line: str) -> dict[str, Any]:
        """The fields of the object."""
        try:
            value = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise RowError(f"expected a JSON object, got what cannot be read: {error}.") from error
        if not isinstance(value, dict):
            raise RowError(f"expected a JSON object, got {type(value).__name__}.")
        return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


class _Row(NamedTuple):
    """A row of separated values: the values or why there are none, and its lines, of which `number` is the first."""

    values: list[str] | RowError
    content: bytes
    number: int
    end: int


class SeparatedValues:
    """Rows of values under a header, as of RFC 4180: quoted values may have the separator and ends of lines."""

    def __init__(self, separator: str) -> None:
        self._separator = separator

    def chunks(self, source: Input, size: int, fields: Fields, place: dict[str, Any] | None) -> Iterator[Chunk]:
        """Divide an input into chunks: see InputFormat."""
        offset, first = (place["offset"], place["line"]) if place else (0, 1)
        with opened(source) as (content, file):
            rows = self._rows(read_lines(source, content, offset, first))
            header = place["header"] if place else None
            if header is None:
                for row in islice(rows, 1):
                    header, offset = _header(source, row, fields), row.end
            while group := list(islice(rows, size)):
                here = {"offset": offset, "line": group[0].number, "header": header}
                yield Chunk(source, here, group, _digest(row.content for row in group), _position(source, file))
                offset = group[-1].end

    def _rows(self, lines: Iterator[Line]) -> Iterator[_Row]:
        csv.field_size_limit(max(csv.field_size_limit(), MOST_BYTES))  # a long text is no mistake
        decoded = _Decoded(lines)
        reader = csv.reader(decoded, delimiter=self._separator, strict=True)
        while True:
            decoded.taken.clear()
            try:
                values: list[str] | RowError = next(reader)
            except StopIteration:
                return
            except RowError as error:
                values = error
            except csv.Error as error:
                values = RowError(f"expected separated values, got in {len(decoded.taken)} lines: {error}.")
            if values != []:  # an empty line
                taken = decoded.taken
                content = b"".join(line.content for line in taken)
                yield _Row(values, content, taken[0].number, taken[-1].end)

    def records(self, chunk: Chunk) -> Iterator[Record]:
        """The records of a chunk: see InputFormat."""
        header = chunk.place["header"]
        for row in chunk.records:
            yield Record(f"{chunk.source.label}, line {row.number}", _named(header, row.values))


class _Decoded:
    """Lines as text, and which of them were taken. Unlike a generator, it goes on after an error."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.taken: list[Line] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.taken.append(line)
        return decode(line.content)


def _header(source: Input, row: _Row, fields: Fields) -> list[str]:
    if isinstance(row.values, RowError):
        raise InputError(f"{source.label}, line {row.number}: {row.values}")
    _check_columns(source, row.values, fields)
    return row.values


def _check_columns(source: Input, names: list[str], fields: Fields) -> None:
    for name in fields.wanted:
        if names.count(name) != 1:
            came = f"{names.count(name)} times" if name in names else f"the columns {', '.join(map(repr, names))}"
            raise InputError(f"expected the column {name!r} once in {source.label}, got {came}.")


def _named(header: list[str], values: list[str] | RowError) -> dict[str, Any] | RowError:
    if isinstance(values, RowError):
        return values
    if len(values) != len(header):
        return RowError(f"expected {len(header)} values, as in the header, got {len(values)}.")
    return dict(zip(header, values, strict=True))


class Parquet:
    """Rows of a Parquet file, of which only the wanted columns are read."""

    def chunks(self, source: Input, size: int, fields: Fields, place: dict[str, Any] | None) -> Iterator[Chunk]:
        """Divide an input into chunks: see InputFormat."""
        pa, parquet = arrow("a Parquet file"), arrow("a Parquet file").parquet
        if source.name == STANDARD_INPUT or source.compression:
            raise InputError(f"expected a Parquet file to be read from a file as it is, got {source.name!r}.")
        first = place["row"] if place else 0
        try:
            with parquet.ParquetFile(source.name) as file:
                _check_columns(source, file.schema_arrow.names, fields)
                rows = _parquet_rows(file, first, size, fields)
                while group := list(islice(rows, size)):
                    lines = (json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") for row in group)
                    yield Chunk(
                        source, {"row": first}, group, _digest(lines), _share(source, file, first + len(group))
                    )
                    first += len(group)
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            raise InputError(f"expected a whole Parquet file, got in {source.label}: {error}") from error

    def records(self, chunk: Chunk) -> Iterator[Record]:
        """The records of a chunk: see InputFormat."""
        for number, row in zip(count(chunk.place["row"]), chunk.records, strict=False):
            yield Record(f"{chunk.source.label}, row {number}", row)


def _parquet_rows(file: Any, first: int, size: int, fields: Fields) -> Iterator[dict[str, Any]]:
    """The rows from number `first` on, by column."""
    groups = file.num_row_groups
    sizes = [file.metadata.row_group(group).num_rows for group in range(groups)]
    begin = 0
    while begin < groups and first >= sizes[begin]:
        first -= sizes[begin]
        begin += 1
    columns = list(dict.fromkeys(fields.wanted))
    for batch in file.iter_batches(batch_size=size, row_groups=list(range(begin, groups)), columns=columns):
        rows = batch.slice(first).to_pylist()
        first = max(0, first - batch.num_rows)
        for row in rows:
            yield {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    """A value as JSON has it: dates and the like as text."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _position(source: Input, file: IO[bytes]) -> int:
    return 0 if source.name == STANDARD_INPUT else file.tell()


def _share(source: Input, file: Any, rows: int) -> int:
    """How many bytes of a Parquet file so many rows are, about."""
    return source.size * rows // max(1, file.metadata.num_rows)


INPUT_FORMATS: dict[str, InputFormat] = {
    "txt": TextLines(),
    "jsonl": JsonLines(),
    "ndjson": JsonLines(),
    "csv": SeparatedValues(","),
    "tsv": SeparatedValues("\t"),
    "parquet": Parquet(),
}
