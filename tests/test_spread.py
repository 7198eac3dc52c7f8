"""A job spread over workers, which are called in this process: the plan, the shards, and what may go wrong."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from gte_np import EmbeddingModel, InputError
from gte_np.files import sha256_of
from gte_np.jobs import Job, JobOptions, Place, Progress, Summary, run_job
from gte_np.jobs.spread import (
    Done,
    Order,
    Planned,
    ShardWorker,
    attempts_file,
    done_of,
    json_of,
    make_plan,
    planned_of,
    spread,
)
from gte_np.jobs.workspace import Shard

ROWS, ROWS_PER_SHARD = 110, 16


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """Files of several formats, with an id, a column to keep, and texts that are there twice."""
    random = Random(0)
    texts = [f"happy person {number % 40} " + "today " * random.randrange(60) for number in range(ROWS)]
    rows = [{"text": text, "key": f"k{number}", "n": f"n{number}"} for number, text in enumerate(texts)]
    lines = [json.dumps(row) + "\n" for row in rows]
    (tmp_path / "a.jsonl").write_text("".join(lines[:50]), "utf-8")
    table = "".join(f"{row['n']},{row['key']},{row['text']}\r\n" for row in rows[50:])
    (tmp_path / "b.csv").write_text("n,key,text\r\n" + table, "utf-8")
    return [str(tmp_path / "a.jsonl"), str(tmp_path / "b.csv")]


def options(**others: Any) -> JobOptions:
    return JobOptions(id="key", keep=("n",), on_error="skip", rows_per_shard=ROWS_PER_SHARD, **others)


def place(path: Path) -> Place:
    return Place.find(str(path), None)


def told(order: Order) -> Order:
    """An order as it comes to another process."""
    return pickle.loads(pickle.dumps(order))


def backwards(order: Order, shards: list[Planned]) -> Iterator[Done]:
    """Two workers in turns, and the last shard first."""
    workers = [ShardWorker(told(order)), ShardWorker(told(order))]
    for turn, planned in enumerate(reversed(shards)):
        batch = {"planned": np.array([json_of(planned)])}
        yield done_of(workers[turn % 2](batch)["outcome"][0])


def run_spread(job: Job, output: Place, compute: Any = backwards, **others: Any) -> Summary:
    return run_job(job, output, work=lambda job, sink, report: spread(job, sink, report, compute), **others)


def files(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


@pytest.mark.parametrize("precision", ["float32", "int8", "ubinary"])
def test_the_bytes_are_those_of_one_process(
    small: EmbeddingModel, inputs: list[str], tmp_path: Path, precision: str
) -> None:
    job = Job(small, inputs, options(precision=precision))
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    one = run_job(job, place(tmp_path / "one" / "out.parquet"))
    many = run_spread(job, place(tmp_path / "many" / "out.parquet"))
    assert files(tmp_path / "one").keys() == files(tmp_path / "many").keys()
    assert sha256_of(tmp_path / "one" / "out.parquet") == sha256_of(tmp_path / "many" / "out.parquet")
    assert (many.rows, many.cut, many.skipped, many.already) == (one.rows, one.cut, one.skipped, 0)
    run_job(job, place(tmp_path / "shards_of_one"))
    run_spread(job, place(tmp_path / "shards_of_many"))
    assert files(tmp_path / "shards_of_one") == files(tmp_path / "shards_of_many")


def test_a_plan(small: EmbeddingModel, inputs: list[str]) -> None:
    job = Job(small, inputs, options())
    plan = make_plan(job, {})
    assert [shard.number for shard in plan.shards] == list(range(8))
    assert [shard.first_row for shard in plan.shards] == [0, 16, 32, 48, 50, 66, 82, 98]
    assert [shard.source for shard in plan.shards] == [0] * 4 + [1] * 4
    assert plan.kinds == {"id": "string", "n": "string"}
    assert sum(shard.size for shard in plan.shards) == sum(source.size for source in job.inputs)
    assert planned_of(json_of(plan.shards[5])) == plan.shards[5]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_an_interrupted_job_goes_on(small: EmbeddingModel, inputs: list[str], tmp_path: Path, precision: str) -> None:
    job = Job(small, inputs, options(precision=precision))
    run_job(job, place(tmp_path / "one"))

    def some(order: Order, shards: list[Planned]) -> Iterator[Done]:
        for count, done in enumerate(backwards(order, shards)):
            if count == 3:
                raise KeyboardInterrupt
            yield done

    with pytest.raises(KeyboardInterrupt):
        run_spread(job, place(tmp_path / "many"), some)
    before = 3 + (precision == "int8")  # the first shard, which leaves ranges
    progress: list[Progress] = []
    summary = run_spread(job, place(tmp_path / "many"), report=progress.append)
    assert len(progress) == 8 - before
    assert progress[-1].read == progress[-1].size == sum(source.size for source in job.inputs)
    assert 0 < summary.already < summary.rows == ROWS
    assert files(tmp_path / "one") == files(tmp_path / "many")
    assert run_spread(job, place(tmp_path / "many"), None).already == ROWS


def test_an_interrupted_job_goes_on_in_one_process(small: EmbeddingModel, inputs: list[str], tmp_path: Path) -> None:
    job = Job(small, inputs, options())
    run_job(job, place(tmp_path / "one"))
    with pytest.raises(ZeroDivisionError):
        run_spread(job, place(tmp_path / "many"), lambda order, shards: _two_and_an_error(order, shards))
    assert run_job(job, place(tmp_path / "many")).already > 0
    assert files(tmp_path / "one") == files(tmp_path / "many")


def _two_and_an_error(order: Order, shards: list[Planned]) -> Iterator[Done]:
    yield from backwards(order, shards[:2])
    raise ZeroDivisionError


def test_what_dead_workers_leave_is_removed(small: EmbeddingModel, inputs: list[str], tmp_path: Path) -> None:
    job = Job(small, inputs, options())

    def littering(order: Order, shards: list[Planned]) -> Iterable[Done]:
        (order.place.folder / ".part-000001.npy.0123.part").touch()
        attempts_file(order.place, 2).write_bytes(b"..")
        return backwards(order, shards)

    run_job(job, place(tmp_path / "one"))
    run_spread(job, place(tmp_path / "many"), littering)
    assert files(tmp_path / "one") == files(tmp_path / "many")


def test_a_shard_that_ends_every_process(small: EmbeddingModel, inputs: list[str], tmp_path: Path) -> None:
    def deadly(order: Order, shards: list[Planned]) -> Iterable[Done]:
        attempts_file(order.place, shards[-1].number).write_bytes(b"." * 30)
        return backwards(order, shards)

    with pytest.raises(InputError, match=r"expected shard 7 to be computed, got 30 processes"):
        run_spread(Job(small, inputs, options()), place(tmp_path / "out"), deadly)


def test_inputs_that_change_after_the_plan(small: EmbeddingModel, inputs: list[str], tmp_path: Path) -> None:
    def changing(order: Order, shards: list[Planned]) -> Iterable[Done]:
        path = Path(inputs[1])
        path.write_bytes(path.read_bytes().replace(b"k109", b"k108"))
        return backwards(order, shards)

    with pytest.raises(InputError, match=r"got other rows in shard 7 in .*b\.csv"):
        run_spread(Job(small, inputs, options()), place(tmp_path / "out"), changing)

    def cutting(order: Order, shards: list[Planned]) -> Iterable[Done]:
        Path(inputs[1]).write_bytes(b"")
        return backwards(order, shards)

    with pytest.raises(InputError, match=r"b\.csv"):
        run_spread(Job(small, inputs, options()), place(tmp_path / "other"), cutting)


def test_a_record_that_cannot_be_read(small: EmbeddingModel, inputs: list[str], tmp_path: Path) -> None:
    with Path(inputs[0]).open("a") as file:
        file.write("no JSON\n")
    strict = Job(small, inputs, JobOptions(rows_per_shard=ROWS_PER_SHARD))
    with pytest.raises(InputError, match="line 51: expected a JSON object"):
        run_spread(strict, place(tmp_path / "out"))
    assert run_spread(Job(small, inputs, options()), place(tmp_path / "other")).skipped == 1


def test_a_worker_of_other_settings(small: EmbeddingModel, inputs: list[str], tmp_path: Path) -> None:
    job = Job(small, inputs, options())

    def older(order: Order, shards: list[Planned]) -> Iterable[Done]:
        return backwards(order._replace(settings={**order.settings, "gte_np": "0.0.1"}), shards)

    with pytest.raises(InputError, match=r"expected the settings of the job on the machine .* gte_np was '0.0.1'"):
        run_spread(job, place(tmp_path / "out"), older)


def test_names_from_the_working_folder(
    small: EmbeddingModel, inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job(small, ["a.jsonl", "b.csv"], options())
    (tmp_path / "elsewhere").mkdir()

    def elsewhere(order: Order, shards: list[Planned]) -> Iterator[Done]:
        for done in backwards(order, shards):
            os.chdir(tmp_path / "elsewhere")
            assert order.folder == str(tmp_path)
            os.chdir(order.folder)
            yield done

    run_spread(job, place(Path("out")), elsewhere)
    os.chdir(tmp_path / "elsewhere")
    ShardWorker(Order(job, place(Path("out")), job.settings(place(Path("out"))), None, None, str(tmp_path)))
    assert Path.cwd() == tmp_path


def test_an_input_without_rows(small: EmbeddingModel, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    assert run_spread(Job(small, [str(tmp_path / "empty.txt")]), place(tmp_path / "out"), None).rows == 0


@pytest.mark.parametrize("shared", ["standard input", "the cache"])
def test_what_many_processes_cannot_share(
    small: EmbeddingModel, inputs: list[str], tmp_path: Path, shared: str
) -> None:
    names = ["-"] if shared == "standard input" else inputs
    job = Job(small, names, options(cache=tmp_path / "cache" if shared == "the cache" else None))
    with pytest.raises(InputError, match=f"got {shared}"):
        run_spread(job, place(tmp_path / "out"))


def test_finished_shards_of_other_inputs(small: EmbeddingModel, inputs: list[str], tmp_path: Path) -> None:
    job = Job(small, inputs, options())
    run_spread(job, place(tmp_path / "out"))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    finished = {number: Shard(**shard) for number, shard in enumerate(manifest["shards"])}
    assert make_plan(job, finished).shards == []
    shutil.copy(inputs[0], inputs[1] + ".jsonl")
    with pytest.raises(InputError, match="got other rows in shard 4"):
        make_plan(Job(small, [inputs[0], inputs[1] + ".jsonl"], options()), finished)
    with pytest.raises(InputError, match="got fewer rows"):
        make_plan(Job(small, inputs[:1], options()), finished)
