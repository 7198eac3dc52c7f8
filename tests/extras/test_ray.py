"""Jobs and batches on a real Ray, which this machine runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import ray.data

from gte_np import EmbeddingModel, InputError
from gte_np.files import sha256_of
from gte_np.jobs import Job, JobOptions, Place, Results, run_job
from gte_np.ray import Cluster, Embedder, embed_dataset
from scripts.kill_actors import actors_of

pytestmark = pytest.mark.filterwarnings("default")  # Ray warns of what it deprecates in itself

TEXTS = [f"happy person {number % 700} " + "today " * (number % 5) for number in range(1000)]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{text}\n" for text in TEXTS), "utf-8")
    return path


@pytest.fixture(scope="module")
def started() -> Iterator[None]:
    """A Ray that this process is connected to."""
    ray.init(address="local", num_cpus=3, include_dashboard=False)
    yield
    ray.shutdown()


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "gte_np", "embed", *map(str, words)]


def files(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


def one_process(model: EmbeddingModel, texts: Path, folder: Path, **options: Any) -> dict[str, str]:
    job = Job(model, [str(texts)], JobOptions(rows_per_shard=100, **options))
    run_job(job, Place.find(str(folder), None))
    return files(folder)


def test_the_command(small: EmbeddingModel, small_folder: Path, texts: Path, tmp_path: Path) -> None:
    expected = one_process(small, texts, tmp_path / "one", precision="int8")
    options = ["--rows-per-shard", "100", "--precision", "int8", "--threads", "1", "--actors", "2", "--ray"]
    done = subprocess.run(
        command(small_folder, texts, "-o", "many/", *options),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "gte-np: many: 1000 texts: " in done.stderr
    assert done.stdout == ""
    assert files(tmp_path / "many") == expected


def test_an_actor_that_is_killed_repeats_its_shard(
    small: EmbeddingModel, small_folder: Path, texts: Path, tmp_path: Path
) -> None:
    texts.write_text("".join(f"{number} {text}\n" for number in range(20) for text in TEXTS), "utf-8")
    expected = one_process(small, texts, tmp_path / "one")
    options = ["--rows-per-shard", "100", "--threads", "1", "--actors", "2", "--ray"]
    process = subprocess.Popen(command(small_folder, texts, "-o", f"{tmp_path}/many/", *options))
    kills = 0
    while process.poll() is None:
        finished = len(list((tmp_path / "many").glob("part-*.npy"))) if (tmp_path / "many").exists() else 0
        actors = list(actors_of(process.pid))
        if actors and finished > 50 * kills:
            os.kill(actors[0], signal.SIGKILL)
            kills += 1
        time.sleep(0.05)
    assert process.returncode == 0
    assert kills >= 2
    assert files(tmp_path / "many") == expected


def test_a_driver_that_is_killed_goes_on(
    small: EmbeddingModel, small_folder: Path, texts: Path, tmp_path: Path
) -> None:
    texts.write_text("".join(f"{number} {text}\n" for number in range(20) for text in TEXTS), "utf-8")
    expected = one_process(small, texts, tmp_path / "one")
    options = ["--rows-per-shard", "100", "--threads", "1", "--actors", "2", "--ray"]
    words = command(small_folder, texts, "-o", f"{tmp_path}/many/", *options)
    for number, status in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        process = subprocess.Popen(words)
        journal = tmp_path / "many" / "journal.jsonl"
        before = journal.read_bytes().count(b"\n") if journal.exists() else 0
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < before + 5):
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait() == status
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "of them done before" in done.stderr
    assert files(tmp_path / "many") == expected


def test_errors_of_actors(small_folder: Path, texts: Path, tmp_path: Path) -> None:
    with texts.open("ab") as file:
        file.write(b"\xff\n")
    options = ["--rows-per-shard", "100", "--actors", "1", "--threads", "1", "--ray"]
    done = subprocess.run(
        command(small_folder, texts, "-o", f"{tmp_path}/many/", *options), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "line 1001: expected UTF-8 text" in done.stderr.splitlines()[-1]


def test_a_cluster_that_is_not_there(small_folder: Path, texts: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(small_folder, texts, "-o", f"{tmp_path}/many/", "--ray", "127.0.0.1:1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "expected a Ray cluster at 127.0.0.1:1" in done.stderr.splitlines()[-1]


@pytest.mark.usefixtures("started")
def test_map_batches(small: EmbeddingModel, small_folder: Path) -> None:
    expected = small.encode(TEXTS)
    dataset = ray.data.from_items([{"id": number, "text": text} for number, text in enumerate(TEXTS)])
    for batch_format in ("numpy", "pyarrow"):
        mapped = dataset.map_batches(
            Embedder,
            fn_constructor_args=(str(small_folder),),
            batch_size=64,
            batch_format=batch_format,
            compute=ray.data.ActorPoolStrategy(size=2),
            num_cpus=1,
        )
        rows = sorted(mapped.take_all(), key=lambda row: row["id"])
        assert np.array_equal(np.array([row["embedding"] for row in rows], np.float32), expected)


@pytest.mark.usefixtures("started")
def test_actors_have_the_processors_that_they_were_given(small: EmbeddingModel) -> None:
    class Actor:
        def threads(self) -> int:
            return vars(Embedder(small).model.bert)["_options"]["threads"]

    assert ray.get(ray.remote(Actor).options(num_cpus=2).remote().threads.remote()) == 2
    assert Embedder(small).model is small  # the driver is no worker


@pytest.mark.usefixtures("started")
def test_a_dataset(small: EmbeddingModel, tmp_path: Path) -> None:
    table = pa.table({"text": TEXTS, "n": list(range(len(TEXTS))), "other": [None] * len(TEXTS)})
    dataset = ray.data.from_arrow([table.slice(0, 333), table.slice(333)])
    options = JobOptions(keep=("n",), rows_per_shard=100)
    cluster = Cluster(actors=2, threads=1)
    summary = embed_dataset(dataset, small, tmp_path / "out", options, cluster=cluster)
    assert (summary.rows, summary.already) == (1000, 0)
    assert not (tmp_path / "out.dataset").exists()
    vectors = np.concatenate([np.load(path) for path in sorted((tmp_path / "out").glob("*.npy"))])
    assert np.array_equal(vectors, small.encode(TEXTS))
    assert [row["n"] for row in Results(str(tmp_path / "out")).columns()] == list(range(1000))
    assert embed_dataset(dataset, small, tmp_path / "out", options, cluster=cluster).already == 1000
    with pytest.raises(InputError, match="other rows in shard"):
        embed_dataset(dataset.filter(lambda row: row["n"] != 5), small, tmp_path / "out", options, cluster=cluster)
    with pytest.raises(InputError, match="expected a dataset with the columns 'text', 'm', got 'text', 'n', 'other'"):
        embed_dataset(dataset, small, tmp_path / "other", JobOptions(keep=("m",)))
    assert ray.is_initialized()
