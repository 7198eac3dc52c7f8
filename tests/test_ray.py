"""gte_np.ray without Ray: the plain class, how processors are divided, and errors. See tests/extras for the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gte_np import EmbeddingModel, InputError, MissingDependencyError
from gte_np.jobs import Job, JobOptions, Place
from gte_np.ray import Cluster, Embedder, run_on_ray
from gte_np.ray.cluster import divide
from gte_np.ray.embedder import assigned_processors
from tests.test_cli import run

TEXTS = ["happy person", "中国的首都是哪里", ""]


def test_importing_needs_no_ray() -> None:
    code = "import sys, gte_np.ray; print('ray' in sys.modules, 'pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "False False\n"


def test_batches_of_arrays(small: EmbeddingModel, small_folder: Path) -> None:
    embedder = Embedder(small_folder, text="sentence", output="vector")
    expected = small.encode(TEXTS)
    for texts in (np.array(TEXTS), np.array(TEXTS, object), TEXTS):
        batch = {"id": np.arange(3), "sentence": texts}
        added = embedder(batch)
        assert list(added) == ["id", "sentence", "vector"]
        assert np.array_equal(added["vector"], expected)
        assert added["id"] is batch["id"]
        assert "vector" not in batch
    assert embedder({"sentence": np.array([], object)})["vector"].shape == (0, 32)


def test_batches_of_arrow(small: EmbeddingModel) -> None:
    table = pa.table({"id": [1, 2, 3], "text": TEXTS}, metadata={"a": "b"})
    embedder = Embedder(small)
    for batch in (table, table.to_batches()[0], table.slice(1)):
        added = embedder(batch)
        assert type(added) is type(batch)
        assert added.schema.metadata == {b"a": b"b"}
        assert added.schema.names == ["id", "text", "embedding"]
        assert added.schema.field("embedding").type == pa.list_(pa.float32(), 32)
        vectors = np.array(added.column("embedding").to_pylist(), np.float32)
        assert np.array_equal(vectors, small.encode(batch.column("text").to_pylist()))
        assert added.column("id").equals(batch.column("id"))
    twice = embedder(embedder(table))  # takes the place of an older column
    assert twice.equals(embedder(table))


def test_options(small: EmbeddingModel, small_folder: Path) -> None:
    ranges = np.array([[-1.0] * 8, [1.0] * 8], np.float32)
    encode: dict[str, Any] = {"prompt": "very ", "truncate_dim": 8, "precision": "int8", "ranges": ranges}
    embedder = Embedder(small_folder, dtype="int8", threads=1, batch_size=2, **encode)
    assert embedder.model.bert.dtype == "int8"
    expected = EmbeddingModel(small_folder, dtype="int8").encode(TEXTS, **encode)
    assert np.array_equal(embedder({"text": TEXTS})["embedding"], expected)
    assert embedder(pa.table({"text": TEXTS})).column("embedding").type == pa.list_(pa.int8(), 8)
    assert np.array_equal(Embedder(small, normalize_embeddings=False)({"text": TEXTS})["embedding"].shape, (3, 32))


def test_mistakes(small: EmbeddingModel, small_folder: Path) -> None:
    embedder = Embedder(small)
    for batch in ({"texts": TEXTS}, pa.table({"texts": TEXTS})):
        with pytest.raises(InputError, match=r"expected a column 'text' of texts, got 'texts'\."):
            embedder(batch)
    with pytest.raises(TypeError, match="expected a dict of arrays, or a Table or RecordBatch of pyarrow, got list"):
        embedder(TEXTS)
    for batch in ({"text": np.array(["a", None], object)}, pa.table({"text": ["a", None]})):
        with pytest.raises(TypeError, match="NoneType"):
            embedder(batch)
    with pytest.raises(InputError, match="expected ranges with int8"):
        Embedder(small, precision="int8")
    with pytest.raises(TypeError, match=r"expected no options of a model that is loaded, got dtype\."):
        Embedder(small, dtype="int8")
    with pytest.raises(InputError, match="truncate_dim"):
        Embedder(small, truncate_dim=33)
    with pytest.raises(TypeError, match="unknown"):
        Embedder(small_folder, unknown=1)


class FakeRay(ModuleType):
    """What a process of Ray sees of it."""

    WORKER_MODE = 1

    def __init__(self, mode: int, processors: dict[str, float]) -> None:
        super().__init__("ray")
        worker = SimpleNamespace(mode=mode)
        self.context = SimpleNamespace(worker=worker, get_assigned_resources=lambda: processors)

    def is_initialized(self) -> bool:
        return True

    def get_runtime_context(self) -> Any:
        return self.context


@pytest.mark.parametrize(
    ("mode", "processors", "expected"),
    [(1, {"CPU": 3.0}, 3), (1, {"CPU": 0.5}, 1), (1, {}, 1), (0, {"CPU": 3.0}, None)],
)
def test_threads_are_the_processors_that_ray_gives(
    small: EmbeddingModel,
    monkeypatch: pytest.MonkeyPatch,
    mode: int,
    processors: dict[str, float],
    expected: int | None,
) -> None:
    assert assigned_processors() is None
    monkeypatch.setitem(sys.modules, "ray", FakeRay(mode, processors))
    assert assigned_processors() == expected
    threads = vars(Embedder(small).model.bert)["_options"]["threads"]
    assert threads == expected
    assert vars(Embedder(small, threads=2).model.bert)["_options"]["threads"] == 2


@pytest.mark.parametrize(
    ("nodes", "actors", "threads", "expected"),
    [
        ([8], None, None, (1, 8)),
        ([0, 8, 8], None, None, (2, 8)),
        ([16, 8], None, None, (3, 8)),
        ([8], None, 2, (4, 2)),
        ([8, 3], None, 2, (5, 2)),
        ([8], 3, None, (3, 2)),
        ([8, 8], 2, None, (2, 8)),
        ([16, 2], 2, None, (2, 8)),
        ([2], 4, None, (4, 1)),
        ([2], None, 4, (1, 4)),
        ([2], 3, 5, (3, 5)),
        ([], None, None, (1, 1)),
    ],
)
def test_processors_are_divided(
    nodes: list[int], actors: int | None, threads: int | None, expected: tuple[int, int]
) -> None:
    assert divide(nodes, Cluster(None, actors, threads)) == expected


def test_without_ray(small: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "texts.txt").write_text("happy\n")
    job, place = Job(small, [str(tmp_path / "texts.txt")]), Place.find(str(tmp_path / "out"), None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gte_np\[ray\]'"):
        run_on_ray(job, place, Cluster())
    assert not (tmp_path / "out").exists()


def test_what_is_refused_before_ray_starts(small: EmbeddingModel, tmp_path: Path) -> None:
    place = Place.find(str(tmp_path / "out"), None)
    (tmp_path / "texts.txt").write_text("happy\n")
    names = [str(tmp_path / "texts.txt")]
    with pytest.raises(InputError, match="got standard input"):
        run_on_ray(Job(small, ["-"]), place, Cluster())
    with pytest.raises(InputError, match="got the cache"):
        run_on_ray(Job(small, names, JobOptions(cache=tmp_path / "cache")), place, Cluster())
    with pytest.raises(InputError, match="expected the address of a Ray cluster as HOST:PORT"):
        run_on_ray(Job(small, names), place, Cluster("ray://head:10001"))
    with pytest.raises(InputError, match="expected actors to be at least 1"):
        run_on_ray(Job(small, names), place, Cluster(actors=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "out/", "--actors", "2"], "expected --actors with --ray"),
        (["--ray"], "expected -o with a file or a folder with --ray, got '-'"),
        (["-o", "out/", "--cache", "c", "--ray"], "got the cache 'c'"),
        (["-", "-o", "out/", "--ray"], "got standard input"),
        (["-o", "out/", "--ray", "x"], "put --ray behind the inputs"),
    ],
)
def test_one_line_for_each_mistake(small_folder: Path, tmp_path: Path, options: list[str], message: str) -> None:
    (tmp_path / "texts.txt").write_text("happy\n")
    options = [str(tmp_path / "out") + "/" if option == "out/" else option for option in options]
    done = run("embed", small_folder, tmp_path / "texts.txt", *options)
    assert (done.returncode, done.stdout) == (2, b"")
    assert message in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / "out").exists()
