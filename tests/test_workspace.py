"""Memory: a run's buffers are used again, and what is resident follows neither the texts nor the callers."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import EmbeddingModel, TokenBatch
from gte_np.encoder_interface import EncoderInput
from gte_np.kernels.runtime import kernel_encoder as encoder_module
from gte_np.kernels.runtime.threads import available_processors
from gte_np.kernels.runtime.workspace import Workspace
from tests.programs import run_program


def new_encoder(folder: Path, threads: int | None = None) -> Any:
    """The encoder of a model that is loaded now."""
    return EmbeddingModel(folder, backend="numba", threads=threads).bert._encoder


def run(encoder: Any, *lengths: int) -> Any:
    """The hidden states that an encoder gives for texts of these lengths."""
    batch = TokenBatch.from_ids([[7] * length for length in lengths])
    return encoder(EncoderInput(batch, encoder.config)).last_hidden_state


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Workspace]:
    """The workspaces that encoders make from now on."""
    workspaces: list[Workspace] = []

    class Watched(Workspace):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            workspaces.append(self)

    monkeypatch.setattr(encoder_module, "Workspace", Watched)
    return workspaces


def test_a_workspace_is_used_again(small_folder: Path, made: list[Workspace]) -> None:
    encoder = new_encoder(small_folder, threads=1)
    for lengths in ([3], [64], [1, 64, 2], [64] * 30, [5] * 300):
        run(encoder, *lengths)
    assert len(made) == 1
    assert encoder._idle == made


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_workspaces_do_not_pile_up(threads: int, small_folder: Path) -> None:
    """As many as were at work at once, however many callers there are."""
    encoder = new_encoder(small_folder, threads)
    everybody = threading.Barrier(24)

    def encode_often(number: int) -> None:
        everybody.wait(30)
        for count in range(1, 30):
            run(encoder, *[1 + number] * count)

    with ThreadPoolExecutor(24) as executor:
        for future in [executor.submit(encode_often, number) for number in range(24)]:
            future.result(60)
    assert len({id(workspace) for workspace in encoder._idle}) == len(encoder._idle)
    assert len(encoder._idle) <= max(threads, available_processors())


def test_a_workspace_of_before_changes_nothing(small_folder: Path) -> None:
    """Whatever was left in the buffers."""
    encoder, expected = new_encoder(small_folder, threads=1), new_encoder(small_folder, threads=1)
    for lengths in [(3,), (2, 64, 1), (17,)]:
        first = run(new_encoder(small_folder, threads=1), *lengths)
        run(encoder, *[64] * 8)
        encoder._idle[0]._memory.fill(np.nan)
        assert np.array_equal(run(encoder, *lengths), first)
        assert np.array_equal(run(expected, *lengths), first)


MEMORY = """
import resource, sys, gte_np

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

model = gte_np.EmbeddingModel(sys.argv[1], backend="numba")
texts = [f"number {number}" for number in range(22_000)]
model.encode(texts[:2000])
before = peak()
vectors = model.encode(texts[2000:])
print(peak() - before, vectors.nbytes)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs the peak of memory")
def test_memory_follows_the_results(small_folder: Path) -> None:
    growth, results = map(int, run_program(MEMORY, small_folder).split())
    assert results == 20_000 * 32 * 4
    # The vectors, in batches and then in one array; for each text a view, a number and an entry of a dictionary.
    assert growth < 2 * results + 20_000 * 300 + (8 << 20)


CALLERS = """
import resource, sys, threading, gte_np

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

model = gte_np.EmbeddingModel(sys.argv[1], backend="numba")
texts = [f"number {number} is happy" for number in range(400)]

def encode_by(count):
    callers = [threading.Thread(target=model.encode, args=[texts]) for _ in range(count)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

encode_by(8)
before = peak()
for _ in range(8):
    encode_by(8)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs the peak of memory")
def test_memory_does_not_follow_the_callers(small_folder: Path) -> None:
    assert int(run_program(CALLERS, small_folder)) < 8 << 20
