"""The commands of CORPUS.md, on a few lines of its corpus."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parent.parent / "CORPUS.md").read_text("utf-8")
LICENCE = "  1 This software and database is being provided to you, the LICENSEE  \n"
LINES = {
    "noun": [
        "00000001 03 n 01 entity 0 001 ~ 00000002 n 0000 | that which exists  \n",
        '02686568 06 n 01 aircraft 0 001 @ 04524313 n 0000 | a vehicle that can fly; "it flew"  \n',
    ],
    "verb": ["00000003 29 v 02 breathe 0 take_a_breath 0 000 01 + 02 00 | draw air into the lungs  \n"],
    "adj": ["00000005 00 s 01 able 0 000 | having the power  \n"],
    "adv": ["00000006 02 r 01 barely 0 000 | only just  \n"],
}
ROWS = [
    {"id": "n00000001", "word": "entity", "text": "that which exists"},
    {"id": "n02686568", "word": "aircraft", "text": "a vehicle that can fly"},
    {"id": "v00000003", "word": "breathe, take a breath", "text": "draw air into the lungs"},
    {"id": "s00000005", "word": "able", "text": "having the power"},
    {"id": "r00000006", "word": "barely", "text": "only just"},
]


@pytest.fixture
def folder(tmp_path: Path, minilm_folder: Path) -> Path:
    """A folder with the model and a corpus of five lines where the package of Debian would be."""
    (tmp_path / ".models").mkdir()
    (tmp_path / ".models" / minilm_folder.name).symlink_to(minilm_folder.resolve())
    place = tmp_path / "wordnet/usr/share/wordnet"
    place.mkdir(parents=True)
    for name, lines in LINES.items():
        (place / f"data.{name}").write_text(LICENCE + "".join(lines), "utf-8")
    return tmp_path


def test_the_page_of_a_corpus(folder: Path) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    subprocess.run([sys.executable, "-c", snippet], cwd=folder, check=True, timeout=60)
    assert [json.loads(line) for line in (folder / "corpus.jsonl").read_text("utf-8").splitlines()] == ROWS
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    commands = re.findall(r"^\$ (gte-np .*)$", PAGE, re.MULTILINE)
    said = {}
    for command in commands:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=folder, env=os.environ | {"PATH": programs}, timeout=120,
            capture_output=True, check=True, text=True, encoding="utf-8",
        )  # fmt: skip
        said[command] = done.stdout + done.stderr
    flying = next(text for command, text in said.items() if "flies" in command)
    assert flying.splitlines()[0].endswith("  n02686568  aircraft                a vehicle that can fly")
    assert {command.split()[1] for command in commands} == {"embed", "search", "verify"}
