"""A class that adds vectors to batches, for `map_batches` of Ray Data, `mapInArrow` of Spark and others."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from gte_np.embedding_model import EmbeddingModel
from gte_np.errors import InputError
from gte_np.jobs.optional import arrow
from gte_np.jobs.parts import arrow_vectors
from gte_np.jobs.rows import EMBEDDING, TEXT

_ENCODE_OPTIONS = (
    "prompt_name",
    "prompt",
    "batch_size",
    "precision",
    "normalize_embeddings",
    "truncate_dim",
    "ranges",
)


class Embedder:
    """Adds the vectors of a column of texts to batches, which are dicts of arrays, or tables or batches of pyarrow.

    `model` is a name, a folder or an EmbeddingModel. `text` is the column of the texts, and `output` that of the
    vectors. `threads` is how many a call may use: by default as many as Ray gave processors to this process, or, if
    this is no worker of Ray, as many as this process may use. `options` are those of `EmbeddingModel.encode`
    (`prompt_name`, `prompt`, `batch_size`, `precision`, `normalize_embeddings`, `truncate_dim`, `ranges`) and, for a
    name or a folder, of `EmbeddingModel`.

    Raises the errors of these two, and InputError for int8 and uint8 without ranges, since every batch would have its
    own.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | EmbeddingModel,
        *,
        text: str = TEXT,
        output: str = EMBEDDING,
        threads: int | None = None,
        **options: Any,
    ) -> None:
        self.text, self.output = text, output
        self._options = {name: options.pop(name) for name in _ENCODE_OPTIONS if name in options}
        if self._options.get("precision") in ("int8", "uint8") and self._options.get("ranges") is None:
            raise InputError(
                f"expected ranges with {self._options['precision']}, which put all batches on one scale, got none: "
                "take those that gte-np embed leaves beside its output."
            )
        self.model = _load(model, assigned_processors() if threads is None else threads, options)
        self.model.encode([], **self._options)  # checks the options

    def __call__(self, batch: Any) -> Any:
        """A batch with the column of vectors, (B, D), added: of the same kind as the batch that is given.

        Raises InputError for a batch without the column of texts, and TypeError for what is no batch and for values
        that are no texts.
        """
        if isinstance(batch, Mapping):
            self._check_column(list(batch))
            return {**batch, self.output: self._encode(np.asarray(batch[self.text], object).tolist())}
        if type(batch).__module__.split(".")[0] == "pyarrow" and hasattr(batch, "schema"):
            return self._add_to_arrow(batch)
        raise TypeError(
            f"expected a dict of arrays, or a Table or RecordBatch of pyarrow, got {type(batch).__name__}: "
            "batch_format='numpy' or 'pyarrow' gives these."
        )

    def _add_to_arrow(self, batch: Any) -> Any:
        pa = arrow("a batch of pyarrow")
        self._check_column(batch.schema.names)
        columns = {name: batch.column(name) for name in batch.schema.names if name != self.output}
        columns[self.output] = arrow_vectors(self._encode(batch.column(self.text).to_pylist()))
        fields = [batch.schema.field(name) for name in list(columns)[:-1]]
        schema = pa.schema([*fields, (self.output, columns[self.output].type)], batch.schema.metadata)
        return type(batch).from_arrays(list(columns.values()), schema=schema)

    def _check_column(self, names: list[str]) -> None:
        if self.text not in names:
            raise InputError(
                f"expected a column {self.text!r} of texts, got {', '.join(map(repr, names)) or 'none'}."
            )

    def _encode(self, texts: list[Any]) -> Any:
        return self.model.encode(texts, show_progress_bar=False, **self._options)


def _load(
    model: str | os.PathLike[str] | EmbeddingModel, threads: int | None, options: dict[str, Any]
) -> EmbeddingModel:
    if not isinstance(model, EmbeddingModel):
        return EmbeddingModel(model, threads=threads, **options)
    if options:
        raise TypeError(f"expected no options of a model that is loaded, got {', '.join(options)}.")
    return model if threads is None else model.with_threads(threads)


def assigned_processors() -> int | None:
    """How many processors Ray gave to this process, at least 1; None if this is no worker of Ray."""
    ray = sys.modules.get("ray")  # a worker has imported it
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return None
    return max(1, int(context.get_assigned_resources().get("CPU", 0)))
