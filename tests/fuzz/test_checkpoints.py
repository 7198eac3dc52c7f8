"""Damaged models: each is loaded and gives finite vectors, or is refused by a GteError, within limits."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random

import numpy as np
import pytest

from gte_np import EmbeddingModel, GteError
from tests.fuzz import children
from tests.fuzz.children import run
from tests.fuzz.kinds import Kind, check_model, outcome_of
from tests.fuzz.models import FORMS, files_of, write_changed, write_forms

CORPUS = Path(__file__).parent / "corpus"  # form / case / files that failed once


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forms")
    write_forms(folder)
    return folder


def test_numbered_calls() -> None:
    """Each form is read and refused: a harness that broke them all, or none, would show nothing."""
    result = run("checkpoints", seed=0, calls=400)
    assert result.findings == []
    assert sum(result.counts.values()) == 400
    for form in FORMS:
        assert result.counts[f"{form}: finite vectors"] > 5
        assert result.counts[f"{form}: refused by CheckpointError"] > 5


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("case", sorted(CORPUS.glob("*/*")), ids=lambda case: f"{case.parent.name}: {case.name}")
def test_what_failed_once(case: Path, backend: str, forms: Path, tmp_path: Path) -> None:
    folder = write_changed(tmp_path / "model", forms / case.parent.name, files_of(case))
    assert outcome_of(folder, backend)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_has_the_vectors_of_its_dtype(form: str, forms: Path) -> None:
    """What is damaged is a model in all of its files."""
    dtype = form if form in ("bfloat16", "int8") else None
    expected = EmbeddingModel(forms / "published", dtype=dtype, backend="numba").encode(["happy"])
    np.testing.assert_allclose(EmbeddingModel(forms / form, backend="numba").encode(["happy"]), expected, atol=1e-6)


# --- what the harness finds -----------------------------------------------------------------------------------------


class Mistake(Kind):
    """Calls of which the third does what is asked for by the environment, which children have, too."""

    mistake = "MISTAKE_OF_A_TEST"

    @staticmethod
    def write(folder: Path) -> None:
        pass

    def warm_up(self) -> None:
        self._number = 0

    def call(self, random: Random) -> Mapping[str, int]:
        self._number += 1
        if self._number == 3:
            MISTAKES[os.environ[self.mistake]]()
        return {"well": 1}


def allocate() -> None:
    np.ones(1 << 29)


def hang() -> None:
    time.sleep(100)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def fail() -> None:
    raise KeyError


MISTAKES = {"allocate": allocate, "hang": hang, "crash": crash, "fail": fail}
FOUND = {"allocate": "MemoryError", "hang": "Timeout", "crash": "Segmentation fault", "fail": "KeyError"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory, and names its signals so")
@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_that_a_mistake_is_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import sys\n"
        "from tests.fuzz import children, test_checkpoints\n"
        "children.KINDS = {'mistake': test_checkpoints.Mistake}\n"
        "children.LONGEST_CALL = 1\n"
        "children.work(children.Path(sys.argv[1]), children.Part(sys.argv[2], *map(int, sys.argv[3:])))"
    )
    monkeypatch.setenv(Mistake.mistake, mistake)
    monkeypatch.setattr(children, "KINDS", {"mistake": Mistake})
    monkeypatch.setattr(children, "COMMAND", (sys.executable, "-c", program))
    result = run("mistake", seed=0, calls=5)
    [finding] = result.findings
    assert finding["number"] == 2
    assert FOUND[mistake] in finding["found"]
    assert result.counts["well"] == 4


def test_that_wrong_vectors_are_found(forms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (np.nan, np.inf):
        with monkeypatch.context() as patch:
            patch.setattr(EmbeddingModel, "encode", lambda self, texts, wrong=wrong: np.full((4, 40), wrong, "f4"))
            with pytest.raises(AssertionError, match="not finite"):
                check_model(forms / "published", "numba")


def test_that_an_error_of_two_lines_is_found(forms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = GteError("expected")
    error.args = ("two\nlines",)

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(EmbeddingModel, "encode", refuse)
    with pytest.raises(AssertionError, match="several lines"):
        outcome_of(forms / "published", "numba")
