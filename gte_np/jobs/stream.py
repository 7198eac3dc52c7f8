"""A job whose output is standard output or a device: written as it is computed, and not resumable."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import IO

import numpy as np
from numpy.typing import NDArray

from gte_np.errors import InputError
from gte_np.jobs.job import Job, ShardContent
from gte_np.jobs.parts import OUTPUT_FORMATS, TextFormat
from gte_np.jobs.run import Summary, compute_all
from gte_np.jobs.workspace import Shard

logger = logging.getLogger("gte_np")


def stream_format(name: str) -> TextFormat:
    """A format that is written from beginning to end. Raises InputError for others."""
    found = OUTPUT_FORMATS.get(name)
    if not isinstance(found, TextFormat):
        names = [name for name, output in OUTPUT_FORMATS.items() if isinstance(output, TextFormat)]
        raise InputError(
            f"expected {' or '.join(names)} for standard output, got {name!r:.80}: give -o FILE for others."
        )
    return found


class _Stream:
    """Where the rows of a job go: see `gte_np.jobs.run.Sink`."""

    def __init__(self, job: Job, file: IO[bytes], file_format: TextFormat) -> None:
        self._job, self._file, self._format = job, file, file_format
        self.shards: dict[int, Shard] = {}
        self.kinds: Mapping[str, str] | None = None
        self.ranges = job.options.ranges

    def keep_ranges(self, ranges: NDArray[np.float32]) -> None:
        """Nothing is kept."""

    def write(self, content: ShardContent) -> None:
        """Write rows, and tell of those that were skipped."""
        schema = self._job.schema(content.rows.kinds)
        if content.number == 0:
            self._file.write(self._format.head(schema))
        self._format.write_rows(self._file, self._job.part(content, self.ranges))
        self._file.flush()
        for problem in content.rows.problems:
            logger.warning("%s was skipped: %s", problem.place, problem.reason)


def stream_job(job: Job, file: IO[bytes], file_format: TextFormat) -> Summary:
    """Do a job, and write its rows to a file that is open.

    Raises InputError for int8 and uint8 without ranges, which would be lost.
    """
    if job.options.precision in ("int8", "uint8") and job.options.ranges is None:
        raise InputError(
            f"expected --ranges FILE with {job.options.precision} on standard output, or -o FILE, beside which the "
            "ranges of the vectors are kept."
        )
    summary = compute_all(job, _Stream(job, file, file_format))
    job.model.warn_of_cuts(summary.cut, summary.rows)
    return summary
