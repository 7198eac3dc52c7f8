"""gte-np: its commands, its output, and one line for each mistake."""

from __future__ import annotations

import argparse
import csv
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gte_np import KNOWN_MODELS, EmbeddingModel, __version__
from gte_np.cli import _make_parser, main
from gte_np.kernels.runtime import object_cache
from tests.checkpoints import write_json

FORMATS = ("npy", "parquet", "arrow", "jsonl", "csv")
STREAMED = ("jsonl", "csv")
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
    for suffix in FORMATS:
        assert main(["embed", str(small_folder), str(lines), "-o", str(tmp_path / f"out.{suffix}")]) == 0
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [(row["id"], row["text"]) for row in rows] == list(enumerate(TEXTS))
    assert np.array_equal(np.array([row["embedding"] for row in rows], np.float32), expected)
    header, *rows = csv.reader((tmp_path / "out.csv").read_text("utf-8").splitlines())
    assert header[:3] == ["id", "text", "embedding_0"]
    assert [row[1] for row in rows] == TEXTS
    assert np.array_equal(np.array([row[2:] for row in rows], np.float32), expected)
    assert capsys.readouterr().err.count("3 texts: 0 repeated, 0 cut, 0 skipped; ") == len(FORMATS)


def test_embed_options(small: EmbeddingModel, small_folder: Path, lines: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    options = ["--precision", "binary", "--prompt", "very ", "--no-normalize", "--batch-size", "1"]
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
    assert np.array_equal(np.array([rows[1]["embedding"]], np.float32), small.encode(["happy"]))
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
        for path in object_cache.kept_files():
            shutil.copy(path, folder)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(own.parent))
    assert report()["kernels"].endswith(f"compiled in {own}")
    assert report()["caches of kernels passed over"] == "none"
    shared.chmod(0o777)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(shared))
    assert str(shared) not in report()["kernels"]
    assert report()["caches of kernels passed over"] == f"{shared / 'gte_np'} (others can write to {shared})"
    monkeypatch.setattr(object_cache, "cache_folders", lambda: [shared / "gte_np"])
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
    (["embed", "{small}", "-o", "out.txt"], ".npy, .parquet, .arrow, .jsonl, .csv, or a folder"),
    (["embed", "{small}", "-o", "out.npy", "--format", "csv"], "ends in .csv, or a folder"),
    (["embed", "{small}", "--format", "npy"], "jsonl or csv for standard output"),
    (["embed", "{small}", "--precision", "int8"], "--ranges FILE with int8 on standard output"),
    (["embed", "{small}", "in.docx"], "an input that ends in txt, jsonl"),
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
    for before, line, characters in ((b"fine\n", 2, 0), ("\ufeffa\r\nb\r\n\r北京".encode(), 4, 2), (b"a", 1, 1)):
        done = run("embed", small_folder, stdin=before + b"\xff\xfe\nmore")
        assert done.returncode == 2
        assert done.stderr.decode() == (
            f"gte-np: error: standard input, line {line}: expected UTF-8 text, got byte 0xff after {characters} "
            "characters. --on-error skip leaves out such rows.\n"
        )


def test_cut_texts_are_told_of(small_folder: Path) -> None:
    done = run("embed", small_folder, stdin=b"happy " * 200)
    assert done.stderr.decode() == "gte-np: 1 of 1 texts were cut to 64 tokens.\n"


# --- output that is whole or not there ---------------------------------------------------------------------------

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs pipes, modes, limits and signals of POSIX")
OLD = b"the old output, which took a night"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An output of an earlier run, alone in its folder."""
    path = tmp_path / "outputs" / "old.csv"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


def is_as_before(old: Path) -> bool:
    """Whether the old output is what it was, and nothing is beside it."""
    return old.read_bytes() == OLD and list(old.parent.iterdir()) == [old]


def fail(*arguments: object, **options: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize("name", ["texts.csv", "symbolic", "hard"])
def test_the_input_is_not_replaced(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_bytes(OLD)
    (tmp_path / "symbolic").symlink_to(texts)
    (tmp_path / "hard").hardlink_to(texts)
    for source, target in ((texts, tmp_path / name), (tmp_path / name, texts)):
        assert main(["embed", "/no/such/model", str(source), "-o", str(target)]) == 2
        assert "expected an output that is not the input" in capsys.readouterr().err
    assert texts.read_bytes() == OLD


@pytest.mark.parametrize("redirections", ["- -o f.csv < f.csv", "f.csv >> f.csv", "f.csv -o /dev/stdout >> f.csv"])
@POSIX
def test_the_input_is_not_replaced_by_another_name(redirections: str, tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes(OLD)
    command = f"{sys.executable} -m gte_np embed /no/such/model {redirections} --format csv"
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert b"expected an output that is not the input" in done.stderr
    assert (tmp_path / "f.csv").read_bytes() == OLD


def test_an_output_that_cannot_be_written_is_told_of_before_the_work(
    lines: Path, old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder.npy"
    folder.mkdir()

    def error_of(output: Path) -> str:
        assert main(["embed", "/no/such/model", str(lines), "--force", "-o", str(output)]) == 2
        return capsys.readouterr().err

    assert "which has other files" in error_of(tmp_path)
    assert error_of(folder) == f"gte-np: error: expected a file to write to, got the folder {str(folder)!r}.\n"
    assert "in a folder that is there" in error_of(tmp_path / "missing" / "out.npy")
    assert "File name too long: " in error_of(tmp_path / ("a" * 300))
    with monkeypatch.context() as context:
        context.setattr(Path, "mkdir", fail)  # as in a folder that is read-only
        new = tmp_path / "outputs" / "new.npy"
        assert error_of(new) == f"gte-np: error: [Errno 13] Permission denied: {str(new)!r}\n"
    monkeypatch.setattr(os, "access", lambda *_: False)  # as of a file that is read-only
    assert error_of(old) == f"gte-np: error: [Errno 13] Permission denied: {str(old)!r}\n"
    assert is_as_before(old)


def test_a_mistake_leaves_the_old_output(small_folder: Path, lines: Path, old: Path) -> None:
    assert main(["embed", str(small_folder), str(lines), "-o", str(old), "--batch-size", "0"]) == 2
    assert is_as_before(old)


LIMITED = """
import resource, sys
from gte_np.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
sys.exit(main(["embed", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("file_format", FORMATS)
@POSIX
def test_a_full_disk_leaves_the_old_output(file_format: str, small_folder: Path, lines: Path, old: Path) -> None:
    old = old.rename(old.with_suffix(f".{file_format}"))
    arguments = [small_folder, lines, "-o", old, "--force"]
    done = subprocess.run([sys.executable, "-c", LIMITED, *map(str, arguments)], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.decode() == f"gte-np: error: [Errno 27] File too large: {str(old)!r}\n"
    assert is_as_before(old)


@pytest.mark.parametrize("file_format", STREAMED)
@pytest.mark.parametrize("flags", [[], ["-u"]])  # Python's unbuffered output does not tell of what it leaves out
@POSIX
def test_a_full_disk_is_told_of_on_standard_output(
    flags: list[str], file_format: str, small_folder: Path, lines: Path, tmp_path: Path
) -> None:
    arguments = [*flags, "-c", LIMITED, str(small_folder), str(lines), "--format", file_format]
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    with (tmp_path / "out").open("wb") as output:
        done = subprocess.run(
            [sys.executable, *arguments], stdout=output, stderr=subprocess.PIPE, check=False, env=environment
        )
    assert done.returncode == 2
    assert done.stderr == b"gte-np: error: [Errno 27] File too large: 'standard output'\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize("file_format", STREAMED)
@pytest.mark.parametrize("output", ["/dev/full", "standard output"])
def test_a_full_device(file_format: str, output: str, small_folder: Path, lines: Path) -> None:
    where = "> /dev/full" if output == "standard output" else f"-o {output}"
    for flags in ("", "-u"):
        embed = f"{sys.executable} {flags} -m gte_np embed {small_folder} {lines} --format {file_format}"
        command = f"PYTHONUNBUFFERED= {embed} {where}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
        assert done.returncode == 2
        assert done.stderr.decode() == f"gte-np: error: [Errno 28] No space left on device: {output!r}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize("flags", ["", "-u"])
def test_a_full_device_for_what_is_printed(flags: str) -> None:
    command = f"PYTHONUNBUFFERED= {sys.executable} {flags} -m gte_np models > /dev/full"
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr == b"gte-np: error: [Errno 28] No space left on device: 'standard output'\n"


@POSIX
def test_a_replaced_output_keeps_its_mode_and_its_links(
    small: EmbeddingModel, small_folder: Path, lines: Path, old: Path, tmp_path: Path
) -> None:
    old.chmod(0o640)
    (tmp_path / "link.npy").symlink_to(old)
    (tmp_path / "dangling.npy").symlink_to("new")
    for name in ("link.npy", "dangling.npy"):
        assert main(["embed", str(small_folder), str(lines), "-o", str(tmp_path / name), "--force"]) == 0
    assert (tmp_path / "link.npy").readlink() == old
    assert (tmp_path / "dangling.npy").readlink() == Path("new")
    assert old.stat().st_mode & 0o777 == 0o640
    lines.with_name("reference").write_text("", "utf-8")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "reference").stat().st_mode
    for path in (old, tmp_path / "new"):
        assert np.array_equal(np.load(path), small.encode(TEXTS))


@POSIX
@pytest.mark.parametrize("file_format", STREAMED)
def test_devices_and_pipes_are_written_directly(
    file_format: str, small_folder: Path, lines: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    embed = f"{sys.executable} -m gte_np embed {small_folder} {lines} --format {file_format}"
    for command in (
        f"{embed} > plain",
        f"{embed} -o pipe & cat pipe > piped; wait $!",
        f"{embed} -o /dev/stdout | cat > through-stdout",
        f"({embed} -o /dev/fd/3 | cat) 3>&1 | cat > through-descriptor",
        f"(printf before; {embed} -o /dev/stdout; printf after) > within",
        f"{embed} -o /dev/null",
    ):
        subprocess.run(["sh", "-c", command], check=True, cwd=tmp_path)
    expected = (tmp_path / "plain").read_bytes()
    for name in ("piped", "through-stdout", "through-descriptor"):
        assert (tmp_path / name).read_bytes() == expected
    assert (tmp_path / "within").read_bytes() == b"before" + expected + b"after"
    assert (tmp_path / "pipe").is_fifo()
    assert Path("/dev/null").is_char_device()


def test_an_array_is_what_numpy_saves(small: EmbeddingModel, small_folder: Path, lines: Path, tmp_path: Path) -> None:
    for texts in (TEXTS, []):
        lines.write_text("".join(f"{text}\n" for text in texts), "utf-8")
        assert main(["embed", str(small_folder), str(lines), "-o", str(tmp_path / "out.npy"), "--force"]) == 0
        np.save(tmp_path / "numpy.npy", small.encode(texts))
        assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


# --- help ---------------------------------------------------------------------------------------------------------


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"gte-np {__version__}\n"


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


def test_every_option_has_help_and_tells_its_default() -> None:
    count = 0
    for parser in parsers(_make_parser()):
        text = " ".join(parser.format_help().split())
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                continue
            name = f"{parser.prog} {action.option_strings or action.dest}"
            assert action.help, name
            assert action.help is not argparse.SUPPRESS, name
            if action.default not in (None, False, argparse.SUPPRESS):
                assert "(default: %(default)s)" in action.help, name
                assert f"(default: {action.default})" in text, name
            count += 1
    assert count > 50


def test_mteb_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    monkeypatch.delitem(sys.modules, "gte_np.integrations.mteb", raising=False)
    assert main(["mteb", "model", "AFQMC"]) == 2
    assert capsys.readouterr().err.endswith("which is not installed: pip install 'gte_np[mteb]'.\n")
