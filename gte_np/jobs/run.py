"""One run of a job on one machine: what is missing in its workspace is computed, in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gte_np.encoder_interface import FloatArray
from gte_np.errors import GteError, InputError
from gte_np.jobs.input_files import Numbered
from gte_np.jobs.inputs import STANDARD_INPUT, Chunk, Input
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
        texts = f"{self.rows} text{'s' if self.rows != 1 else ''}"
        done = self.rows - self.already
        if self.rows and not done:
            return f"{texts}, all of them done before; {self.seconds:.1f} s"
        before = f" ({self.already} of them done before)" if self.already else ""
        counts = f"{self.repeated} repeated, {self.cut} cut, {self.skipped} skipped"
        speed = f"{done / self.seconds:.0f} texts/s, {self.tokens / self.seconds:.0f} tokens/s"
        return f"{texts}{before}: {counts}; {self.seconds:.1f} s, {speed}"

    def plus(self, other: Summary) -> Summary:
        """What two runs did together."""
        return Summary(*(first + second for first, second in zip(self, other, strict=True)))  # type: ignore[arg-type]


NOTHING_DONE = Summary(0, 0, 0, 0, 0, 0, 0.0)
Report = Callable[[Progress], object]


def run_job(
    job: Job, place: Place, *, force: bool = False, report: Report | None = None, work: Work | None = None
) -> Summary:
    """Do a job, or what is missing of it, and make its output.

    With `force`, an output that is there is replaced. `report` is called for each shard. `work` is what computes the
    shards: by default `compute_all`, in this process.

    Raises InputError for an input that cannot be read or has changed, for an output of other settings, and if
    another process is at work on it; OSError for what the system cannot do. In any case, the same call goes on later
    where this one has stopped.
    """
    begin = time.monotonic()
    doing = _Doing(work or compute_all, report)
    try:
        counts = _run(job, place, force, doing)
    except ChangedInputsError:
        if not force or any(source.name == STANDARD_INPUT for source in job.inputs):
            raise
        discard(place)
        counts = _run(job, place, force, doing)
    return counts._replace(seconds=time.monotonic() - begin)


class _Doing(NamedTuple):
    """How the shards are computed, and what is told of it."""

    work: Work
    report: Report | None


def _run(job: Job, place: Place, force: bool, doing: _Doing) -> Summary:
    settings = job.settings(place)
    with opened_workspace(place, settings, force) as workspace:
        if workspace is None:
            manifest = read_manifest(place)
            check_unchanged(job, manifest["shards"])
            return NOTHING_DONE._replace(rows=manifest["rows"], already=manifest["rows"])
        counts = doing.work(job, WorkspaceSink(job, workspace), doing.report)
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
    chunks = 0
    for number, _, chunk in job.chunks():
        if number not in finished:
            raise ChangedInputsError(chunk.source.label, "more rows")
        check_same(finished[number], chunk)
        chunks = number + 1
    check_count(finished, chunks)


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

    numbered: Numbered
    rows: Rows
    lookup: Lookup


class Sink(Protocol):
    """Where shards go.

    `shards` are there already. `kinds` are those of the columns, and `ranges` those of int8 and uint8, once the first
    shard has told them.
    """

    shards: dict[int, Shard]
    kinds: Mapping[str, str] | None
    ranges: NDArray[np.float32] | None

    def keep_ranges(self, ranges: NDArray[np.float32]) -> None:
        """Keep the ranges beside the output."""

    def write(self, content: ShardContent) -> None:
        """Write a shard."""


class WorkspaceSink:
    """Shards go to a workspace: see Sink."""

    def __init__(self, job: Job, workspace: Workspace) -> None:
        self._job, self._workspace = job, workspace
        self.place, self.shards = workspace.place, workspace.shards
        self.kinds: Mapping[str, str] | None = self.shards[0].kinds if 0 in self.shards else None
        self.ranges = workspace.read_ranges()

    def keep_ranges(self, ranges: NDArray[np.float32]) -> None:
        """Keep the ranges beside the output."""
        self._workspace.save_ranges(ranges)

    def write(self, content: ShardContent) -> None:
        """Write a shard."""
        self.finish(write_shard(self._job, self.place, content, self.ranges))

    def finish(self, shard: Shard) -> None:
        """Take a shard whose files are written."""
        self._workspace.finish_shard(shard)


Work = Callable[[Job, WorkspaceSink, "Report | None"], Summary]


def compute_all(job: Job, sink: Sink, report: Report | None = None) -> Summary:
    """Compute the shards that are missing in a sink, in this process.

    What comes before an error of an input is written before the error is raised.
    """
    with vector_file(job.options.cache, job.vector_settings(), job.dimension) as file:
        run = JobRun(job, sink, RecentVectors(job.dimension, file), report)
        counts = run(job.chunks())
    check_count(sink.shards, run.chunks)
    return counts


class JobRun:
    """Computes shards that are missing in a sink. `report` is told how far it is."""

    def __init__(self, job: Job, sink: Sink, memory: RecentVectors, report: Report | None = None) -> None:
        self._job, self._sink, self._memory, self._report = job, sink, memory, report
        self._kinds = sink.kinds
        self._pending: deque[_Pending] = deque()
        self._computed: dict[str, Known] = {}  # for the chunk before
        self._failure: GteError | OSError | None = None
        self._begins: dict[Input, int] = {}  # of each input, in the bytes of all
        self._size = 0
        for source in job.inputs if report else ():
            self._begins.setdefault(source, self._size)
            self._size += source.size
        self.chunks = 0  # that were read
        self._counts = NOTHING_DONE

    def __call__(self, chunks: Iterable[Numbered]) -> Summary:
        """Do the work. What comes before an error of an input is written before the error is raised."""
        for window in self._job.encode_windows(self._windows(chunks)):
            self._write(window)
        if self._failure is not None:
            raise self._failure
        return self._counts

    def _windows(self, chunks: Iterable[Numbered]) -> Iterator[list[str]]:
        """Of each chunk that is not finished, the texts whose vectors are not known."""
        try:
            for numbered in chunks:
                finished = self._sink.shards.get(numbered.number)
                if finished is None:
                    yield self._begin(numbered)
                else:
                    check_same(finished, numbered.chunk)
                    self._counts = self._counts.plus(already_done(finished))
                self.chunks += 1
        except (GteError, OSError) as error:
            self._failure = error

    def _begin(self, numbered: Numbered) -> list[str]:
        rows = self._job.read(numbered.chunk, numbered.first_row, self._kinds)
        self._kinds = rows.kinds
        computing = self._pending[-1].lookup.missing if self._pending else ()
        lookup = Lookup(rows.texts, self._memory.get(rows.texts), computing)
        self._pending.append(_Pending(numbered, rows, lookup))
        return lookup.missing

    def _write(self, window: Processed[FloatArray]) -> None:
        pending = self._pending.popleft()
        computed = dict(zip(pending.lookup.missing, map(Known, window.results, window.was_cut.tolist()), strict=True))
        results = pending.lookup.results(self._computed | computed)
        self._memory.put(computed)
        self._computed = computed
        self._sink.write(self._content(pending, results))
        done = NOTHING_DONE._replace(
            rows=len(results),
            repeated=pending.lookup.repeated(),
            cut=sum(known.was_cut for known in results),
            skipped=len(pending.rows.problems),
            tokens=window.tokens,
        )
        self._counts = self._counts.plus(done)
        if self._report:
            position = self._position(pending.numbered.chunk)
            self._report(Progress(position, self._size, self._counts.rows, self._counts.tokens))

    def _content(self, pending: _Pending, results: list[Known]) -> ShardContent:
        number, first_row, chunk = pending.numbered
        vectors = stack([known.vector for known in results], self._job.dimension)
        if number == 0 and (ranges := self._job.ranges_of(vectors)) is not None:
            self._sink.ranges = ranges
            self._sink.keep_ranges(ranges)
        was_cut = sum(known.was_cut for known in results)
        return ShardContent(number, chunk, first_row, pending.rows, vectors, was_cut)

    def _position(self, chunk: Chunk) -> int:
        """Bytes of all inputs that were read, up to the end of a chunk."""
        return self._begins[chunk.source] + chunk.position


def already_done(shard: Shard) -> Summary:
    """What a run did that has found a shard finished."""
    rows = shard.rows - shard.skipped
    return NOTHING_DONE._replace(rows=rows, already=rows)
