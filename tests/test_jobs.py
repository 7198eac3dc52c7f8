"""Jobs: what they read, what they write, and that they go on where they stopped, with the same bytes."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gte_np import EmbeddingModel, InputError, MissingDependencyError, quantize_embeddings
from gte_np.cli import main
from gte_np.jobs import (
    Job,
    JobOptions,
    Place,
    Results,
    Summary,
    model_of,
    run_job,
    search,
    vector_cache,
    verify,
)
from gte_np.jobs.input_formats import INPUT_FORMATS
from gte_np.jobs.inputs import BLOCK
from gte_np.jobs.workspace import JOURNAL, LOCK, opened_workspace
from scripts.interrupt_jobs import interrupt, write_job
from tests.job_inputs import IDS, TEXTS, YEARS, write_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def embed(model: EmbeddingModel, source: Path | str | Sequence[str], output: Path, **options: Any) -> Summary:
    """Do a job with a shard of two rows, unless other options are given."""
    names = list(map(str, source)) if isinstance(source, list) else [str(source)]
    place = Place.find(str(output), options.pop("format", None))
    force = options.pop("force", False)
    return run_job(Job(model, names, JobOptions(**{"rows_per_shard": 2, **options})), place, force=force)


def written(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- inputs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet", "jsonl.gz", "csv.zst"])
@pytest.mark.parametrize("size", [2, 100])
def test_each_format_gives_the_same_rows(
    small: EmbeddingModel, inputs: dict[str, Path], kind: str, size: int, tmp_path: Path
) -> None:
    output = tmp_path / "out.npy"
    summary = embed(small, inputs[kind], output, field="body", id="key", keep=("year",), rows_per_shard=size)
    assert np.array_equal(np.load(output), small.encode(TEXTS))
    rows = [json.loads(line) for line in (tmp_path / "out.npy.rows.jsonl").read_text("utf-8").splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    assert [row["id"] for row in rows] == IDS
    as_text = ["" if year is None else str(year) for year in YEARS]
    assert [row["year"] for row in rows] == (YEARS if "csv" not in kind and kind != "tsv" else as_text)
    assert (summary.rows, summary.repeated, summary.cut, summary.skipped) == (7, 1, 1, 0)
    assert set(written(tmp_path)) == {"out.npy", "out.npy.rows.jsonl", "out.npy.manifest.json"}


def test_lines_of_text_end_with_lf_crlf_or_cr(small: EmbeddingModel, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_bytes("\ufeffone\r\ntwo\rthree\n\nfive \u2028 \x0b".encode())
    embed(small, source, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").split("\n")[:-1]]
    assert [row["text"] for row in rows] == ["one", "two", "three", "", "five \u2028 \x0b"]
    assert [row["id"] for row in rows] == [0, 1, 2, 3, 4]


def test_lines_that_cross_the_blocks_that_are_read(small: EmbeddingModel, tmp_path: Path) -> None:
    lengths = [BLOCK - 1, 1, BLOCK, 2, 2 * BLOCK + 5, 0]
    for end in (b"\r\n", b"\n", b"\r"):
        source = tmp_path / "in.txt"
        source.write_bytes(b"".join(b"x" * length + end for length in lengths))
        embed(small, source, tmp_path / "out.jsonl", force=True, rows_per_shard=4)
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
        assert [len(row["text"]) for row in rows] == lengths


def test_folders_and_globs(small: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "corpus"
    (corpus / "b").mkdir(parents=True)
    (corpus / "a.txt").write_text("one\n", "utf-8")
    (corpus / "b" / "c.jsonl").write_text('{"text": "two"}\n', "utf-8")
    (corpus / "d.txt").write_text("three", "utf-8")
    (corpus / ".hidden.txt").write_text("no", "utf-8")
    (corpus / "notes.md").write_text("no", "utf-8")
    monkeypatch.chdir(tmp_path)
    for names in (["corpus"], ["corpus/a.txt", "corpus/b/*", "corpus/d.txt"]):
        embed(small, names, tmp_path / "out.jsonl", force=True)
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
        assert [(row["id"], row["text"]) for row in rows] == [(0, "one"), (1, "two"), (2, "three")]


def parquet_of(text: str) -> bytes:
    """A Parquet file with a text, as it is."""
    file = io.BytesIO()
    pq.write_table(pa.table({"text": [text]}), file, compression="none", use_dictionary=False, write_statistics=False)
    return file.getvalue()


WRONG_INPUTS: list[tuple[str, bytes, dict[str, Any], str]] = [
    ("in.jsonl", b'{"text": "a"}\n["b"]', {}, "in.jsonl, line 2: expected a JSON object, got list"),
    ("in.jsonl", b'{"text": "a"}\n\n{"text": "b', {}, "line 3: expected a JSON object, got what cannot be read"),
    ("in.jsonl", b'{"text": NaN}', {}, "NaN is no JSON"),
    ("in.jsonl", b"[" * 100_000, {}, "line 1: expected a JSON object"),
    ("in.jsonl", b'{"title": "a"}', {}, "expected a field 'text', got 'title'"),
    ("in.jsonl", b'{"text": null}', {}, "expected a string in the field 'text', got null"),
    ("in.jsonl", b'{"text": 3}', {}, "expected a string in the field 'text', got int"),
    ("in.jsonl", b'{"text": "\\ud800"}', {}, "a lone surrogate at character 0"),
    ("in.jsonl", b'{"text": "a", "id": 1}\n{"text": "b"}', {"id": "id"}, "line 2: expected a field 'id'"),
    ("in.jsonl", b'{"text": "a", "n": 1}\n{"text": "b", "n": "x"}', {"keep": ("n",), "rows_per_shard": 1}, "int64"),
    ("in.csv", b"text,n\na,1\nb\n", {}, "line 3: expected 2 values, as in the header, got 1"),
    ("in.csv", b'text,n\n"a,1\nb\n', {}, "line 2: expected separated values, got in 2 lines"),
    ("in.csv", b"title\na\n", {}, "expected the column 'text' once in .*in.csv, got the columns 'title'"),
    ("in.csv", b"text,text\na,b\n", {}, "expected the column 'text' once in .*, got 2 times"),
    ("in.csv", b"text\n\xff\n", {}, "line 2: expected UTF-8 text, got byte 0xff after 0 characters"),
    ("in.txt", "北京".encode("utf-16"), {}, "expected UTF-8 text in .*in.txt, got UTF-16"),
    ("in.txt", b"caf\xe9", {}, "line 1: expected UTF-8 text, got byte 0xe9 after 3 characters"),
    ("in.txt.gz", b"no gzip", {}, "expected .*in.txt.gz to be a whole .gz file"),
    ("in.txt.gz", gzip.compress(b"text\n" * 99, mtime=0)[:-5], {}, "expected .*in.txt.gz to be a whole .gz file"),
    ("in.txt.zst", b"no zstd", {}, "expected .*in.txt.zst to be a whole .zst file"),
    ("in.parquet", b"PAR1", {}, "expected a whole Parquet file, got in .*in.parquet"),
    (
        "in.parquet",
        parquet_of("Zürich").replace("Zürich".encode(), b"Z\xff\xffrich"),
        {},
        "expected a whole Parquet file",
    ),
    ("in.docx", b"", {}, "expected an input that ends in txt"),
    ("in.txt", b"a", {"keep": ("text",)}, "expected kept columns with names of their own, got 'text'"),
    ("in.txt", b"a", {"keep": ("year",)}, "expected a field 'year', got 'text'"),
    ("in.txt", b"a", {"on_error": "ignore"}, "on_error to be one of fail, skip"),
    ("in.txt", b"a", {"rows_per_shard": 0}, "rows_per_shard to be at least 1"),
    ("in.txt", b"a", {"precision": "int8"}, "expected several vectors to find the ranges for int8"),
]


@pytest.mark.parametrize(("name", "content", "options", "message"), WRONG_INPUTS)
def test_mistakes_in_inputs(
    small: EmbeddingModel, name: str, content: bytes, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        embed(small, tmp_path / name, tmp_path / "out.npy", **options)
    assert not (tmp_path / "out.npy").exists()


def test_inputs_that_are_not_there(small: EmbeddingModel, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, error, message in (
        ("no.txt", FileNotFoundError, "No such file"),
        ("empty", InputError, "expected files of txt, jsonl"),
        ("*.txt", InputError, "expected files that match"),
    ):
        with pytest.raises(error, match=message):
            embed(small, tmp_path / name, tmp_path / "out.npy")
    assert set(tmp_path.iterdir()) == {tmp_path / "empty"}


def test_rows_that_are_skipped_are_told_of(small: EmbeddingModel, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "one"}\nbroken\n{"text": "three"}\n{"text": null}\n{"text": "five"}\n', "utf-8")
    summary = embed(small, source, tmp_path / "out.npy", on_error="skip")
    assert (summary.rows, summary.skipped) == (3, 2)
    assert np.array_equal(np.load(tmp_path / "out.npy"), small.encode(["one", "three", "five"]))
    rows = [json.loads(line) for line in (tmp_path / "out.npy.rows.jsonl").read_text("utf-8").splitlines()]
    assert [row["id"] for row in rows] == [0, 2, 4]
    lines = (tmp_path / "out.npy.skipped.jsonl").read_text("utf-8").splitlines()
    skipped = [json.loads(line) for line in lines]
    assert [(row["row"], row["place"]) for row in skipped] == [(1, f"{source}, line 2"), (3, f"{source}, line 4")]
    assert "got null" in skipped[1]["reason"]


def test_a_job_of_only_skipped_rows(small: EmbeddingModel, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("broken\n" * 5, "utf-8")
    for ending in ("npy", "parquet", "jsonl", "csv", "arrow"):
        embed(small, tmp_path / "in.jsonl", tmp_path / f"out.{ending}", on_error="skip")
        assert Results(str(tmp_path / f"out.{ending}")).rows == 0


def test_without_pyarrow_the_extra_is_named(
    small: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("in.txt", "in.parquet"):
        (tmp_path / name).write_text("a", "utf-8")
    for source, output in (("in.parquet", "out.npy"), ("in.txt", "out.parquet"), ("in.txt", "out.arrow")):
        with pytest.raises(MissingDependencyError, match=r"pip install 'gte_np\[arrow\]'"):
            embed(small, tmp_path / source, tmp_path / output)


# --- outputs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["npy", "parquet", "arrow", "jsonl", "csv"])
@pytest.mark.parametrize("precision", ["float32", "int8", "ubinary"])
def test_outputs_can_be_read_searched_and_verified(
    small: EmbeddingModel, inputs: dict[str, Path], ending: str, precision: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"field": "body", "id": "key", "keep": ("year",), "precision": precision}
    expected = small.encode(TEXTS)
    ranges = np.stack([expected[:2].min(axis=0), expected[:2].max(axis=0)]) if precision == "int8" else None
    for output in (tmp_path / f"out.{ending}", tmp_path / ending):
        embed(small, inputs["jsonl"], output, format=ending, **options)
        results = Results(str(output))
        vectors = np.concatenate(list(results.vectors()))
        assert np.array_equal(vectors, quantize_embeddings(expected, precision, ranges))
        rows = list(results.columns())
        assert [row["text"] for row in rows] == TEXTS
        assert [row["id"] for row in rows] == IDS
        assert results.select([5, 1])[5]["text"] == TEXTS[5]
        assert verify(results, model_of(results)) == len(TEXTS)
        assert verify(results, small, sample=3) == 3
        hit = search(results, small.encode("北京"), top_k=2)[0]
        assert (hit.row["id"], hit.number) == ("id-1", 1)
        assert hit.score == pytest.approx(1, abs={"float32": 1e-6, "int8": 0.6, "ubinary": 0.5}[precision])


def test_a_job_without_normalize_gives_the_vectors_before_it(
    small: EmbeddingModel, inputs: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "out.parquet"
    embed(small, inputs["jsonl"], output, field="body", normalize_embeddings=False)
    vectors = np.stack(pq.read_table(output)["embedding"].to_numpy())
    assert np.array_equal(vectors, small.without_normalize().encode(TEXTS))
    assert verify(Results(str(output)), small) == len(TEXTS)


def test_a_parquet_output_has_types(small: EmbeddingModel, inputs: dict[str, Path], tmp_path: Path) -> None:
    embed(small, inputs["jsonl"], tmp_path / "out.parquet", field="body", id="key", keep=("year",))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.names == ["id", "year", "text", "embedding"]
    assert [str(kind) for kind in table.schema.types] == [
        "string", "int64", "string", "fixed_size_list<element: float>[32]"
    ]  # fmt: skip
    assert table.column("year").to_pylist() == YEARS


def test_columns_of_mixed_values_are_text(small: EmbeddingModel, tmp_path: Path) -> None:
    values = [1, "x", True, None, {"a": [1]}, 2.5]
    lines = [json.dumps({"text": "a", "v": value, "w": 2**70, "f": 1.5 if value == 1 else 2}) for value in values]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), "utf-8")
    embed(small, tmp_path / "in.jsonl", tmp_path / "out.parquet", keep=("v", "w", "f"), rows_per_shard=100)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("v").to_pylist() == ["1", "x", "true", None, '{"a": [1]}', "2.5"]
    assert table.column("w").to_pylist() == [str(2**70)] * 6
    assert table.column("f").to_pylist() == [1.5, 2, 1.5, 2, 2, 2]  # True == 1


def test_ranges_are_those_of_the_first_shard_or_given(small: EmbeddingModel, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("".join(f"happy person {number}\n" for number in range(40)), "utf-8")
    embed(small, tmp_path / "in.txt", tmp_path / "a.npy", precision="int8", rows_per_shard=30)
    ranges = np.load(tmp_path / "a.npy.ranges.npy")
    first = small.encode([f"happy person {number}" for number in range(30)])
    assert np.array_equal(ranges, np.stack([first.min(axis=0), first.max(axis=0)]))
    embed(small, tmp_path / "in.txt", tmp_path / "b.npy", precision="int8", ranges=ranges, rows_per_shard=7)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    query = small.encode("happy person 7", precision="int8", ranges=ranges)
    assert np.array_equal(query, np.load(tmp_path / "a.npy")[7])


def test_verify_finds_what_has_changed(small: EmbeddingModel, inputs: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    embed(small, inputs["jsonl"], output, field="body")
    content = bytearray(output.read_bytes())
    content[-3] ^= 1
    output.write_bytes(content)
    with pytest.raises(InputError, match="as the job has written it, got other content"):
        verify(Results(str(output)), small)
    manifest = json.loads((tmp_path / "out.npy.manifest.json").read_text("utf-8"))
    del manifest["files"]["out.npy"]
    (tmp_path / "out.npy.manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(InputError, match="expected row 6 to have the vector of its text, got other bits"):
        verify(Results(str(output)), small)
    manifest["settings"]["model"] = "0" * 64
    (tmp_path / "out.npy.manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(InputError, match="expected the model of the output"):
        verify(Results(str(output)), small)


def test_outputs_of_others_are_refused(small: EmbeddingModel, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.zeros((3, 32), np.float32))
    for name, message in (("vectors.npy", "without its manifest"), ("none.npy", "does not exist")):
        with pytest.raises(InputError, match=message):
            Results(str(tmp_path / name))
    (tmp_path / "vectors.npy.manifest.json").write_text("[1", "utf-8")
    with pytest.raises(InputError, match="expected the manifest of a job"):
        Results(str(tmp_path / "vectors.npy"))


# --- going on -----------------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path) -> Path:
    path = tmp_path / "many.txt"
    path.write_text("".join(f"happy person {number % 13}\n" for number in range(40)), "utf-8")
    return path


class StoppedError(Exception):
    """What stops a job in a test."""


def stop_after(shards: int) -> Callable[[object], None]:
    """A report that raises after so many shards."""
    left = iter(range(shards))

    def report(progress: object) -> None:
        if next(left, None) is None:
            raise StoppedError

    return report


@pytest.mark.parametrize("output", ["out.npy", "out.parquet", "out.jsonl", "out"])
def test_a_job_that_was_stopped_goes_on(small: EmbeddingModel, many: Path, output: str, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    options = JobOptions(rows_per_shard=3, precision="int8")
    job = Job(small, [str(many)], options)
    whole = run_job(job, Place.find(str(tmp_path / "whole" / output), None))
    assert (whole.rows, whole.already, whole.repeated) == (40, 0, 27)
    place = Place.find(str(tmp_path / "stopped" / output), None)
    for shards in (0, 1, 3):
        with pytest.raises(StoppedError):
            run_job(job, place, report=stop_after(shards))
    rest = run_job(job, place)
    assert (rest.rows, rest.already) == (40, 21)
    assert written(tmp_path / "stopped") == written(tmp_path / "whole")
    again = run_job(job, place)
    assert (again.rows, again.already) == (40, 40)
    assert written(tmp_path / "stopped") == written(tmp_path / "whole")


def test_what_comes_before_a_mistake_is_kept(small: EmbeddingModel, tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out"
    lines = ['{"text": "a"}\n'] * 9
    source.write_text("".join([*lines, "broken\n"]), "utf-8")
    with pytest.raises(InputError, match="line 10"):
        embed(small, source, output)
    assert sorted(path.name for path in output.glob("*.npy")) == [f"part-00000{n}.npy" for n in range(4)]
    source.write_text("".join([*lines, '{"text": "b"}\n']), "utf-8")
    assert embed(small, source, output).already == 8


def test_changed_inputs_and_settings_are_told_apart(small: EmbeddingModel, many: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    job = Job(small, [str(many)], JobOptions(rows_per_shard=3))
    with pytest.raises(StoppedError):
        run_job(job, Place.find(str(output), None), report=stop_after(5))
    with pytest.raises(InputError, match="truncate_dim was None and is 8"):
        embed(small, many, output, rows_per_shard=3, truncate_dim=8)
    content = many.read_text("utf-8")
    many.write_text(content.replace("person 4", "person four"), "utf-8")
    with pytest.raises(InputError, match="got other rows in shard 1"):
        embed(small, many, output, rows_per_shard=3)
    many.write_text(content[: len(content) // 4], "utf-8")
    with pytest.raises(InputError, match=r"got (fewer|other) rows"):
        embed(small, many, output, rows_per_shard=3)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "out.npy.parts", elsewhere / "out.npy.parts")
    assert embed(small, many, elsewhere / "out.npy", rows_per_shard=3, force=True).already == 0
    many.write_text(content, "utf-8")
    assert embed(small, many, output, rows_per_shard=3).already == 18
    many.write_text(content + "one more\n", "utf-8")
    with pytest.raises(InputError, match=r"got (more|other) rows"):
        embed(small, many, output, rows_per_shard=3)
    with pytest.raises(InputError, match="rows_per_shard was 3 and is 4"):
        embed(small, many, output, rows_per_shard=4)
    assert embed(small, many, output, rows_per_shard=4, force=True).rows == 41
    assert len(np.load(output)) == 41


def test_an_output_that_is_there_is_not_overwritten(small: EmbeddingModel, many: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "out.npy", np.zeros(3))
    with pytest.raises(InputError, match="which exists: --force replaces it"):
        embed(small, many, tmp_path / "out.npy")
    embed(small, many, tmp_path / "out.npy", force=True)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("dear", "utf-8")
    for force in (False, True):
        with pytest.raises(InputError, match="which has other files"):
            embed(small, many, tmp_path / "folder", force=force)
    assert set(written(tmp_path / "folder")) == {"letter.txt"}


def test_a_second_job_on_one_output_is_told_so(small: EmbeddingModel, many: Path, tmp_path: Path) -> None:
    place = Place.find(str(tmp_path / "out.npy"), None)
    with opened_workspace(place, {}, force=False), pytest.raises(InputError, match="where another job is at work"):
        embed(small, many, tmp_path / "out.npy")
    assert set(written(tmp_path)) == {"many.txt"}
    embed(small, many, tmp_path / "out.npy")


def test_a_journal_that_a_kill_has_cut(small: EmbeddingModel, many: Path, tmp_path: Path) -> None:
    expected = tmp_path / "expected"
    embed(small, many, expected)
    output = tmp_path / "out"
    with pytest.raises(StoppedError):
        run_job(
            Job(small, [str(many)], JobOptions(rows_per_shard=2)), Place.find(str(output), None), report=stop_after(4)
        )
    journal = (output / JOURNAL).read_bytes()
    assert (output / LOCK).exists()
    (output / ".part-000009.npy.0123.part").write_bytes(b"half of it")
    (output / ".manifest.json.0123.part").write_bytes(b"half of it")
    for length in range(len(journal) - 700, len(journal), 53):
        copy = tmp_path / f"copy-{length}"
        shutil.copytree(output, copy)
        (copy / JOURNAL).write_bytes(journal[:length])
        embed(small, many, copy)
        assert written(copy) == written(expected)


def test_kills_at_random_instants(tmp_path: Path, small_folder: Path) -> None:
    """A part of what `python -m scripts.interrupt_jobs` does."""
    for number, ending in ((signal.SIGKILL, "npy"), (signal.SIGTERM, "parquet"), (signal.SIGINT, "jsonl")):
        command = write_job(tmp_path, small_folder, ending, rows=5000)
        outcome = interrupt(command, tmp_path / ending, number, kills=3, seed=1)
        assert outcome.differences == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on files and permissions of POSIX")
def test_a_full_disk_and_then_more_room(
    small_folder: Path, small: EmbeddingModel, many: Path, tmp_path: Path
) -> None:
    limited = (
        "import resource, sys; from gte_np.cli import main; resource.setrlimit(resource.RLIMIT_FSIZE, (2600, 2600)); "
        "sys.exit(main(['embed', *sys.argv[1:]]))"
    )
    output = tmp_path / "out.npy"
    arguments = [str(small_folder), str(many), "-o", str(output), "--rows-per-shard", "5"]
    done = subprocess.run([sys.executable, "-c", limited, *arguments], capture_output=True, check=False)
    assert done.stderr.decode() == f"gte-np: error: [Errno 27] File too large: {str(output)!r}\n"
    assert main(["embed", *arguments]) == 0
    lines = many.read_text("utf-8").splitlines()
    assert np.array_equal(np.load(output), small.encode(lines))


# --- equal texts --------------------------------------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are computed."""
    texts: list[str] = []
    encode_windows = EmbeddingModel.encode_windows

    def noting(self: EmbeddingModel, windows: Any, **options: Any) -> Iterator[Any]:
        def noted() -> Iterator[list[str]]:
            for window in windows:
                texts.extend(window)
                yield window

        return encode_windows(self, noted(), **options)

    monkeypatch.setattr(EmbeddingModel, "encode_windows", noting)
    return texts


@pytest.mark.parametrize("size", [1, 3, 100])
def test_equal_texts_are_computed_once(
    small: EmbeddingModel, many: Path, computed: list[str], size: int, tmp_path: Path
) -> None:
    embed(small, many, tmp_path / "out.npy", rows_per_shard=size)
    assert sorted(computed) == sorted({f"happy person {number}" for number in range(13)})


def test_memory_of_vectors_is_bounded(small: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_cache, "MEMORY", (4 * 32 + 400) * 5)
    recent = vector_cache.RecentVectors(32, None)
    vector = vector_cache.Known(np.zeros(32, np.float32), False)
    for number in range(20):
        recent.put({f"text {number}": vector})
    assert list(recent.get(f"text {number}" for number in range(20))) == [f"text {n}" for n in range(15, 20)]


def test_a_cache_is_shared_by_jobs_and_never_mixed(
    small: EmbeddingModel, small_folder: Path, many: Path, computed: list[str], tmp_path: Path
) -> None:
    cache = tmp_path / "cache.sqlite"
    bfloat16 = EmbeddingModel(small_folder, dtype="bfloat16")
    cls = EmbeddingModel(small_folder, pooling="cls")
    lines = many.read_text("utf-8").splitlines()
    cases: list[tuple[EmbeddingModel, dict[str, Any]]] = [
        (small, {}),
        (small, {"prompt": "very "}),
        (small, {"truncate_dim": 8}),
        (bfloat16, {}),
        (cls, {}),
    ]
    for turn in range(2):
        for number, (model, options) in enumerate(cases):
            output = tmp_path / f"out-{turn}-{number}.npy"
            embed(model, many, output, cache=cache, **options)
            assert len(computed) == (0 if turn else 13)
            computed.clear()
            assert np.array_equal(np.load(output), model.encode(lines, **options))


def test_a_broken_cache_is_told_of(small: EmbeddingModel, many: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    cache.write_bytes(b"no database " * 1000)
    with pytest.raises(InputError, match="to be a cache of vectors that can be written"):
        embed(small, many, tmp_path / "out.npy", cache=cache)


# --- the command line ---------------------------------------------------------------------------------------------


def test_the_commands(small_folder: Path, inputs: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    output = str(tmp_path / "out.parquet")
    options = ["--field", "body", "--id", "key", "--keep", "year", "-o", output]
    assert main(["embed", str(small_folder), str(inputs["csv"]), *options]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"gte-np: {output}: 7 texts: 1 repeated, 1 cut, 0 skipped; ")
    assert main(["embed", str(small_folder), str(inputs["csv"]), *options]) == 0
    assert "7 texts, all of them done before" in capsys.readouterr().err
    assert main(["search", output, "北京", "-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["1.0000", "id-1", "北京"]  # and no year, which is padded
    assert len(lines) == 2
    assert main(["search", output, "北京", "-k", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"score": 1.0, "id": "id-1", "year": "", "text": "北京"}]
    assert main(["verify", output, "--sample", "4"]) == 0
    assert capsys.readouterr().out == f"{output}: 4 of 7 vectors computed again, all bits are equal\n"


def test_every_input_format_has_a_name_for_the_command_line() -> None:
    assert list(INPUT_FORMATS) == ["txt", "jsonl", "ndjson", "csv", "tsv", "parquet"]
