"""What may happen to a process amidst a call: it ends in the right error or none, and the model works afterwards.

A longer form of each numbered test: `python -m tests.fuzz KIND --calls N`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from gte_np import EmbeddingModel
from gte_np.kernels.runtime.threads import pool
from tests.fuzz.callers import Report, call_at_once
from tests.fuzz.children import run
from tests.fuzz.kinds import Alarms, Repeated, WrongAnswerError
from tests.fuzz.memory import CAN_LIMIT
from tests.programs import run_program

LINUX = pytest.mark.skipif(not CAN_LIMIT, reason="only Linux limits memory")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs fork or signals")


# --- numbered calls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "calls", "outcomes"),
    [
        pytest.param("pressure", 30, ["answered", "ended by MemoryError"], marks=LINUX),
        pytest.param("loading-pressure", 60, ["answered", "ended by MemoryError"], marks=LINUX),
        pytest.param("alarms", 200, ["answered", "ended by AlarmError", "ended by KeyboardInterrupt"], marks=POSIX),
        ("inputs", 150, ["rows.csv: verified", "rows.parquet: refused by InputError"]),
        ("deaths", 20, ["ended by AlarmError"]),
        pytest.param("forks", 20, ["answered"], marks=POSIX),
        ("repeated", 600, ["encoded", "refused", "loaded int8"]),
    ],
)
def test_numbered_calls(kind: str, calls: int, outcomes: list[str]) -> None:
    result = run(kind, seed=0, calls=calls)
    assert result.findings == []
    assert sum(result.counts.values()) == calls
    assert set(outcomes) <= set(result.counts)


def test_threads_that_encode_while_others_load() -> None:
    report = call_at_once(2, samples=9)
    assert (report.wrong, len(set(report.files))) == (0, 1)
    assert report.calls > 20
    assert report.loads > 5


@pytest.mark.parametrize(
    ("change", "is_wrong"),
    [
        ({}, False),
        ({"wrong": 1}, True),
        ({"megabytes": [100, 100, 130, 130, 145, 145]}, True),
        ({"megabytes": [100, 130, 130, 130, 131, 130]}, False),
        ({"files": [5, 5, 5, 6, 5, 5]}, True),
    ],
)
def test_what_a_report_says(change: dict[str, Any], is_wrong: bool) -> None:
    report = Report(calls=1, loads=1, wrong=0, megabytes=[100] * 6, files=[5] * 6)
    assert report._replace(**change).is_wrong() is is_wrong


@LINUX
def test_that_what_is_kept_is_found(tmp_path: Path) -> None:
    """A file that stays open, and memory that grows."""
    Repeated.write(tmp_path)
    kind = Repeated(tmp_path)
    kind.warm_up()
    kind.most_growth = -(10**12)
    for number in range(99):
        kind.call(Random(number))
    with pytest.raises(WrongAnswerError, match="bytes of memory"):
        kind.call(Random(99))
    with (tmp_path / "another").open("wb"), pytest.raises(WrongAnswerError, match="open files"):
        kind.call(Random(0))


@POSIX
def test_that_a_broken_model_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that gives other vectors after an interrupt."""
    Alarms.write(tmp_path)
    kind = Alarms(tmp_path)
    kind.warm_up()
    monkeypatch.setattr(kind, "disturb", lambda random, texts: kind.model.encode(texts) + 1)
    with pytest.raises(WrongAnswerError, match="other vectors"):
        kind.call(Random(0))


# --- threads that cannot be had -------------------------------------------------------------------------------------

NO_THREADS = """
import sys
import numpy as np
from gte_np import BackendError, EmbeddingModel
from gte_np.kernels.runtime import threads
from tests.fuzz.memory import growth_limited

model = EmbeddingModel(sys.argv[1], backend="numba", threads=40)
one = EmbeddingModel(sys.argv[1], backend="numba", threads=1)
expected = one.encode(["happy person"])
threads._pool = threads.ThreadPool()  # that has no threads yet
try:
    with growth_limited(20_000_000):  # a thread's stack takes some megabytes
        model.encode(["happy person"])
except BackendError as error:
    print(str(error)[:52])
assert np.array_equal(model.encode(["happy person"]), expected)
"""


@LINUX
def test_threads_for_which_there_is_no_memory(small_folder: Path) -> None:
    assert run_program(NO_THREADS, small_folder) == "expected the system to start another thread, got: ca\n"


# --- the caller's own code ------------------------------------------------------------------------------------------


class CallerError(Exception):
    """What a caller's code raises."""


class Sentences(Sequence[str]):
    """Texts of a caller, the fourth of which cannot be had."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: Any) -> Any:
        if index == 3:
            raise CallerError
        if index > 5:
            raise IndexError
        return "happy"


class Prompts(Mapping[str, str]):
    """Prompts of a caller, none of which can be had."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        yield "query"

    def __getitem__(self, key: str) -> str:
        raise CallerError


def refuse(*_: object) -> bool:
    raise CallerError


def encode_sentences(model: EmbeddingModel) -> None:
    model.encode(Sentences())


def set_prompts(model: EmbeddingModel) -> None:
    model.prompts = Prompts()


def log_a_warning(model: EmbeddingModel) -> None:
    logger = logging.getLogger("gte_np")
    logger.addFilter(refuse)
    try:
        model.encode(["happy " * 1000])
    finally:
        logger.removeFilter(refuse)


def show_progress(model: EmbeddingModel) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tqdm.tqdm.update", refuse)
        model.encode(["happy"] * 50, batch_size=3, show_progress_bar=True)


def finish(model: EmbeddingModel) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "isfinite", refuse)  # of NumPy, amidst a call
        model.encode(["happy"])


@pytest.mark.parametrize("call", [encode_sentences, set_prompts, log_a_warning, show_progress, finish])
def test_an_error_of_the_caller_s_code(call: Callable[[EmbeddingModel], None], small_folder: Path) -> None:
    """It comes out as it is, and nothing is left behind."""
    model = EmbeddingModel(small_folder, backend="numba", threads=2)
    expected, prompts = model.encode(["happy person", "北京"]), dict(model.prompts)
    with pytest.raises(CallerError):
        call(model)
    assert (pool()._at_work, list(pool()._waiting), model.prompts) == (0, [], prompts)
    assert np.array_equal(model.encode(["happy person", "北京"]), expected)


# --- the end of a process -------------------------------------------------------------------------------------------

AT_EXIT = """
import atexit, sys, threading, time, weakref
import numpy as np
from gte_np import EmbeddingModel

model = EmbeddingModel(sys.argv[1], backend="numba", threads=3)
texts = [f"number {number}" for number in range(50)]
expected = model.encode(texts)

def encode(name):
    assert np.array_equal(model.encode(texts), expected)
    print(name, flush=True)

class Last:
    '''An object that encodes when it goes.'''

    def __del__(self):
        encode("deleted")
"""

ENDS = {
    "at exit": """
atexit.register(encode, "at exit")
""",
    "at exit, beside threads that go on": """
def encode_on():
    while True:
        model.encode(texts)

for _ in range(3):
    threading.Thread(target=encode_on, daemon=True).start()
atexit.register(encode, "at exit")
time.sleep(0.1)
""",
    "a thread that outlives the main one": """
def encode_later():
    threading.main_thread().join()
    encode("later")

threading.Thread(target=encode_later).start()
""",
    "by a finalizer": """
weakref.finalize(model, print, "finalized")
atexit.register(encode, "at exit")
""",
    "by an object that goes": """
last = Last()
del last
last = Last()
atexit.register(globals().pop, "last")
""",
    "an exit beside a thread": """
threading.Thread(target=encode, args=["in a thread"]).start()
sys.exit(0)
""",
}
PRINTED = {
    "at exit": ["at exit"],
    "at exit, beside threads that go on": ["at exit"],
    "a thread that outlives the main one": ["later"],
    "by a finalizer": ["at exit", "finalized"],
    "by an object that goes": ["deleted", "deleted"],
    "an exit beside a thread": ["in a thread"],
}


@pytest.mark.parametrize("end", ENDS)
def test_encoding_while_the_process_ends(end: str, small_folder: Path) -> None:
    assert sorted(run_program(AT_EXIT + ENDS[end], small_folder).splitlines()) == PRINTED[end]
