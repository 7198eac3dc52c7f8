"""Many more threads than processors: each task is done once, no step begins early, and no bit changes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from gte_np import BertModel, TokenBatch
from gte_np.formats.float_formats import FLOAT32
from gte_np.kernels.language.memory import int64s_at
from gte_np.kernels.language.parallel import Team, _call, parallel_for
from gte_np.kernels.language.team_state import team_state_size
from gte_np.kernels.language.types import Pointer, kernel, panel_pointer
from gte_np.kernels.runtime import chunks
from gte_np.kernels.runtime.threads import ThreadPool
from gte_np.kernels.runtime.workspace import _yield_function
from gte_np.kernels.targets.host import host_target
from tests.checkpoints import small_model
from tests.compiled import INTEGER, compiled, same_bits
from tests.test_threads import call_in_threads

MANY = (64, 128)

# --- a parallel loop ----------------------------------------------------------------------------------------------

STEPS, TASKS = 60, 150
TURNS = 100  # that others have while one task of a step is not done


class Job(NamedTuple):
    """One thread's view of a step: which tasks are done, (STEPS, TASKS), and how often it did each of them.

    `early` counts the tasks that it began before the step before was done.
    """

    weights: Pointer
    step: int
    done: Pointer
    own: Pointer
    early: Pointer
    yield_function: int


@kernel
def longest_task(step: int) -> int:
    """The task of a step that takes much longer than the others: another one in each step."""
    return step * 11 % TASKS


@kernel
def mark(job: Job, task: int) -> None:
    """Look whether the longest task of the step before is done, and do a task."""
    if job.step > 0:
        job.early[0] += 1 - job.done[(job.step - 1) * TASKS + longest_task(job.step - 1)]
    if task == longest_task(job.step):
        for _ in range(TURNS):
            _call(job.yield_function)
    job.own[job.step * TASKS + task] += 1
    job.done[job.step * TASKS + task] = 1


def run_steps(weights: Pointer, rank: int, threads: int, addresses: int, yield_function: int) -> None:
    """One thread's part of all steps. `addresses` is where those of the team's state and of the counts are."""
    places = int64s_at(addresses)
    team = Team(rank, threads, int64s_at(places[0]), yield_function)
    done, own, early = int64s_at(places[1]), int64s_at(places[2]), int64s_at(places[3])
    for step in range(STEPS):
        parallel_for(team, step, TASKS, mark, Job(weights, step, done, own, early, yield_function))


@pytest.mark.parametrize("threads", [1, 2, 3, *MANY])
def test_each_task_is_done_once_and_after_the_step_before(threads: int) -> None:
    run = compiled(run_steps, panel_pointer(FLOAT32, host_target()), INTEGER, INTEGER, INTEGER, INTEGER)
    nothing, done = np.zeros(1, np.float32), np.zeros((STEPS, TASKS), np.int64)
    state = np.zeros(team_state_size(STEPS, threads), np.int64)
    own, early = np.zeros((threads, STEPS, TASKS), np.int64), np.zeros((threads, 8), np.int64)
    places = [
        np.array([array.ctypes.data for array in (state, done, own[rank], early[rank])]) for rank in range(threads)
    ]
    begin = threading.Barrier(threads)

    def work(rank: int) -> None:
        begin.wait(60)
        run(nothing, rank, threads, places[rank].ctypes.data, _yield_function())

    ThreadPool().run(work, threads)
    assert not early.any()
    assert np.array_equal(own.sum(axis=0), np.ones((STEPS, TASKS)))


# --- models -------------------------------------------------------------------------------------------------------

LENGTHS = {
    "a short text": ([3], False),
    "a long text": ([512], False),
    "a batch for a team": ([40, 1, 77, 5] * 9, False),
    "a batch divided by text": ([128] * 128, True),
}


@pytest.fixture(autouse=True)
def _large_teams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give small models the threads that only large ones would have."""
    monkeypatch.setattr(chunks, "STEP_OF_TEAMS", max(MANY))


class Models:
    """Models of one thread and of many, and batches with the hidden states that one thread gives."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.one, *self.many = (
            BertModel.from_folder(folder, backend="numba", dtype=dtype, threads=threads) for threads in (1, *MANY)
        )
        random = np.random.default_rng(0)
        self.batches = {
            name: TokenBatch.from_ids([random.integers(0, 200, length, dtype=np.int32) for length in lengths])
            for name, (lengths, _) in LENGTHS.items()
        }
        self.expected = {name: self.states(self.one, name) for name in LENGTHS}

    def states(self, model: BertModel, name: str) -> Any:
        """The last hidden states of a batch."""
        return model.encode_batch(self.batches[name]).last_hidden_state

    def is_same(self, model: BertModel, name: str) -> bool:
        """Whether a model gives what one thread gives."""
        return same_bits(self.states(model, name), self.expected[name])


@pytest.fixture(scope="module", params=["float32", "int8"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Models in each dtype, whose matrices have more panels than one and whose rows have a rest."""
    sizes: Any = {"hidden_size": 104, "intermediate_size": 200, "max_position_embeddings": 512}
    return Models(small_model(tmp_path_factory.mktemp("many"), **sizes), request.param)


@pytest.mark.parametrize("name", LENGTHS)
def test_no_bit_depends_on_the_threads(models: Models, name: str) -> None:
    for threads, model in zip(MANY, models.many, strict=True):
        assert chunks.divide(models.batches[name].offsets, threads)[1] == LENGTHS[name][1]
        assert all(models.is_same(model, name) for _ in range(3))


def test_several_callers_with_many_threads_each(models: Models) -> None:
    wrong: list[str] = []

    def encode_often(number: int) -> None:
        for turn in range(6):
            name = list(LENGTHS)[(number + turn) % len(LENGTHS)]
            if not models.is_same(models.many[(number + turn // 4) % len(MANY)], name):
                wrong.append(f"caller {number}: {name}")

    call_in_threads(encode_often, 5)
    assert wrong == []
