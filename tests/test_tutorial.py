"""The tutorial of the reference: its code runs, and prints what it says."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TUTORIAL = ROOT / "gte_np" / "reference" / "README.md"
TEXT = TUTORIAL.read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
DEFINITIONS = [block for block in BLOCKS if not block.startswith(">>>")]
NUMBER = r"-?\d+\.\d+"
# Numbers are printed to two to four digits, the scores to one; sums may round the last one to its neighbour.
LAST_DIGITS = {1: 0.11, 2: 0.011, 3: 0.0011, 4: 0.00011}


class Checker(doctest.OutputChecker):
    """Compares output as it stands, but for the last digit of a number with a decimal point."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        """Whether the output is the expected one."""
        numbers = zip(re.findall(NUMBER, want), re.findall(NUMBER, got), strict=False)
        close = all(
            abs(float(left) - float(right)) <= LAST_DIGITS[len(left.split(".")[1])] for left, right in numbers
        )
        return close and re.sub(NUMBER, "_", want).split() == re.sub(NUMBER, "_", got).split()


def run(session: str, names: dict[str, Any]) -> doctest.TestResults:
    """Run a session with the names that earlier blocks have left, and keep those that it leaves."""
    runner = doctest.DocTestRunner(Checker())
    test = doctest.DocTestParser().get_doctest(session, names, "README.md", str(TUTORIAL), 0)
    results = runner.run(test, clear_globs=False)
    names.update(test.globs)  # a test has a copy of its names
    return results


def test_the_tutorial_says_what_its_code_prints(minilm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert minilm_folder == ROOT / ".models" / "all-MiniLM-L6-v2"
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    examples = 0
    for block in BLOCKS:
        if block in DEFINITIONS:
            exec(compile(block, "README.md", "exec"), names)
        else:
            results = run(block, names)
            assert results.failed == 0, block
            examples += results.attempted
    assert examples > 60


def test_the_session_fails_where_the_output_is_another() -> None:
    names: dict[str, Any] = {}
    for session in (">>> 1 + 1\n3\n", ">>> print(0.25)\n0.27\n", ">>> True\nFalse\n", ">>> print(0.5, 0.5)\n0.5\n"):
        assert run(session, names).failed == 1
    assert run(">>> print(0.25)\n0.26\n", names).failed == 0


def test_the_encoder_has_about_fifty_lines() -> None:
    lines = [line for block in DEFINITIONS[1:] for line in block.splitlines() if line.strip()]
    assert 40 <= len(lines) <= 55


def test_no_check_of_the_tutorial_fails() -> None:
    assert not re.search(r"^(\d+ )?False$", TEXT, re.MULTILINE)
    assert len(re.findall(r"^(\d+ )?True$", TEXT, re.MULTILINE)) > 15
