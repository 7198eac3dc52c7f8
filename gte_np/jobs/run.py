"""One run of a job on one machine: what is missing in its workspace is computed, in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gte_np.encoder_interface import FloatArray
from gte_np.errors import GteError, InputError
from gte_np.jobs.input_files import all_chunks
from gte_np.jobs.inputs import STANDARD_INPUT, Chunk
from gte_np.jobs.job import Job, ShardContent, stack, write_shard
from gte_np.jobs.rows import Rows
from gte_np.jobs.vector_cache import Known, Lookup, RecentVectors, vector_file
from gte_np.jobs.workspace import Place, Shard, Workspace, discard, opened_workspace, read_manifest
from gte_np.pipeline import Processed


class Progress(NamedTuple):
    """How far a run is: bytes that were read of the inputs, and of how many (0 if nobody knows), rows and tokens."""

    read: int
    size: int
    rows: int
    tokens: int


class Summary(NamedTuple):
    """What a run did: rows of the output, those that were there already, and of the others how many were what."""

    rows: int
    already: int
    repeated: int
    cut: int
    skipped: int
    tokens: int
    seconds: float

    def __str__(self) -> str:
        done = self.rows - self.already
        before = f" ({self.already} of them done before)" if self.already else ""
        counts = f"{self.repeated} repeated, {self.cut} cut, {self.skipped} skipped"
        speed = f"{done / self.seconds:.0f} texts/s, {self.tokens / self.seconds:.0f} tokens/s"
        return f"{self.rows} texts{before}: {counts}; {self.seconds:.1f} s, {speed}"


def run_job(
    job: Job, place: Place, *, force: bool = False, report: Callable[[Progress], object] | None = None
) -> Summary:
    """Do a job, or what is missing of it, and make its output.

    With `force`, an output that is there is replaced. `report` is called for each shard.

    Raises InputError for an input that cannot be read or has changed, for an output of other settings, and if
    another process is at work on it; OSError for what the system cannot do. In any case, the same call goes on later
    where this one has stopped.
    """
    begin = time.monotonic()
    try:
        counts = _run(job, place, force, report or _no_report)
    except ChangedInputsError:
        if not force or any(source.name == STANDARD_INPUT for source in job.inputs):
            raise
        discard(place)
        counts = _run(job, place, force, report or _no_report)
    return counts._replace(seconds=time.monotonic() - begin)


def _run(job: Job, place: Place, force: bool, report: Callable[[Progress], object]) -> Summary:
    settings = job.settings(place)
    with opened_workspace(place, settings, force) as workspace:
        if workspace is None:
            manifest = read_manifest(place)
            check_unchanged(job, manifest["shards"])
            return Summary(manifest["rows"], manifest["rows"], 0, 0, 0, 0, 0.0)
        counts = JobRun(job, WorkspaceSink(job, workspace), report)()
        workspace.complete(settings, job.schema)
        return counts


class ChangedInputsError(InputError):
    """The inputs are not those that a job was begun with."""

    def __init__(self, source: str, came: str) -> None:
        super().__init__(
            f"expected the inputs to be as they were when the job began, got {came} in {source}. Give another "
            "output, or --force to begin anew."
        )


def check_unchanged(job: Job, shards: list[Shard]) -> None:
    """Raise InputError if the inputs are not what shards were made of."""
    finished = {shard.number: shard for shard in shards}
    number = -1
    for number, chunk in enumerate(all_chunks(job.inputs, job.options.rows_per_shard, job.fields)):
        if number not in finished:
            raise ChangedInputsError(chunk.source.label, "more rows")
        check_same(finished[number], chunk)
    check_count(finished, number + 1)


def check_same(shard: Shard, chunk: Chunk) -> None:
    """Raise InputError if a chunk is not what a shard was made of."""
    if shard.source != chunk.source.name or shard.input_sha256 != chunk.digest:
        raise ChangedInputsError(chunk.source.label, f"other rows in shard {shard.number}")


def check_count(finished: Mapping[int, Shard], chunks: int) -> None:
    """Raise InputError if there are shards of chunks that are no longer there."""
    for number, shard in finished.items():
        if number >= chunks:
            raise ChangedInputsError(shard.source, "fewer rows")


class _Pending(NamedTuple):
    """A chunk whose vectors are being computed."""

    number: int
    chunk: Chunk
    first_row: int
    rows: Rows
    lookup: Lookup


class Sink(Protocol):
    """Where shards go: `shards` are there already; `ranges` are those of int8 and uint8, once they are known."""

    shards: dict[int, Shard]
    ranges: NDArray[np.float32] | None

    def keep_ranges(self, ranges: NDArray[np.float32]) -> None:
        """Keep the ranges beside the output."""

    def write(self, content: ShardContent) -> None:
        """Write a shard."""


class WorkspaceSink:
    """Shards go to a workspace: see Sink."""

    def __init__(self, job: Job, workspace: Workspace) -> None:
        self._job, self._workspace = job, workspace
        self.shards = workspace.shards
        self.ranges = workspace.read_ranges()

    def keep_ranges(self, ranges: NDArray[np.float32]) -> None:
        """Keep the ranges beside the output."""
        self._workspace.save_ranges(ranges)

    def write(self, content: ShardContent) -> None:
        """Write a shard."""
        self._workspace.finish_shard(write_shard(self._job, self._workspace.place, content, self.ranges))


def _no_report(progress: Progress) -> None:
    pass


class JobRun:
    """Computes the shards that are missing in a sink. `report` is told how far it is."""

    def __init__(self, job: Job, sink: Sink, report: Callable[[Progress], object] = _no_report) -> None:
        self._job, self._sink, self._report = job, sink, report
        first = sink.shards.get(0)
        self._kinds: Mapping[str, str] | None = first.kinds if first else None
        self._pending: deque[_Pending] = deque()
        self._computed: dict[str, Known] = {}  # for the chunk before
        self._failure: GteError | OSError | None = None
        self._size, self._size_before = sum(source.size for source in job.inputs), 0
        self._chunks = self._rows = 0  # that were read
        self._counts = Summary(0, 0, 0, 0, 0, 0, 0.0)

    def __call__(self) -> Summary:
        """Do the work. What comes before an error of an input is written before the error is raised."""
        with vector_file(self._job.options.cache, self._job.vector_settings(), self._job.dimension) as file:
            self._memory = RecentVectors(self._job.dimension, file)
            for window in self._job.encode_windows(self._windows()):
                self._write(window)
        if self._failure is not None:
            raise self._failure
        check_count(self._sink.shards, self._chunks)
        return self._counts

    def _windows(self) -> Iterator[list[str]]:
        """Of each chunk that is not finished, the texts whose vectors are not known."""
        try:
            for chunk in all_chunks(self._job.inputs, self._job.options.rows_per_shard, self._job.fields):
                finished = self._sink.shards.get(self._chunks)
                if finished is None:
                    yield self._begin(chunk)
                else:
                    check_same(finished, chunk)
                    self._count(rows=finished.rows - finished.skipped, already=finished.rows - finished.skipped)
                self._chunks, self._rows = self._chunks + 1, self._rows + len(chunk.records)
        except (GteError, OSError) as error:
            self._failure = error

    def _begin(self, chunk: Chunk) -> list[str]:
        rows = self._job.read(chunk, self._rows, self._kinds)
        self._kinds = rows.kinds
        computing = self._pending[-1].lookup.missing if self._pending else ()
        lookup = Lookup(rows.texts, self._memory.get(rows.texts), computing)
        self._pending.append(_Pending(self._chunks, chunk, self._rows, rows, lookup))
        return lookup.missing

    def _write(self, window: Processed[FloatArray]) -> None:
        pending = self._pending.popleft()
        computed = dict(zip(pending.lookup.missing, map(Known, window.results, window.was_cut.tolist()), strict=True))
        results = pending.lookup.results(self._computed | computed)
        self._memory.put(computed)
        self._computed = computed
        self._sink.write(self._content(pending, results))
        self._count(
            rows=len(results),
            repeated=pending.lookup.repeated(),
            cut=sum(known.was_cut for known in results),
            skipped=len(pending.rows.problems),
            tokens=window.tokens,
        )
        self._report(Progress(self._position(pending.chunk), self._size, self._counts.rows, self._counts.tokens))

    def _content(self, pending: _Pending, results: list[Known]) -> ShardContent:
        vectors = stack([known.vector for known in results], self._job.dimension)
        if pending.number == 0 and (ranges := self._job.ranges_of(vectors)) is not None:
            self._sink.ranges = ranges
            self._sink.keep_ranges(ranges)
        number, chunk, first_row, rows, _ = pending
        return ShardContent(number, chunk, first_row, rows, vectors, sum(known.was_cut for known in results))

    def _position(self, chunk: Chunk) -> int:
        """Bytes of all inputs that were read, up to the end of a chunk."""
        before = self._job.inputs[: self._job.inputs.index(chunk.source)]
        return sum(source.size for source in before) + chunk.position

    def _count(self, **counts: int) -> None:
        self._counts = self._counts._replace(**{name: getattr(self._counts, name) + n for name, n in counts.items()})
