"""A job on many processes, perhaps of several machines: one plans and keeps the journal, others compute shards.

The one that plans divides the inputs and forgets the records. A process that computes a shard reads its records
again, and writes its files into the folder of the job, which all machines must have at the same path. What carries
orders to these processes and shards back is not known here: see `gte_np.ray`.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.errors import GteError, InputError
from gte_np.jobs.input_files import Numbered, reread
from gte_np.jobs.inputs import STANDARD_INPUT
from gte_np.jobs.job import Job, ShardContent, write_shard
from gte_np.jobs.run import (
    NOTHING_DONE,
    ChangedInputsError,
    JobRun,
    Progress,
    Report,
    Summary,
    WorkspaceSink,
    already_done,
    check_count,
    check_same,
)
from gte_np.jobs.vector_cache import RecentVectors
from gte_np.jobs.workspace import Place, Shard, clean_up, differences

_MOST_DEATHS = 30  # of processes that computed the same shard


class Planned(NamedTuple):
    """A shard that is to be computed: the number of its input, where its records are there, and their digest.

    `size` is how many bytes of the input it is, about.
    """

    number: int
    first_row: int
    source: int
    place: dict[str, Any]
    digest: str
    size: int


class Plan(NamedTuple):
    """What is to be done, the kinds of columns as the first rows tell them, and what is done already."""

    shards: list[Planned]
    kinds: Mapping[str, str] | None
    already: Summary


class Order(NamedTuple):
    """What all workers of a job are told: the job, whose pickle has no weights, and what its shards have in common.

    `folder` is the working folder, from which names of inputs and of the output may go out.
    """

    job: Job
    place: Place
    settings: Mapping[str, Any]
    kinds: Mapping[str, str] | None
    ranges: NDArray[np.float32] | None
    folder: str


class Done(NamedTuple):
    """A shard whose files are written, what was done for it, and how many bytes of the inputs it was."""

    shard: Shard
    counts: Summary
    size: int


Compute = Callable[[Order, list[Planned]], Iterable[Done]]


def check_spread(inputs: Sequence[str], cache: Path | None) -> None:
    """Raise InputError for a job that only one process can do: of standard input, or with a cache of vectors."""
    if STANDARD_INPUT in inputs or cache is not None:
        came = "standard input" if cache is None else f"the cache {os.fspath(cache)!r}"
        raise InputError(
            f"expected files as inputs, and no cache, for a job of many processes, got {came}: they cannot share it."
        )


def spread(job: Job, sink: WorkspaceSink, report: Report | None, compute: Compute) -> Summary:
    """Have the shards that are missing in a sink computed by others, in any order, and take them as they come.

    A first shard that leaves ranges for the others is computed here, before them.
    """
    check_spread(job.names, job.options.cache)
    shards, kinds, counts = make_plan(job, sink.shards)
    if shards and shards[0].number == 0 and job.has_ranges:
        counts = counts.plus(JobRun(job, sink, RecentVectors(job.dimension, None))([found_again(job, shards.pop(0))]))
    order = Order(job, sink.place, job.settings(sink.place), kinds, sink.ranges, os.fspath(Path.cwd()))
    size = sum(source.size for source in job.inputs)
    read = size - sum(planned.size for planned in shards)
    for done in compute(order, shards) if shards else ():
        sink.finish(done.shard)
        counts, read = counts.plus(done.counts), read + done.size
        if report:
            report(Progress(read, size, counts.rows, counts.tokens))
    clean_up(sink.place)
    return counts


def make_plan(job: Job, finished: Mapping[int, Shard]) -> Plan:
    """Read the inputs, and plan the shards that are not finished.

    Raises InputError if finished ones were made of other inputs, and for a first record that cannot be read.
    """
    plan = Plan([], finished[0].kinds if 0 in finished else None, NOTHING_DONE)
    chunks = position = 0
    source = None
    for numbered in job.chunks():
        chunk = numbered.chunk
        position = position if chunk.source is source else 0
        size, position, source = chunk.position - position, chunk.position, chunk.source
        chunks += 1
        if numbered.number in finished:
            check_same(finished[numbered.number], chunk)
            plan = plan._replace(already=plan.already.plus(already_done(finished[numbered.number])))
            continue
        if plan.kinds is None:
            plan = plan._replace(kinds=job.read(chunk, 0, None).kinds)
        plan.shards.append(_planned(job, numbered, size))
    check_count(finished, chunks)
    return plan


def _planned(job: Job, numbered: Numbered, size: int) -> Planned:
    number, first_row, chunk = numbered
    return Planned(number, first_row, job.inputs.index(chunk.source), chunk.place, chunk.digest, size)


def found_again(job: Job, planned: Planned) -> Numbered:
    """The records of a shard. Raises InputError if they are not those of the plan."""
    source = job.inputs[planned.source]
    chunk = reread(source, planned.place, job.options.rows_per_shard, job.fields)
    if chunk.digest != planned.digest:
        raise ChangedInputsError(source.label, f"other rows in shard {planned.number}")
    return Numbered(planned.number, planned.first_row, chunk)


class ShardWorker:
    """Computes shards of a job. It is made once in a process, and called with batches of what is to be done.

    An error of the inputs, of the model or of the system is told in place of a shard, and need not be tried again:
    other errors are mistakes in this package.
    """

    def __init__(self, order: Order) -> None:
        self._order, self._job = order, order.job
        self._memory = RecentVectors(order.job.dimension, None)
        self._failure: GteError | OSError | None = None
        try:
            _prepare(order)
        except (GteError, OSError) as error:  # an actor that cannot be made would be made again and again
            self._failure = error

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute shards: the column "planned" to "outcome", (B,) JSON each; see `done_of`."""
        outcomes = [self._outcome(planned_of(content)) for content in batch["planned"]]
        return {"outcome": np.array([json.dumps(outcome) for outcome in outcomes], object)}

    def _outcome(self, planned: Planned) -> dict[str, Any]:
        try:
            done = self.compute(planned)
        except (GteError, OSError) as error:
            return {"error": str(error)}
        return {"shard": done.shard._asdict(), "counts": done.counts._asdict(), "size": done.size}

    def compute(self, planned: Planned) -> Done:
        """Compute a shard. Raises InputError if its records are not those of the plan, and what else cannot be."""
        if self._failure is not None:
            raise self._failure
        sink = _WorkerSink(self._job, self._order)
        with _counted(self._order.place, planned.number):
            counts = JobRun(self._job, sink, self._memory)([found_again(self._job, planned)])
        return Done(sink.written[0], counts, planned.size)


def _prepare(order: Order) -> None:
    """Go to the working folder. Raises InputError if vectors would not be those of the process that plans."""
    if Path(order.folder).is_dir():
        os.chdir(order.folder)
    changes = differences(order.settings, order.job.settings(order.place))
    if changes:
        raise InputError(
            f"expected the settings of the job on the machine {platform.node()!r}, got others: {changes}. Give all "
            "machines the same version of gte_np, and processors of one kind."
        )


@contextmanager
def _counted(place: Place, number: int) -> Iterator[None]:
    """Count the attempts at a shard in a file that is removed at the end of the block, unless the process dies in it.

    Raises InputError if so many processes have died that the shard itself must be what ends them.
    """
    path = attempts_file(place, number)
    with path.open("ab") as file:
        file.write(b".")
    died = path.stat().st_size - 1
    if died >= _MOST_DEATHS:
        raise InputError(
            f"expected shard {number} to be computed, got {died} processes, one after the other, that ended while "
            "they were at it. They may have had too little memory: try fewer, with more threads each."
        )
    yield
    path.unlink(missing_ok=True)


def attempts_file(place: Place, number: int) -> Path:
    """The file that counts attempts at a shard: one of those that `clean_up` removes."""
    return place.folder / f".attempts-{number:06d}.part"


class _WorkerSink:
    """Where the shard of a worker goes: see `gte_np.jobs.run.Sink`."""

    def __init__(self, job: Job, order: Order) -> None:
        self._job, self._order = job, order
        self.shards: dict[int, Shard] = {}
        self.kinds, self.ranges = order.kinds, order.ranges
        self.written: list[Shard] = []

    def keep_ranges(self, ranges: NDArray[np.float32]) -> None:
        """A shard that leaves ranges is computed where the job is planned."""
        raise AssertionError("the first shard of int8 or uint8 is no worker's")

    def write(self, content: ShardContent) -> None:
        """Write the files of a shard."""
        self.written.append(write_shard(self._job, self._order.place, content, self.ranges))


def planned_of(content: str) -> Planned:
    """A planned shard from what `json_of` made of it."""
    return Planned(**json.loads(content))


def json_of(planned: Planned) -> str:
    """A planned shard as JSON."""
    return json.dumps(planned._asdict())


def done_of(content: str) -> Done:
    """A shard from what a worker tells. Raises InputError with the message of what the worker could not do."""
    outcome = json.loads(content)
    if "error" in outcome:
        raise InputError(outcome["error"])
    return Done(Shard(**outcome["shard"]), Summary(**outcome["counts"]), outcome["size"])
