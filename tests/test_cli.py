"""gte-np: its commands, its output, and one line for each mistake."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gte_np import KNOWN_MODELS, EmbeddingModel
from gte_np.cli import main
from gte_np.kernels import library
from tests.checkpoints import write_json

TEXTS = ["That is a happy person", "中国的首都是哪里", ""]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    return path


def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command as a person does."""
    command = [sys.executable, "-m", "gte_np", *map(str, arguments)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, input=stdin, capture_output=True, check=False, env=environment)


def test_embed_to_each_format(
    small: EmbeddingModel, small_folder: Path, lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = small.encode(TEXTS)
    for suffix in ("npy", "jsonl", "csv"):
        assert main(["embed", str(small_folder), str(lines), "-o", str(tmp_path / f"out.{suffix}")]) == 0
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    assert np.array_equal(np.array([row["embedding"] for row in rows], np.float32), expected)
    numbers = list(csv.reader((tmp_path / "out.csv").read_text("utf-8").splitlines()))
    assert np.array_equal(np.array(numbers, np.float32), expected)
    assert capsys.readouterr().err == ""


def test_embed_options(small: EmbeddingModel, small_folder: Path, lines: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = ["--format", "npy", "--precision", "binary", "--prompt", "very ", "--no-normalize", "--batch-size", "1"]
    assert main(["embed", str(small_folder), str(lines), "-o", str(output), *options, "--truncate-dim", "16"]) == 0
    expected = small.encode(
        TEXTS, precision="binary", prompt="very ", normalize_embeddings=False, truncate_dim=16, batch_size=1
    )
    assert np.array_equal(np.load(output), expected)


def test_a_pipe(small: EmbeddingModel, small_folder: Path) -> None:
    done = run("embed", small_folder, stdin="\ufeff北京\r\nhappy\rperson".encode())
    rows = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [row["text"] for row in rows] == ["北京", "happy", "person"]
    assert done.stderr == b""
    array = np.load(io.BytesIO(run("embed", small_folder, "--format", "npy", stdin=b"happy").stdout))
    assert np.array_equal(array, small.encode(["happy"]))
    assert run("embed", small_folder, stdin=b"").stdout == b""


def test_a_reader_that_has_enough(small_folder: Path) -> None:
    command = f"{sys.executable} -m gte_np embed {small_folder} | head -n 1"
    done = subprocess.run(["sh", "-c", command], input=b"happy\n" * 3000, capture_output=True, check=True)
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


def test_similarity(small_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["similarity", str(small_folder), "happy person", "今天", "happy person"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "cosine similarity to: happy person"
    assert table[1] == "   1.0000  happy person"
    assert table[2].endswith("今天")
    assert main(["similarity", str(small_folder), "happy person", "今天", "happy person", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["results"][0] == {"text": "happy person", "score": pytest.approx(1, abs=1e-6)}


def test_similarity_takes_the_prompts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = {"query": "今天中午 ", "document": "happy person "}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts})
    assert main(["similarity", str(folder), "a", "a"]) == 0
    assert "1.0000" not in capsys.readouterr().out


def test_output_is_utf_8_whatever_the_terminal(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert "今天" in run("embed", small_folder, stdin="今天".encode()).stdout.decode()


def test_closed_streams(small_folder: Path) -> None:
    for redirection in (">&-", "<&-", "2>&-"):
        command = f"{sys.executable} -m gte_np embed {small_folder} {redirection}"
        done = subprocess.run(["sh", "-c", command], input=b"happy", capture_output=True, check=False)
        assert done.returncode == 0
        assert done.stderr == b""


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 1 + len(KNOWN_MODELS)
    assert table[1].split()[:6] == ["thenlper/gte-large-zh", "zh", "1024", "24", "512", "cls"]
    assert main(["models", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(KNOWN_MODELS)


def test_info(small_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(small_folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["hidden_size"] == 32
    assert facts["tensor_dtypes"] == {"float32": 39}
    layer = 4 * (32 * 32 + 32) + 2 * 32 + (48 * 32 + 48) + (32 * 48 + 32) + 2 * 32
    assert facts["parameters"] == (200 + 64 + 2) * 32 + 2 * 32 + 2 * layer + (32 * 32 + 32)
    assert facts["pooling"] == ["mean"]
    assert facts["modules_after_pooling"] == ["Normalize"]
    assert facts["max_seq_length"] == 64
    assert main(["info", str(small_folder)]) == 0
    assert "hidden_size" in capsys.readouterr().out


def test_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-secret")
    assert main(["doctor"]) == 0
    report = capsys.readouterr().out
    for name in ("python", "numpy", "tokenizers", "processor", "processors usable", "blas", "hub cache"):
        assert f"\n{name} " in f"\n{report}"
    assert "a-secret" not in report
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gte_np"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs the modes of files")
def test_doctor_tells_where_kernels_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def report() -> dict[str, str]:
        assert main(["doctor", "--json"]) == 0
        facts: dict[str, str] = json.loads(capsys.readouterr().out)
        return facts

    shared, own = tmp_path / "shared", tmp_path / "own" / "gte_np"
    for folder in (shared / "gte_np", own):
        folder.mkdir(parents=True)
        for path in library.kept_files():
            shutil.copy(path, folder)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(own.parent))
    assert report()["kernels"].endswith(f"compiled in {own}")
    assert report()["caches of kernels passed over"] == "none"
    shared.chmod(0o777)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(shared))
    assert str(shared) not in report()["kernels"]
    assert report()["caches of kernels passed over"] == f"{shared / 'gte_np'} (others can write to {shared})"
    monkeypatch.setattr(library, "cache_folders", lambda: [shared / "gte_np"])
    assert report()["kernels"].endswith("compiled in nowhere yet")


MISTAKES = [
    ([], "required: COMMAND"),
    (["embd"], "invalid choice: 'embd'"),
    (["embed"], "required: model"),
    (["embed", "{small}", "--batch-size", "many"], "invalid int value"),
    (["embed", "/no/such/folder"], "'/no/such/folder' does not exist"),
    (["embed", "../no/such"], "does not exist"),
    (["embed", "a/../b"], "does not exist"),
    (["embed", "no such name"], "'owner/name'"),
    (["embed", "thenlper/gte-large-zh"], "not in the cache"),
    (["embed", "{small}", "/no/such/file"], "No such file"),
    (["embed", "{small}", "-o", "out.txt"], ".npy, .jsonl or .csv"),
    (["embed", "{small}", "-o", "/no/such/folder/out.npy"], "in a folder that is there"),
    (["embed", "{small}", "--batch-size", "0"], "batch_size to be at least 1"),
    (["embed", "{small}", "--truncate-dim", "100"], "truncate_dim to be from 1 to 32"),
    (["embed", "{small}", "--prompt-name", "x"], "prompt name among"),
    (["embed", "{small}", "--threads", "0"], "threads to be at least 1"),
    (["embed", "{small}", "--pooling", "best"], "pooling mode 'best'"),
    (["similarity", "{small}", "query"], "required: text"),
    (["info", "{small}/config.json"], "folder, got the file"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_status_2(small_folder: Path, arguments: list[str], message: str) -> None:
    done = run(*(argument.replace("{small}", str(small_folder)) for argument in arguments), stdin=b"a\n")
    assert done.returncode == 2
    assert done.stdout == b""
    assert message in done.stderr.decode()
    assert done.stderr.decode().count("\n") == 1
    assert done.stderr.decode().startswith("gte-np")


def test_input_that_is_not_utf_8(small_folder: Path) -> None:
    done = run("embed", small_folder, stdin=b"fine\n\xff\xfe")
    assert done.returncode == 2
    assert done.stderr.decode() == "gte-np: error: expected UTF-8 text in -, got byte 0xff at 5.\n"


def test_cut_texts_are_told_of(small_folder: Path) -> None:
    done = run("embed", small_folder, stdin=b"happy " * 200)
    assert done.stderr.decode() == "gte-np: 1 of 1 texts were cut to 64 tokens.\n"
