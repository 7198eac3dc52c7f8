"""benchmarks.many_cores: that it counts the tasks that the kernels count, and what follows from its figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import many_cores, program_steps, step_costs
from benchmarks.core_model import Model, of_a_node
from benchmarks.processors import PROCESSORS, Processor
from benchmarks.program_steps import Load, Step, Subject
from benchmarks.step_costs import Costs
from gte_np.kernels.language.team_state import LINE
from gte_np.kernels.operations.records import Operation
from gte_np.kernels.runtime.chunks import Chunk
from gte_np.kernels.targets.host import host_target
from tests.checkpoints import small_model

NOTHING = Costs(handover=1.0, task=0.0, look=0.0, fetch=0.0, barrier=0.0, wake=0.0, line=0.0)
# Four cores, two complexes, two memory nodes, with bandwidth for any weights.
PROCESSOR = Processor("of a test", 4, 2, 2, 1.0, 1, 1.0, 1e6, (0.0, 0.0, 0.0), ())
LINEAR = Step(Operation.LINEAR, False, panels=6, heads=0, weight_bytes=1000, seconds=12.0)
ROWS = Step(Operation.ADD_NORM, True, panels=0, heads=0, weight_bytes=0, seconds=1.0)


@pytest.fixture(params=["mean", "cls"])
def pooling(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a small model pools, with which the benchmark finds it as `small`."""
    small_model(tmp_path / "small", pooling=request.param, hidden_size=104, max_position_embeddings=512)
    monkeypatch.setattr(program_steps, "FOLDERS", tmp_path)
    monkeypatch.setattr(program_steps, "SHAPES", {"small": (0, 0, 0, 0, 0, request.param)})
    monkeypatch.setattr(program_steps, "target_without_unit", host_target)  # whose kernels are compiled
    monkeypatch.setattr(program_steps, "SECONDS", 0.0)
    return str(request.param)


# --- what is counted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", many_cores.DTYPES)
def test_tasks_are_those_that_the_kernels_do(pooling: str, dtype: str) -> None:
    subject = Subject("small", dtype)
    encoder = subject.encoder.with_threads(2)
    for texts, length in ((1, 1), (1, 13), (3, 7), (1, 512), (2, 170)):
        encoder._run(subject._job(texts, length), Chunk(0, texts), 2)
        state = encoder._idle[-1]._state
        steps = subject.steps(length)
        done = [int(state[(2 + step * 3) * LINE]) for step in range(len(steps))]
        assert [step.tasks(subject.load(texts, length), 2) for step in steps] == done
        assert all(step.seconds > 0 for step in steps)


def test_weights_of_all_steps_are_those_of_the_model(pooling: str) -> None:
    subject = Subject("small", "float32")
    assert sum(step.weight_bytes for step in subject.steps(3)) == subject.encoder.weights.matrices.nbytes


# --- what follows -------------------------------------------------------------------------------------------------


def model(*steps: Step, slower: float = 1.0, processor: Processor = PROCESSOR, **costs: float) -> Model:
    """A model of a processor where what is not given costs nothing."""
    return Model(steps, NOTHING._replace(**costs), 0.0, slower, processor)


def test_the_longest_share_is_waited_for() -> None:
    load = Load(1, 10, 10)
    assert [model(LINEAR).team(load, threads) for threads in (1, 2, 3, 4)] == [12, 6, 4, 4]  # of six tasks
    assert model(LINEAR, slower=3.0).team(load, 2) == 18
    assert model(LINEAR, ROWS).team(Load(1, 10, 1), 2) == 6 + 1  # one wanted row is one task


def test_a_batch_is_as_many_runs_as_a_team_needs() -> None:
    load = Load(8, 512, 8 * 512)  # two texts at once
    assert model(LINEAR).team(load, 1) == 8 * 12
    assert model(LINEAR, wake=1.0).team(load, 4) == pytest.approx(8 * 12 / 4 + 4 * 3)


def test_each_thread_has_its_part_of_a_barrier() -> None:
    slow = PROCESSOR._replace(latencies=(2e9, 2e9, 2e9))
    found = model(ROWS, processor=slow, look=5.0, fetch=3.0)
    assert found.barrier(4) == 4 * (5 + 2 * (3 + 1))
    assert found.team(Load(1, 4, 4), 4) == 1 / 4 + found.barrier(4)  # a row for each thread
    assert found.team(Load(1, 4, 4), 1) == 1
    assert found.best_team(Load(1, 400, 400)) == (1, 1)


def test_weights_are_read_from_one_node_unless_they_are_cached() -> None:
    slow = PROCESSOR._replace(bandwidth=2e-6, cache=0.0)  # 1000 bytes a second of each node
    assert model(LINEAR._replace(weight_bytes=20_000), processor=slow).team(Load(1, 10, 10), 2) == 20
    assert (
        model(LINEAR._replace(weight_bytes=20_000), processor=slow._replace(cache=1.0)).team(Load(1, 10, 10), 2) == 6
    )


def test_by_text_each_thread_reads_all_weights() -> None:
    load = Load(4, 100, 400)
    assert model(LINEAR).by_text(load) == 12
    assert model(LINEAR).by_text(Load(5, 100, 500)) == 24
    slow = PROCESSOR._replace(bandwidth=2e-6, cache=0.0)
    assert model(LINEAR._replace(weight_bytes=10_000), processor=slow).by_text(load) == 4 * 10_000 / 2000
    assert model(LINEAR, wake=1.0).by_text(load) == 12 + 3
    assert model(LINEAR)._replace(python=2.0).by_text(load) == 12 + 4 * 2


def test_latency_is_that_of_the_average_pair() -> None:
    found = PROCESSOR._replace(cores=8, latencies=(10.0, 20.0, 40.0))  # two nodes of two complexes of two cores
    assert found.latency(2) == pytest.approx(10e-9)
    assert found.latency(4) == pytest.approx((10 + 2 * 20) / 3 * 1e-9)
    assert found.latency(8) == pytest.approx((10 + 2 * 20 + 4 * 40) / 7 * 1e-9)
    assert of_a_node(found)[1:3] == (4, 1)


def test_every_processor_has_its_sources() -> None:
    assert [each.cores for each in PROCESSORS] == [8, 16, 64, 192, 192]
    for each in PROCESSORS:
        assert any("https://" in source for source in each.sources)
        assert each.cores % (each.nodes * each.complex) == 0


# --- the command --------------------------------------------------------------------------------------------------


def test_costs_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_costs, "REPEATS", 3)
    costs = step_costs.measure()
    assert min(costs.handover, costs.task, costs.look, costs.barrier, costs.wake, costs.line) > 0
    assert all(np.isfinite(costs))
    assert max(costs) < 0.01


def test_the_command(
    pooling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, Any] = {
        "SHAPES": {"small": None},
        "RESULTS": tmp_path,
        "LOADS": {"1 x 5": (1, 5), "4 x 9": (4, 9)},
        "POINT_LENGTH": 9,
        "PROCESSORS": PROCESSORS[::4],
        "step_costs": SimpleNamespace(measure=lambda: NOTHING),
    }
    for name, value in changes.items():
        monkeypatch.setattr(many_cores, name, value)
    monkeypatch.setattr(sys, "argv", ["many_cores", "--dtypes", "int8"])
    many_cores.main()
    *_, last = capsys.readouterr().out.splitlines()
    results = json.loads(last)
    assert json.loads((tmp_path / "many_cores.json").read_text("utf-8")) == results
    found = results["models"]["small"]["int8"]
    assert list(found["processors"]) == ["Ryzen 7 9700X", "two Graviton4", "a node of two Graviton4"]
    assert found["program"]["1 x 5"]["tasks"]["1 x embed"] == 5
    for figures in found["processors"].values():
        assert figures["loads"]["1 x 5"]["by_text"] is None
        assert 0 < figures["loads"]["4 x 9"]["best_team"] <= figures["loads"]["4 x 9"]["one_thread"]
    assert found["processors"]["two Graviton4"]["by_node"]["texts"] == 768
