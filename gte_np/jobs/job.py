"""What a job is: inputs, a model and options, and what these make of a chunk of records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np import __version__
from gte_np.arguments import check_choice, check_integer
from gte_np.embedding_model import EmbeddingModel
from gte_np.embedding_quantization import PRECISIONS, find_ranges, quantize_embeddings
from gte_np.encoder_interface import FloatArray
from gte_np.errors import InputError
from gte_np.jobs.input_files import Numbered, all_chunks, find_inputs
from gte_np.jobs.inputs import Chunk
from gte_np.jobs.parts import Part, Schema
from gte_np.jobs.rows import ID, TEXT, Fields, Rows, check_fields, read_rows
from gte_np.jobs.workspace import Place, Shard, write_shard_files
from gte_np.pipeline import Processed

ON_ERROR = ("fail", "skip")
ROWS_PER_SHARD = 2048


@dataclass(frozen=True)
class JobOptions:
    """What a job makes of its inputs.

    `field` is the field, or column, of the text; `id` that of the id, by default the number of the row; `keep` names
    others that are carried over. `input_format` is that of inputs whose names do not tell. `with_text` keeps the
    texts in the output. `on_error` is "fail" or "skip". Vectors are made as by `EmbeddingModel.encode`, but with
    `normalize_embeddings` False without the repository's Normalize modules; `ranges`,
    (2, D), are for int8 and uint8, by default those of the first shard. `cache` is an SQLite file of vectors.
    """

    field: str = TEXT
    id: str | None = None
    keep: tuple[str, ...] = ()
    input_format: str | None = None
    with_text: bool = True
    on_error: str = "fail"
    prompt_name: str | None = None
    prompt: str | None = None
    batch_size: int = 32
    normalize_embeddings: bool | None = None
    truncate_dim: int | None = None
    precision: str = "float32"
    ranges: NDArray[np.float32] | None = None
    rows_per_shard: int = ROWS_PER_SHARD
    cache: Path | None = None

    @property
    def fields(self) -> Fields:
        """The fields that are read."""
        return check_fields(Fields(self.field, self.id, self.keep))


class Job:
    """Inputs, a model and options, together."""

    def __init__(self, model: EmbeddingModel, inputs: Sequence[str], options: JobOptions | None = None) -> None:
        """Raises InputError for inputs that are not there and for options that do not fit."""
        options = options or JobOptions()
        check_choice("precision", options.precision, PRECISIONS)
        check_choice("on_error", options.on_error, ON_ERROR)
        check_integer("rows_per_shard", options.rows_per_shard, least=1)
        self.model = model if options.normalize_embeddings in (None, True) else model.without_normalize()
        self.options, self.fields = options, options.fields
        self.names = list(inputs)
        self.inputs = find_inputs(inputs, options.input_format)
        self.encode_windows([])  # checks the rest of the options
        self.dimension = options.truncate_dim or model.get_sentence_embedding_dimension()

    def encode_windows(self, windows: Iterable[list[str]]) -> Iterator[Processed[FloatArray]]:
        """The vectors, in float32, of lists of texts."""
        return self.model.encode_windows(
            windows,
            prompt_name=self.options.prompt_name,
            prompt=self.options.prompt,
            batch_size=self.options.batch_size,
            normalize_embeddings=self.options.normalize_embeddings,
            truncate_dim=self.options.truncate_dim,
        )

    def vector_settings(self) -> dict[str, Any]:
        """All that the vector of a text depends on, in float32."""
        normalized = self.options.normalize_embeddings
        return self.model.fingerprint() | {
            "prompt": self.model.resolve_prompt(self.options.prompt_name, self.options.prompt),
            "max_seq_length": self.model.max_seq_length,
            "normalize_embeddings": None if normalized is None else bool(normalized),
            "truncate_dim": self.options.truncate_dim or self.model.truncate_dim,
        }

    def settings(self, place: Place) -> dict[str, Any]:
        """All that the output of the job depends on, but for the content of the inputs."""
        options = self.options
        ranges = None if options.ranges is None else np.asarray(options.ranges, np.float32).tolist()
        return self.vector_settings() | {
            "gte_np": __version__,
            "name_or_path": self.model.name_or_path,
            "inputs": self.names,
            "input_format": options.input_format,
            "field": options.field,
            "id": options.id,
            "keep": list(options.keep),
            "with_text": options.with_text,
            "on_error": options.on_error,
            "precision": options.precision,
            "ranges": ranges,
            "rows_per_shard": options.rows_per_shard,
            "format": place.format_name,
        }

    def chunks(self) -> Iterator[Numbered]:
        """The chunks of the inputs, each of which becomes a shard."""
        return all_chunks(self.inputs, self.options.rows_per_shard, self.fields)

    def read(self, chunk: Chunk, first_row: int, kinds: Mapping[str, str] | None) -> Rows:
        """The rows of a chunk. The kinds of their columns are those of the first chunk, if they are given.

        Raises InputError for a record that cannot be read, unless such records are skipped.
        """
        rows = read_rows(list(chunk.source.format.records(chunk)), first_row, self.fields, kinds)
        if rows.problems and self.options.on_error == "fail":
            problem = rows.problems[0]
            raise InputError(f"{problem.place}: {problem.reason} --on-error skip leaves out such rows.")
        return rows

    def schema(self, kinds: Mapping[str, str] | None) -> Schema:
        """The columns of the output, by their kinds in the first shard, if there is one."""
        if kinds is None:
            kinds = {
                ID: "int64" if self.options.id is None else "string",
                **dict.fromkeys(self.options.keep, "string"),
            }
        is_binary = self.options.precision in ("binary", "ubinary")
        dtype = self.options.precision.replace("ubinary", "uint8").replace("binary", "int8")
        text = {TEXT: "string"} if self.options.with_text else {}
        return Schema({**kinds, **text}, dtype, (self.dimension + 7) // 8 if is_binary else self.dimension)

    def part(self, content: ShardContent, ranges: NDArray[np.float32] | None) -> Part:
        """The rows of a shard with their vectors, quantised as asked."""
        texts = {TEXT: content.rows.texts} if self.options.with_text else {}
        vectors = quantize_embeddings(content.vectors, self.options.precision, ranges)
        return Part({**content.rows.columns, **texts}, vectors)

    @property
    def has_ranges(self) -> bool:
        """Whether the vectors are put on a scale that all shards share."""
        return self.options.precision in ("int8", "uint8")

    def ranges_of(self, vectors: FloatArray) -> NDArray[np.float32] | None:
        """The ranges that were given, or those of the vectors of the first shard; None for other precisions."""
        if not self.has_ranges:
            return None
        return find_ranges(vectors, self.options.precision) if self.options.ranges is None else self.options.ranges


class ShardContent(NamedTuple):
    """A chunk, its number, the number of its first row, its rows, and their vectors, (B, D), so many of them cut."""

    number: int
    chunk: Chunk
    first_row: int
    rows: Rows
    vectors: FloatArray
    cut: int


def write_shard(job: Job, place: Place, content: ShardContent, ranges: NDArray[np.float32] | None) -> Shard:
    """Write the files of a shard."""
    number, chunk, first_row, rows, _, cut = content
    files = write_shard_files(place, number, job.schema(rows.kinds), job.part(content, ranges), rows.problems)
    return Shard(
        number=number,
        source=chunk.source.name,
        place=chunk.place,
        input_sha256=chunk.digest,
        first_row=first_row,
        rows=len(chunk.records),
        skipped=len(rows.problems),
        cut=cut,
        kinds=dict(rows.kinds),
        files=files,
    )


def stack(results: Sequence[FloatArray], dimension: int) -> FloatArray:
    """Vectors, of which there may be none: (B, D)."""
    return np.stack(results) if len(results) else np.empty((0, dimension), np.float32)
