"""A job whose input is a dataset of Ray."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gte_np.embedding_model import EmbeddingModel
from gte_np.errors import InputError
from gte_np.files import whole_file
from gte_np.jobs import Job, JobOptions, Place, Summary
from gte_np.jobs.optional import arrow
from gte_np.ray.cluster import Cluster, check_cluster, run_on_ray

_COPY = ".dataset"  # what is put behind the name of an output


def embed_dataset(
    dataset: Any,
    model: EmbeddingModel,
    output: str | os.PathLike[str],
    options: JobOptions | None = None,
    *,
    cluster: Cluster | None = None,
    force: bool = False,
) -> Summary:
    """Compute the vectors of a dataset of Ray into files, as `gte-np embed --ray` does for files of texts.

    `output` is a file that ends in .npy, .parquet, .arrow, .jsonl or .csv, or a folder, for .npy files. A call that
    was interrupted goes on when it is repeated with a dataset of the same rows in the same order; if a dataset gives
    others, that is one error. `gte_np.jobs.Results` reads the output.

    The columns that the job reads are first copied, in order, to Parquet files beside the output, which are removed
    at the end: shards must be of the same rows whenever, and wherever, they are computed.

    For vectors that stay in a dataset, `dataset.map_batches(Embedder, ...)` needs no files.

    Raises the errors of `run_on_ray`, and InputError for a dataset without rows or without a column that is read.
    """
    cluster, options = cluster or Cluster(), options or JobOptions()
    check_cluster(cluster)
    place = Place.find(os.fspath(output), None)
    with _copied(dataset, place, options) as folder:
        return run_on_ray(Job(model, [os.fspath(folder)], options), place, cluster, force=force)


@contextmanager
def _copied(dataset: Any, place: Place, options: JobOptions) -> Iterator[Path]:
    """A folder with the columns that are read, a Parquet file for each shard."""
    columns, wanted = dataset.columns() or [], list(dict.fromkeys(options.fields.wanted))
    if not set(wanted) <= set(columns):
        came = ", ".join(map(repr, columns)) or "none"
        raise InputError(f"expected a dataset with the columns {', '.join(map(repr, wanted))}, got {came}.")
    folder = place.path.with_name(place.path.name + _COPY)
    shutil.rmtree(folder, ignore_errors=True)  # of a call that was killed
    folder.mkdir()
    try:
        _copy(dataset.select_columns(wanted), folder, options.rows_per_shard)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(dataset: Any, folder: Path, rows: int) -> None:
    parquet = arrow("a dataset").parquet
    dataset.context.execution_options.preserve_order = True
    for number, table in enumerate(dataset.iter_batches(batch_size=rows, batch_format="pyarrow")):
        with whole_file(folder / f"rows-{number:09d}.parquet") as path:
            parquet.write_table(table, path)
