"""Fixtures that several tests share."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from gte_np import EmbeddingModel
from gte_np.kernels.runtime.object_cache import compile_all
from scripts.fetch_minilm import FOLDER, is_complete
from tests.checkpoints import small_model
from tests.compiled import RUNNABLE, WIDTHS

# Modules of helpers whose failed assertions are to show what they compared; pytest finds the tests' own.
pytest.register_assert_rewrite("tests.emulation.matrix_units", "tests.hub_server", "tests.programs")

# A shell's background jobs ignore it, and so would the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _kernels() -> None:
    """Compile the kernels before the tests, some of which look at all that a process says."""
    compile_all()


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """all-MiniLM-L6-v2's published files."""
    assert is_complete(FOLDER), "run python -m scripts.fetch_minilm first, or make test"
    return FOLDER


@pytest.fixture(scope="session", params=["numpy", "numba"])
def minilm(request: pytest.FixtureRequest, minilm_folder: Path) -> EmbeddingModel:
    """all-MiniLM-L6-v2 on each backend."""
    return EmbeddingModel(minilm_folder, backend=request.param)


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights; read it, do not change it."""
    return small_model(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def small(small_folder: Path) -> EmbeddingModel:
    """The small model, loaded; do not change it."""
    return EmbeddingModel(small_folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model of one's own, to break."""
    return small_model(tmp_path / "model")


@pytest.fixture(scope="module", params=RUNNABLE.values(), ids=list(RUNNABLE))
def target(request: pytest.FixtureRequest) -> Any:
    """Every target that this processor runs, one after the other."""
    return request.param


@pytest.fixture(scope="module", params=WIDTHS.values(), ids=list(WIDTHS))
def target_of_width(request: pytest.FixtureRequest) -> Any:
    """A target of each width of vectors, one after the other."""
    return request.param
