"""Exact search in the output of a job, against a sort of all cosines."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import EmbeddingModel
from gte_np.cli import main
from gte_np.errors import InputError
from gte_np.jobs import Job, JobOptions, Place, Results, run_job, search

TEXTS = [f"text number {number % 30}" for number in range(100)]  # most of them several times


@pytest.fixture(scope="module", params=["vectors.npy", "vectors"])
def results(request: Any, small: EmbeddingModel, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A file, and a folder of shards."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "texts.txt").write_text("\n".join(TEXTS), "utf-8")
    output = str(folder / request.param)
    run_job(Job(small, [str(folder / "texts.txt")], JobOptions(rows_per_shard=37)), Place.find(output, None))
    return Results(output)


@pytest.mark.parametrize("top_k", [1, 7, 99, 100, 1000])
@pytest.mark.parametrize("rows", [1, 8, 1000])
def test_the_best_rows_are_those_of_a_sort(
    top_k: int, rows: int, results: Results, small: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("gte_np.jobs.search")  # the package has a function of this name
    monkeypatch.setattr(module, "_ROWS", rows)
    monkeypatch.setattr(module, "_ROWS_IN_CACHE", 3)
    query = small.encode("number 7")
    hits = search(results, query, top_k)
    cosines = np.einsum("ij,j->i", small.encode(TEXTS, normalize_embeddings=True), query / np.linalg.norm(query))
    first = {text: number for number, text in reversed(list(enumerate(TEXTS)))}
    order = sorted(range(len(TEXTS)), key=lambda number: (-cosines[first[TEXTS[number]]], number))[:top_k]
    assert [hit.number for hit in hits] == order  # equal vectors in the order of their rows
    assert [hit.score for hit in hits] == pytest.approx(cosines[order].tolist(), abs=1e-6)
    assert [hit.row for hit in hits] == [{"id": number, "text": TEXTS[number]} for number in order]


def test_what_cannot_be_searched(results: Results, small: EmbeddingModel) -> None:
    with pytest.raises(InputError, match="expected top_k to be at least 1, got 0"):
        search(results, small.encode("a"), 0)
    with pytest.raises(InputError, match="expected a query of 32 dimensions, as the output has, got 8"):
        search(results, small.encode("a", truncate_dim=8), 1)


def test_an_unfinished_output_is_named(tmp_path: Path) -> None:
    (tmp_path / "vectors.npy.parts").mkdir()
    with pytest.raises(InputError, match=r"vectors.npy', which is not finished: give the same gte-np embed again"):
        Results(str(tmp_path / "vectors.npy"))
    with pytest.raises(InputError, match="which does not exist"):
        Results(str(tmp_path / "other.npy"))


def test_kept_fields_are_shown_in_columns(small_folder: Path, tmp_path: Path, capsys: Any) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(f"key,word,year,text\nk1,one,,first\nk22,{'long ' * 20},2001,{'second ' * 20}\n", "utf-8")
    output = str(tmp_path / "rows.npy")
    options = ["--id", "key", "--keep", "word", "--keep", "year", "-o", output]
    assert main(["embed", str(small_folder), str(rows), *options]) == 0
    capsys.readouterr()
    assert main(["search", output, "first"]) == 0
    lines = {line[11:].split()[0]: line[11:] for line in capsys.readouterr().out.splitlines()}
    word, text = ("long " * 20)[:37] + "...", ("second " * 20)[:97] + "..."
    assert lines == {"k1": f"k1   {'one':<40}        first", "k22": f"k22  {word}  2001  {text}"}
