"""Whether a finished output is what its model makes of its texts, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.embedding_model import EmbeddingModel
from gte_np.embedding_quantization import quantize_embeddings
from gte_np.errors import InputError
from gte_np.jobs.results import Results
from gte_np.jobs.rows import TEXT
from gte_np.pipeline import windows_of


class _Stored(NamedTuple):
    """A row of an output: its number, its text and its vector."""

    number: int
    text: str
    vector: NDArray[Any]


def verify(results: Results, model: EmbeddingModel, sample: int | None = None) -> int:
    """Check the files of an output, and compute the vectors of its texts again, or of a random sample of them.

    Returns how many rows were computed again. Raises InputError if a file has changed, if the model is not the one of
    the output, for an output without texts, and for the first row whose vector has other bits.
    """
    results.check_files()
    settings = results.settings
    if not settings["with_text"]:
        raise InputError("expected an output with texts, to compute their vectors again, got one without.")
    results.check_model(model, bit_for_bit=True)
    chosen = None if sample is None else set(Random().sample(range(results.rows), min(sample, results.rows)))
    stored: list[_Stored] = []  # of the windows that are being computed
    checked = 0

    def texts() -> Iterator[str]:
        for row in _rows(results):
            if chosen is None or row.number in chosen:
                stored.append(row)
                yield row.text

    model.max_seq_length = settings["max_seq_length"]
    if settings["normalize_embeddings"] is False:
        model = model.without_normalize()
    for window in model.encode_windows(
        windows_of(texts()),
        prompt=settings["prompt"],
        normalize_embeddings=settings["normalize_embeddings"],
        truncate_dim=settings["truncate_dim"],
    ):
        vectors = quantize_embeddings(np.stack(window.results), settings["precision"], results.ranges)
        for row, vector in zip(stored[: len(vectors)], vectors, strict=True):
            if not np.array_equal(np.asarray(row.vector, vector.dtype), vector):
                raise InputError(f"expected row {row.number} to have the vector of its text, got other bits.")
        del stored[: len(vectors)]
        checked += len(vectors)
    return checked


def _rows(results: Results) -> Iterator[_Stored]:
    vectors = (vector for block in results.vectors() for vector in block)
    for number, (row, vector) in enumerate(zip(results.columns(), vectors, strict=True)):
        yield _Stored(number, row[TEXT], vector)
