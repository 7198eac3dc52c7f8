"""Processes that are forked while others compile, load or tokenize: they work, or one error tells what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import run_program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

FORK = """
import os, signal, sys, threading, time, warnings
from contextlib import suppress

warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons: that the parent has threads

def fork(work, seconds=100):
    '''Fork, and have a child that does this work and ends well, or is ended.'''
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(seconds)
            work()
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"child: {os.waitstatus_to_exitcode(status)}"

def begin(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
"""

# --- real work ----------------------------------------------------------------------------------------------------

COMPILING = """
import logging, tempfile
from pathlib import Path
import numpy as np
from gte_np import EmbeddingModel
from gte_np.kernels.runtime import object_cache

logging.disable()
folder, caches = sys.argv[1], iter(Path(sys.argv[2], str(number)) for number in range(1000))
warm = object_cache.cache_folders

def forget():
    cold = next(caches)
    object_cache._functions.clear()
    object_cache.cache_folders = lambda: [cold]

def compile_and_encode():
    forget()
    object_cache.function("pack_4_bytes", object_cache.native_target(), 3)
    object_cache.cache_folders = warm
    model = EmbeddingModel(folder, backend="numba", threads=2)
    assert model.encode("happy person").shape == (32,)

def compile_often():
    for _ in range(3):
        forget()
        object_cache.function("pack_4_bytes", object_cache.native_target(), 3)

compiling, forks = begin(compile_often), 0
while compiling.is_alive():
    fork(compile_and_encode)
    forks += 1
    time.sleep(0.3)
assert forks
"""


def test_a_fork_beside_compiling(small_folder: Path, tmp_path: Path) -> None:
    """From the import of Numba on; the child compiles, too."""
    run_program(FORK + COMPILING, small_folder, tmp_path, timeout=400)


TOKENIZING = """
import numpy as np
from gte_np import EmbeddingModel

model = EmbeddingModel(sys.argv[1], backend="numba", threads=2)
texts = [f"number {number} is a very happy person" for number in range(5000)]
long_text = "happy person " * 20_000
expected = model.encode(["happy person", "number"])

def tokenize_on():
    while True:
        model.tokenize([*texts, long_text])

def encode():
    assert np.array_equal(model.encode(["happy person", "number"]), expected)
    assert len(model.tokenize(texts)) == len(texts)

for _ in range(2):
    begin(tokenize_on)
for _ in range(30):
    fork(encode, seconds=20)
    time.sleep(0.005)
os._exit(0)
"""


@pytest.mark.parametrize("parallelism", ["", "true", "false", None])
def test_a_fork_beside_tokenizing(parallelism: str | None, small_folder: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    if parallelism is not None:
        environment["TOKENIZERS_PARALLELISM"] = parallelism
    done = subprocess.run(
        [sys.executable, "-c", FORK + TOKENIZING, str(small_folder)],
        capture_output=True,
        check=False,
        text=True,
        env=environment,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr


UNUSED = """
from gte_np import Tokenizer

fork(lambda: Tokenizer.from_pretrained(sys.argv[1]).tokenize(["happy"] * 100))
fork(lambda: print(os.environ["TOKENIZERS_PARALLELISM"], flush=True))
"""


def test_a_child_of_a_parent_that_did_not_tokenize_has_threads(small_folder: Path) -> None:
    environment = {"TOKENIZERS_PARALLELISM": "true"}
    assert run_program(FORK + UNUSED, small_folder, environment=environment) == "true\n"


# --- the guard ----------------------------------------------------------------------------------------------------

GUARD = """
from gte_np import BackendError, forks

guard = forks.ForkGuard("working")
ready, done = threading.Event(), threading.Event()

def work(seconds=0.5):
    with guard.no_fork():
        ready.set()
        time.sleep(seconds)
        done.set()

def use():
    with guard.no_fork(), guard.no_fork():
        pass

def expect_refusal():
    for _ in range(2):
        try:
            use()
        except BackendError as error:
            assert str(error).startswith("this process was forked while another thread was working"), error
            assert "spawn" in str(error)
        else:
            raise AssertionError("no error")
"""

WAITS = """
begin(work)
ready.wait()
fork(lambda: (use(), done.is_set() or 1 / 0, fork(use)))
use()
"""

WITHIN = """
with guard.no_fork():
    fork(lambda: (use(), fork(use)), seconds=5)
    with guard.no_fork():
        fork(use, seconds=5)
    use()
fork(use, seconds=5)
"""

# Always one of them is at work: a fork must not wait for a moment when none is.
MANY = """
def work_on():
    while True:
        work(0.01)

for number in range(8):
    begin(work_on)
    time.sleep(0.0037)
for _ in range(20):
    fork(use, seconds=5)
os._exit(0)
"""

FORKS_AT_ONCE = """
def work_on():
    while True:
        work(0.003)

def fork_often():
    for _ in range(10):
        fork(use, seconds=5)

begin(work_on)
forking = [begin(fork_often) for _ in range(4)]
for thread in forking:
    thread.join()
os._exit(0)
"""

AFTER_AN_ERROR = """
with suppress(ZeroDivisionError), guard.no_fork():
    1 / 0
assert not guard._current()
fork(use, seconds=5)
"""

NO_LONGER = """
forks.LONGEST_WAIT = 0.1
begin(lambda: work(3))
ready.wait()
fork(lambda: (expect_refusal(), fork(expect_refusal)), seconds=10)
assert not done.is_set()
use()
done.wait()
fork(use)
"""


@pytest.mark.parametrize(
    "program",
    [WAITS, WITHIN, MANY, FORKS_AT_ONCE, AFTER_AN_ERROR, NO_LONGER],
    ids=["waits", "within", "many", "forks at once", "after an error", "no longer"],
)
def test_the_guard(program: str) -> None:
    run_program(FORK + GUARD + program, timeout=60)


INTERRUPTED = """
def interrupt(*_):
    raise KeyboardInterrupt

sys.unraisablehook = lambda raised: print(raised.exc_type.__name__, flush=True)
signal.signal(signal.SIGALRM, interrupt)
begin(lambda: work(2))
ready.wait()
signal.setitimer(signal.ITIMER_REAL, 0.1)
fork(expect_refusal)
assert not done.is_set()
use()
done.wait()
fork(use)
"""


def test_a_fork_whose_waiting_is_interrupted() -> None:
    assert run_program(FORK + GUARD + INTERRUPTED) == "KeyboardInterrupt\n"


INTERRUPTED_WORK = """
import random

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
for _ in range(2000):
    with suppress(KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, random.uniform(20e-6, 120e-6))
        while True:
            use()
other = begin(use)
other.join(5)
assert not other.is_alive()
fork(use, seconds=5)
"""


def test_work_that_is_interrupted_at_any_moment_leaves_the_guard_free() -> None:
    run_program(FORK + GUARD + INTERRUPTED_WORK)


REFUSED = """
import logging
from gte_np import BackendError, EmbeddingModel, forks
from gte_np.kernels.runtime import object_cache

logging.basicConfig(format="%(message)s", stream=sys.stdout)
forks.LONGEST_WAIT = 0.1
read, compiling, ended = object_cache._object_code, threading.Event(), threading.Event()

def compile_slowly(name, target):
    compiling.set()
    ended.wait()
    return read(name, target)

def load():
    object_cache._object_code = read
    model = EmbeddingModel(sys.argv[1])
    assert type(model.bert._encoder).__name__ == "ReferenceEncoder"
    model.encode("happy")
    with suppress(BackendError):
        EmbeddingModel(sys.argv[1], backend="numba")
        raise AssertionError("no error")

object_cache._object_code = compile_slowly
loading = begin(lambda: EmbeddingModel(sys.argv[1]))
compiling.wait()
fork(load)
ended.set()
loading.join()
"""


def test_a_process_that_was_forked_amidst_compiling_falls_back(small_folder: Path) -> None:
    [line] = run_program(FORK + REFUSED, small_folder).splitlines()
    assert line.startswith("this process was forked while another thread was compiling or loading kernels")
    assert line.endswith("The slower NumPy encoder is used.")
