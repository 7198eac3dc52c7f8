"""The formats of outputs: how rows and their vectors are written to a shard, and shards are joined to one file."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gte_np.jobs.optional import arrow
from gte_np.jobs.rows import EMBEDDING

_COPIED = 1 << 20  # bytes at once
_ROWS_OF = ".rows.jsonl"


class _Every:
    """Holds every number."""

    def __contains__(self, number: object) -> bool:
        return True


EVERY: Container[int] = _Every()


class Schema(NamedTuple):
    """The columns of an output: the kinds of those beside the vectors, and the numbers of a vector."""

    kinds: Mapping[str, str]
    dtype: str
    width: int


class Part(NamedTuple):
    """Rows: the columns by name, and the vectors, (B, W)."""

    columns: Mapping[str, Sequence[Any]]
    vectors: NDArray[Any]


class OutputFormat(Protocol):
    """A format of outputs."""

    has_rows_file: bool  # whether the columns are in a file of their own, of JSON lines, beside the vectors

    def write(self, file: IO[bytes], schema: Schema, part: Part) -> None:
        """Write a shard."""

    def join(self, file: IO[bytes], schema: Schema, paths: Sequence[Path]) -> None:
        """Write what the shards at these paths, of which there may be none, are together."""

    def vectors(self, path: Path) -> Iterator[NDArray[Any]]:
        """The vectors of a shard or of a joined file, some rows at a time, mapped where that is possible."""

    def rows(self, path: Path, wanted: Container[int] = EVERY) -> Iterator[dict[str, Any]]:
        """The other columns of the wanted rows, by their numbers, of a shard or of a joined file, row by row."""


def rows_file(path: Path) -> Path:
    """The file with the columns that belong to an array of vectors."""
    return path.with_name(path.name + _ROWS_OF)


_encode_json = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make an encoder for each line


def json_line(value: object) -> bytes:
    """A value as a line of JSON."""
    return _encode_json(value).encode() + b"\n"


def write_rows(file: IO[bytes], columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns as JSON lines."""
    rows = zip(*columns.values(), strict=True)
    file.writelines(json_line(dict(zip(columns, values, strict=True))) for values in rows)


def read_json_lines(path: Path, wanted: Container[int] = EVERY) -> Iterator[dict[str, Any]]:
    """The objects in the wanted lines of a file of JSON lines."""
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if number in wanted:
                yield json.loads(line)


def concatenate(file: IO[bytes], paths: Sequence[Path], skipped: int = 0) -> None:
    """Copy files one after the other, each without its first bytes."""
    for path in paths:
        with path.open("rb") as part:
            part.seek(skipped)
            shutil.copyfileobj(part, file, _COPIED)


class NumpyArray:
    """A .npy file, (B, W), as np.save writes it; the columns are in a file of their own."""

    has_rows_file = True

    def write(self, file: IO[bytes], schema: Schema, part: Part) -> None:
        """Write a shard: see OutputFormat."""
        self._write_header(file, part.vectors)
        file.write(np.ascontiguousarray(part.vectors).data)

    def join(self, file: IO[bytes], schema: Schema, paths: Sequence[Path]) -> None:
        """Join shards: see OutputFormat."""
        arrays = [np.load(path, mmap_mode="r") for path in paths]
        rows = sum(len(array) for array in arrays)
        self._write_header(file, np.broadcast_to(np.zeros((), schema.dtype), (rows, schema.width)))
        for path, array in zip(paths, arrays, strict=True):  # by reading: what is mapped would count as memory
            concatenate(file, [path], path.stat().st_size - array.nbytes)

    def _write_header(self, file: IO[bytes], vectors: NDArray[Any]) -> None:
        """Write the header of np.save, which would seek."""
        facts = np.lib.format.header_data_from_array_1_0(np.empty((0, 1), vectors.dtype)) | {"shape": vectors.shape}
        np.lib.format.write_array_header_1_0(file, facts)

    def vectors(self, path: Path) -> Iterator[NDArray[Any]]:
        """The array, mapped: see OutputFormat."""
        yield np.load(path, mmap_mode="r")

    def rows(self, path: Path, wanted: Container[int] = EVERY) -> Iterator[dict[str, Any]]:
        """The columns: see OutputFormat."""
        return read_json_lines(rows_file(path), wanted)


class TextFormat:
    """What the formats of text share: a head, which may be empty, and rows."""

    has_rows_file = False

    def write(self, file: IO[bytes], schema: Schema, part: Part) -> None:
        """Write a shard: see OutputFormat."""
        file.write(self.head(schema))
        self.write_rows(file, part)

    def join(self, file: IO[bytes], schema: Schema, paths: Sequence[Path]) -> None:
        """Join shards: see OutputFormat."""
        head = self.head(schema)
        file.write(head)
        concatenate(file, paths, len(head))

    def head(self, schema: Schema) -> bytes:
        """What comes before the rows."""
        raise NotImplementedError

    def write_rows(self, file: IO[bytes], part: Part) -> None:
        """Write rows."""
        raise NotImplementedError

    def vectors(self, path: Path) -> Iterator[NDArray[Any]]:
        """The vectors: see OutputFormat."""
        raise NotImplementedError

    def rows(self, path: Path, wanted: Container[int] = EVERY) -> Iterator[dict[str, Any]]:
        """The columns: see OutputFormat."""
        raise NotImplementedError


class JsonOutput(TextFormat):
    """JSON lines: the columns, and the vector as an array of numbers."""

    def head(self, schema: Schema) -> bytes:
        """Nothing."""
        return b""

    def write_rows(self, file: IO[bytes], part: Part) -> None:
        """Write rows: see TextFormat."""
        rows = zip(*part.columns.values(), strict=True)
        for values, vector in zip(rows, part.vectors, strict=True):
            row = json.dumps(dict(zip(part.columns, values, strict=True)), ensure_ascii=False)
            line = f'{row[:-1]}, "{EMBEDDING}": [{", ".join(shortest_numbers(vector))}]}}\n'
            file.write(line.encode())

    def vectors(self, path: Path) -> Iterator[NDArray[Any]]:
        """The vectors: see OutputFormat."""
        for row in read_json_lines(path):
            yield np.array([row[EMBEDDING]])

    def rows(self, path: Path, wanted: Container[int] = EVERY) -> Iterator[dict[str, Any]]:
        """The columns: see OutputFormat."""
        for row in read_json_lines(path, wanted):
            del row[EMBEDDING]
            yield row


class CsvOutput(TextFormat):
    """Comma separated values with a header: the columns, and one column for each number of a vector."""

    def head(self, schema: Schema) -> bytes:
        """The header."""
        return _csv_line([*schema.kinds, *(f"{EMBEDDING}_{number}" for number in range(schema.width))])

    def write_rows(self, file: IO[bytes], part: Part) -> None:
        """Write rows: see TextFormat."""
        for values, vector in zip(zip(*part.columns.values(), strict=True), part.vectors, strict=True):
            file.write(_csv_line([*values, *shortest_numbers(vector)]))

    def vectors(self, path: Path) -> Iterator[NDArray[Any]]:
        """The vectors: see OutputFormat."""
        for columns, row in self._table(path):
            yield np.array([row[columns:]], np.float64)

    def rows(self, path: Path, wanted: Container[int] = EVERY) -> Iterator[dict[str, Any]]:
        """The columns: see OutputFormat."""
        with path.open(encoding="utf-8", newline="") as file:
            names = next(csv.reader(file))
        for number, (columns, row) in enumerate(self._table(path)):
            if number in wanted:
                yield dict(zip(names[:columns], row, strict=False))

    def _table(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """Rows, and how many of the first values are no numbers of the vector."""
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            columns = sum(not name.startswith(f"{EMBEDDING}_") for name in next(reader))
            for row in reader:
                yield columns, row


def _csv_line(values: Sequence[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue().encode()


def shortest_numbers(vector: NDArray[Any]) -> list[str]:
    """Numbers with the fewest digits that give the same float32 again, as JSON writes them."""
    return [str(value) for value in vector] if vector.dtype.kind == "f" else list(map(str, vector.tolist()))


class _ArrowFormat:
    """What the formats of Arrow share: a column of lists of one size for the vectors."""

    has_rows_file = False

    def write(self, file: IO[bytes], schema: Schema, part: Part) -> None:
        """Write a shard: see OutputFormat."""
        with self.writer(file, _arrow_schema(schema)) as writer:
            writer.write_table(_arrow_table(schema, part))

    def join(self, file: IO[bytes], schema: Schema, paths: Sequence[Path]) -> None:
        """Join shards: see OutputFormat."""
        with self.writer(file, _arrow_schema(schema)) as writer:
            for path in paths:
                for table in self.tables(path, None):
                    writer.write_table(table)

    def vectors(self, path: Path) -> Iterator[NDArray[Any]]:
        """The vectors: see OutputFormat."""
        for table in self.tables(path, [EMBEDDING]):
            for chunk in table.column(EMBEDDING).chunks:
                yield chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(chunk), chunk.type.list_size)

    def rows(self, path: Path, wanted: Container[int] = EVERY) -> Iterator[dict[str, Any]]:
        """The columns: see OutputFormat."""
        first = 0
        for table in self.tables(path, None):
            numbers = [number for number in range(len(table)) if first + number in wanted]
            yield from table.drop_columns([EMBEDDING]).take(arrow("Arrow").array(numbers, "int64")).to_pylist()
            first += len(table)

    def writer(self, file: IO[bytes], schema: Any) -> Any:
        """What writes tables to a file."""
        raise NotImplementedError

    def tables(self, path: Path, columns: list[str] | None) -> Iterator[Any]:
        """The tables of a file, which are its shards, with some of the columns."""
        raise NotImplementedError


class ParquetOutput(_ArrowFormat):
    """A Parquet file; each shard is a row group."""

    def writer(self, file: IO[bytes], schema: Any) -> Any:
        """What writes tables to a file."""
        return arrow("Parquet").parquet.ParquetWriter(file, schema, compression="zstd")

    def tables(self, path: Path, columns: list[str] | None) -> Iterator[Any]:
        """The row groups."""
        with arrow("Parquet").parquet.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns)


class ArrowOutput(_ArrowFormat):
    """An Arrow IPC file, also known as Feather; each shard is a record batch."""

    def writer(self, file: IO[bytes], schema: Any) -> Any:
        """What writes tables to a file."""
        return arrow("Arrow").ipc.new_file(file, schema)

    def tables(self, path: Path, columns: list[str] | None) -> Iterator[Any]:
        """The record batches."""
        pa = arrow("Arrow")
        with _mapped(path) as file:
            reader = arrow("Arrow").ipc.open_file(file)
            for number in range(reader.num_record_batches):
                table = pa.Table.from_batches([reader.get_batch(number)])
                yield table if columns is None else table.select(columns)


@contextmanager
def _mapped(path: Path) -> Iterator[Any]:
    with arrow("Arrow").memory_map(str(path)) as file:
        yield file


def _arrow_schema(schema: Schema) -> Any:
    pa = arrow("Arrow")
    types = {"bool": pa.bool_(), "int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}
    vector = pa.list_(pa.from_numpy_dtype(np.dtype(schema.dtype)), schema.width)
    return pa.schema([*((name, types[kind]) for name, kind in schema.kinds.items()), (EMBEDDING, vector)])


def _arrow_table(schema: Schema, part: Part) -> Any:
    pa = arrow("Arrow")
    fields = _arrow_schema(schema)
    columns = [pa.array(values, fields.field(name).type) for name, values in part.columns.items()]
    return pa.table([*columns, arrow_vectors(part.vectors)], schema=fields)


def arrow_vectors(vectors: NDArray[Any]) -> Any:
    """Vectors, (B, W), as a column of lists of one size."""
    pa = arrow("Arrow")
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).reshape(-1)), vectors.shape[1])


OUTPUT_FORMATS: dict[str, OutputFormat] = {
    "npy": NumpyArray(),
    "parquet": ParquetOutput(),
    "arrow": ArrowOutput(),
    "jsonl": JsonOutput(),
    "csv": CsvOutput(),
}
