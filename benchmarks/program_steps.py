"""The steps of a model's program: into how many tasks each is divided, and how long one thread takes for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import peaks
from benchmarks.compare import FOLDERS
from benchmarks.models import SHAPES, ensure_checkpoint
from gte_np import TokenBatch
from gte_np.architectures.config import read_config
from gte_np.architectures.weights import read_weights, stored_precision
from gte_np.encoder_interface import EncoderInput
from gte_np.formats import choose_format
from gte_np.kernels.operations.program import ROWS_OF_A_PRODUCT, ROWS_OF_A_TASK
from gte_np.kernels.operations.records import STEP, Operation
from gte_np.kernels.runtime.chunks import Chunk
from gte_np.kernels.runtime.kernel_encoder import KernelEncoder, _Job
from gte_np.kernels.targets import Target
from gte_np.kernels.targets.host import runnable_targets
from gte_np.pooling import rows_read

REPEATS = 5
SECONDS = 1.0


class Load(NamedTuple):
    """What a team works on at once."""

    texts: int
    length: int  # of each text, in tokens
    wanted: int  # rows of the last layer

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return self.texts * self.length


class Step(NamedTuple):
    """A step of a program, and the seconds that one thread takes for a text of it."""

    operation: Operation
    is_wanted: bool
    panels: int
    heads: int
    weight_bytes: int
    seconds: float = 0.0

    def tasks(self, load: Load, threads: int) -> int:
        """Into how many tasks a team of so many threads divides it."""
        rows = load.wanted if self.is_wanted else load.tokens
        if self.operation == Operation.LINEAR:
            return self.panels * max(1, rows // ROWS_OF_A_PRODUCT)
        if self.operation == Operation.ATTENTION:
            return load.texts * self.heads
        return min(rows, -(-rows // (ROWS_OF_A_TASK * threads)) * threads)


class Subject:
    """A model's encoder for one thread, on dot products: the processors have no matrix unit."""

    def __init__(self, model: str, dtype: str) -> None:
        folder = FOLDERS / model
        ensure_checkpoint(model, folder)
        self.config = read_config(folder)
        weights = read_weights(folder, self.config)
        weight_format = choose_format(dtype, stored_precision(weights))
        self.encoder = KernelEncoder(self.config, weights, weight_format, 1, target_without_unit())
        self.one_token = SHAPES[model][5] == "cls"
        self.multiplied = choose_format(dtype, stored=dtype)
        self.peak = max(peaks.peak(self.multiplied, target_without_unit(), 1)() for _ in range(REPEATS))

    def load(self, texts: int, length: int) -> Load:
        """Of so many texts of a length."""
        return Load(texts, length, texts if self.one_token else texts * length)

    def steps(self, length: int) -> list[Step]:
        """The program, with the fastest of a few seconds of each step for a text of this length."""
        job = self._job(1, length)
        self.encoder._run(job, Chunk(0, 1), 1)  # whose workspace is then the idle one
        times = [self._seconds(job) for _ in range(REPEATS)]
        steps = [self._step(record) for record in self._begin(job).steps]
        return [step._replace(seconds=min(each)) for step, *each in zip(steps, *times, strict=True)]

    def python_seconds(self) -> float:
        """Of a chunk: all that a thread does for it in Python, with the lock that Python threads share."""
        job = self._job(1, 12)
        run, self.encoder._run_program = self.encoder._run_program, lambda *arguments: None
        seconds = min(_seconds_of(lambda: self.encoder._run(job, Chunk(0, 1), 1)) for _ in range(200))
        self.encoder._run_program = run
        return seconds

    def seconds(self, texts: int, length: int, threads: int) -> float:
        """Of the encoder itself, here: the fastest of its calls in a second."""
        encoder, inputs = self.encoder.with_threads(threads), self._job(texts, length).inputs
        times, end = list[float](), time.perf_counter() + SECONDS
        while time.perf_counter() < end or len(times) < 2:
            times.append(_seconds_of(lambda: encoder(inputs)))
        return min(times)

    def _job(self, texts: int, length: int) -> _Job:
        ids = np.random.default_rng(0).integers(0, self.config.vocab_size, (texts, length), dtype=np.int32)
        batch = TokenBatch.from_ids(list(ids))
        rows = rows_read(batch.offsets, ["cls"] if self.one_token else ["mean"])
        return _Job(EncoderInput(batch, self.config, rows), self.encoder.weights, False)

    def _begin(self, job: _Job) -> Any:
        return self.encoder._idle[-1].begin(1, wanted=job.rows is not None, keep_layers=False)

    def _seconds(self, job: _Job) -> list[float]:
        """Of each step, in their order: each is a program of one step."""
        workspace, times = self.encoder._idle[-1], list[float]()
        for number in range(len(self._begin(job).steps)):
            address = self._begin(job).address + number * STEP.itemsize
            workspace.run["steps"] = 1
            arguments = workspace.run_address, address, workspace.batch_address, self.encoder.weights.address, 0
            times.append(_seconds_of(partial(self.encoder._run_program, *arguments)))
        return times

    def _step(self, record: Any) -> Step:
        words = int(record["panels"] * record["depth"]) * self.encoder.weights.sizes.panel
        size = words * self.encoder.weights.matrices.itemsize
        return Step(
            Operation(record["operation"]), bool(record["wanted"]), int(record["panels"]), int(record["heads"]), size
        )


def target_without_unit() -> Target:
    """The best target of this processor that has no matrix unit."""
    return next(target for target in runnable_targets() if target.matrix_unit is None)


def _seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
