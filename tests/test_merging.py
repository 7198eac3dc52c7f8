"""Calls that are computed together: nobody notices, whatever happens to the others."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
import pytest

from gte_np import BackendError, CheckpointError, EmbeddingModel, InputError
from gte_np.kernels.runtime import threads
from gte_np.kernels.runtime.threads import pool
from gte_np.merging import TEXTS_AT_ONCE
from tests.checkpoints import SMALL_VOCAB, dense_model, random_tensors, save_safetensors
from tests.programs import run_program
from tests.test_threads import POSIX, call_in_threads, interrupt_after, wait_until
from tests.texts import of_length

# Of all lengths, up to more than a model of 64 positions reads.
TEXTS = [of_length(words, seed) for seed, words in enumerate((1, 2, 3, 5, 8, 13, 30, 80) * 12)]


class Gate:
    """What stands before the encoder of a model: batches wait until they are let through, and are written down.

    `batches` are the lengths of the texts of each that came, in tokens.
    """

    def __init__(self, model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[int]] = []
        self._let = threading.Semaphore(0)
        self._model, encoder = model, cast(Any, model.bert._encoder)
        self._run_all = encoder._run_all
        monkeypatch.setattr(encoder, "_run_all", self._wait)

    def let(self, batches: int = 1000) -> None:
        """Let so many through."""
        for _ in range(batches):
            self._let.release()

    def occupy(self, callers: ThreadPoolExecutor, text: str) -> Future[Any]:
        """Begin a call that is the first to wait here."""
        future = callers.submit(self._model.encode, text)
        wait_until(lambda: len(self.batches) == 1)
        return future

    def _wait(self, job: Any) -> None:
        self.batches.append(job.inputs.batch.lengths.tolist())
        assert self._let.acquire(timeout=60)
        self._run_all(job)


@pytest.fixture
def model(small_folder: Path) -> EmbeddingModel:
    """A model of one's own, of two threads, and so of one leader on two processors."""
    loaded = EmbeddingModel(small_folder, backend="numba", threads=2)
    assert loaded._merging is not None
    loaded._merging._leaders = 1
    loaded._merging._state.places[:] = [0]
    return loaded


@pytest.fixture
def gate(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate before this model's encoder."""
    return Gate(model, monkeypatch)


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    """Threads that call."""
    with ThreadPoolExecutor(64) as executor:
        yield executor


def count_waiting(model: EmbeddingModel) -> int:
    """How many calls wait that nobody computes."""
    assert model._merging is not None
    return len(model._merging._current().waiting)


def begin(
    callers: ThreadPoolExecutor, model: EmbeddingModel, texts: Any, waiting: int, **options: Any
) -> Future[Any]:
    """Begin a call; return when so many wait that nobody computes."""
    future = callers.submit(model.encode, texts, **options)
    wait_until(lambda: count_waiting(model) == waiting)
    return future


# --- the same bits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_thirty_two_callers(dtype: str, small_folder: Path) -> None:
    """Of texts of all lengths, with all options; afterwards no thread is left but as many as there are processors."""
    model = EmbeddingModel(small_folder, backend="numba", threads=2, dtype=dtype, prompts={"q": "happy person "})
    options: list[dict[str, Any]] = [
        {},
        {"truncate_dim": 7},
        {"normalize_embeddings": True},
        {"prompt_name": "q"},
        {"precision": "binary", "batch_size": 2},
        {"output_value": "token_embeddings"},
    ]
    # Each text by itself, one after the other: nothing is merged.
    expected = [[model.encode(text, **given) for text in TEXTS] for given in options]

    def encode_often(number: int) -> None:
        for turn in range(12):
            which, first, count = (number + turn) % len(options), (number * 7 + turn) % 80, (1, 1, 3, 16)[turn % 4]
            found = model.encode(TEXTS[first : first + count], **options[which])
            for row, vector in zip(found, expected[which][first : first + count], strict=True):
                assert row.dtype == vector.dtype
                assert np.array_equal(row, vector)

    call_in_threads(encode_often, 32)
    assert not count_waiting(model)


def test_what_waits_is_computed_at_once(model: EmbeddingModel, gate: Gate, callers: ThreadPoolExecutor) -> None:
    first = gate.occupy(callers, "happy")
    others = [begin(callers, model, TEXTS[number], 1 + number) for number in range(6)]
    gate.let()
    lengths = model.tokenize(TEXTS[:6]).lengths.tolist()
    found = [first.result(60), *(future.result(60) for future in others)]
    assert gate.batches == [[3], lengths]
    assert np.array_equal(found, [model.encode(text) for text in ["happy", *TEXTS[:6]]])
    assert not any(np.shares_memory(found[1], other) for other in found[2:])


def test_who_is_alone_has_batches_as_ever(model: EmbeddingModel, gate: Gate) -> None:
    gate.let()
    model.encode(TEXTS[7 : 7 + 8 * 32 : 8])
    model.encode(TEXTS[:20], batch_size=5)
    assert [len(batch) for batch in gate.batches] == [12, 5, 5, 5, 5]


def test_models_with_one_thread_have_a_leader_for_each_processor(
    small_folder: Path, monkeypatch: pytest.MonkeyPatch, callers: ThreadPoolExecutor
) -> None:
    monkeypatch.setattr("gte_np.kernels.runtime.kernel_encoder.available_processors", lambda: 3)
    model = EmbeddingModel(small_folder, backend="numba", threads=1)
    gate = Gate(model, monkeypatch)
    for number in range(3):
        callers.submit(model.encode, "happy")
        wait_until(partial(lambda number: len(gate.batches) == number + 1, number))
    for number in range(3):
        begin(callers, model, "person", number + 1)
    gate.let()
    wait_until(lambda: len(gate.batches) == 4)
    assert gate.batches == [[3], [3], [3], [3, 3, 3]]


def test_copies_are_merged(model: EmbeddingModel, gate: Gate, callers: ThreadPoolExecutor) -> None:
    from copy import copy

    twin = copy(model)
    twin.max_seq_length = 5
    twin.prompts = {"q": "person "}
    first = gate.occupy(callers, "happy")
    calls = [begin(callers, model, TEXTS[6], 1), begin(callers, twin, TEXTS[6], 2)]
    prompted = begin(callers, twin, "happy", 3, prompt_name="q")
    gate.let()
    assert first.result(60) is not None
    found = [call.result(60) for call in (*calls, prompted)]
    assert [len(batch) for batch in gate.batches] == [1, 3]
    assert gate.batches[1][1:] == [5, 4]
    expected = [model.encode(TEXTS[6]), twin.encode(TEXTS[6]), model.encode("person happy")]
    assert np.array_equal(found, expected)


# --- whose turn it is ---------------------------------------------------------------------------------------------


def test_a_budget_of_tokens_and_who_waited_longest(
    model: EmbeddingModel, gate: Gate, callers: ThreadPoolExecutor
) -> None:
    """32 texts of 64 tokens are four batches of 512, and a short text is computed with the first that has room."""
    long = [of_length(80, seed) for seed in range(200, 232)]
    first = gate.occupy(callers, "happy")
    calls = [begin(callers, model, long, 1), begin(callers, model, "happy person", 2), begin(callers, model, long, 3)]
    done: list[int] = []
    for number, call in enumerate(calls):
        call.add_done_callback(partial(lambda number, _: done.append(number), number))
    for batch in range(2, 6):
        gate.let(1)
        wait_until(partial(lambda batch: len(gate.batches) == batch, batch))
    assert gate.batches == [[3], [64] * 8, [4, *[64] * 7], [64] * 8, [64] * 8]
    wait_until(lambda: done != [])
    assert done == [1]
    gate.let()
    assert first.done()
    assert np.array_equal(calls[0].result(60), calls[2].result(60))
    assert sum(batch.count(64) for batch in gate.batches) == 64
    assert np.array_equal(calls[0].result(60), model.encode(long))


def test_long_texts_do_not_starve_short_ones(model: EmbeddingModel, gate: Gate, callers: ThreadPoolExecutor) -> None:
    """A short text waits for one batch of each of the calls before it, and for none of those behind it."""
    long = [of_length(80, seed) for seed in range(30)]
    gate.occupy(callers, "happy")
    calls = [begin(callers, model, long, 1 + number) for number in range(8)]
    short = begin(callers, model, "happy person", 9)
    calls += [begin(callers, model, long, 10 + number) for number in range(8)]
    gate.let(1)
    for batch in range(2, 11):
        wait_until(partial(lambda batch: len(gate.batches) == batch, batch))
        gate.let(1)
    short.result(60)
    assert not any(call.done() for call in calls)
    assert gate.batches[1:9] == [[64] * 8] * 8
    assert gate.batches[9] == [4, *[64] * 7]
    gate.let()
    expected = model.encode(long)
    assert all(np.array_equal(call.result(60), expected) for call in calls)


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.fixture
def overflowing(folder: Path) -> EmbeddingModel:
    """A model that gives no finite numbers for texts in which there is "happy"."""
    tensors = random_tensors(folder)
    words = tensors["embeddings.word_embeddings.weight"].data
    words[5 + SMALL_VOCAB.index("happy")] = 3e38
    save_safetensors(folder / "model.safetensors", tensors)
    return EmbeddingModel(folder, backend="numba", threads=8)


def test_an_error_is_for_whom_it_concerns(
    overflowing: EmbeddingModel, monkeypatch: pytest.MonkeyPatch, callers: ThreadPoolExecutor
) -> None:
    gate = Gate(overflowing, monkeypatch)
    first = gate.occupy(callers, "person")
    texts = ["happy" if number in (3, 7) else f"person {number}" for number in range(10)]
    calls = [begin(callers, overflowing, text, 1 + number) for number, text in enumerate(texts)]
    gate.let()
    assert first.result(60).shape == (32,)
    for text, call in zip(texts, calls, strict=True):
        if text == "happy":
            with pytest.raises(CheckpointError, match="got an overflow"):
                call.result(60)
        else:
            assert np.array_equal(call.result(60), overflowing.encode(text))
    assert len(gate.batches[1]) == 10
    with pytest.raises(CheckpointError, match="got an overflow"):
        asyncio.run(overflowing.aencode(["person", "happy"]))


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["_take", "_tokenize", "_compute"])
def test_an_error_of_a_leader_reaches_its_callers(
    where: str, error: type[BaseException], model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        take(*arguments)
        raise error

    take = getattr(model._merging, where)
    with monkeypatch.context() as patch:
        patch.setattr(model._merging, where, fail)
        with pytest.raises(error):
            model.encode("happy")
    assert model.encode("happy").shape == (32,)
    wait_until(lambda: not pool()._at_work)


def test_no_thread_for_a_leader(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    expected = model.encode("happy")
    monkeypatch.setattr(threads, "_pool", threads.ThreadPool())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(BackendError, match="start another thread"):
            model.encode("happy")
    assert not count_waiting(model)
    assert np.array_equal(model.encode("happy"), expected)


# --- interrupts -----------------------------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("is_begun", [True, False])
def test_who_is_interrupted_leaves(
    is_begun: bool, model: EmbeddingModel, gate: Gate, callers: ThreadPoolExecutor
) -> None:
    others = [] if is_begun else [gate.occupy(callers, "person")]
    with interrupt_after(0.2), pytest.raises(KeyboardInterrupt):
        model.encode("happy")
    assert not count_waiting(model)
    assert gate.batches == [[3]]
    others.append(begin(callers, model, "happy person", 1))
    gate.let()
    assert all(np.isfinite(call.result(60)).all() for call in others)
    assert gate.batches == [[3], [4]]
    assert np.array_equal(others[-1].result(), model.encode("happy person"))


@POSIX
def test_a_handler_that_encodes_while_its_thread_waits(model: EmbeddingModel, gate: Gate) -> None:
    found: list[Any] = []

    def encode(number: int, frame: FrameType | None) -> None:
        gate.let()
        found.append(model.encode("person"))

    before = signal.signal(signal.SIGALRM, encode)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        found.append(model.encode("happy"))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert np.array_equal(found, [model.encode("person"), model.encode("happy")])


INTERRUPT_AT_EACH_LINE = """
import asyncio, faulthandler, sys, threading
import numpy as np
from gte_np import EmbeddingModel
from tests.interrupter import Interrupter

folder, door = sys.argv[1:]
model = EmbeddingModel(folder, backend="numba", threads=2)
expected = model.encode(["happy", "person"])
files = ("merging.py", "lines.py", "threads.py")

def watches(code):
    return code.co_filename.endswith(files)

def encode_beside(stop):
    while not stop.is_set():
        assert np.array_equal(model.encode("person"), expected[1])

def interrupted(number):
    interrupter = Interrupter(number, watches)
    sys.settrace(interrupter)
    try:
        if door == "encode":
            model.encode("happy")
        else:
            asyncio.run(model.aencode("happy"))
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return interrupter.place

sys.unraisablehook = lambda raised: None  # what an interrupted callback of asyncio raises
for with_others in (False, True):
    stop, number = threading.Event(), 0
    beside = threading.Thread(target=encode_beside, args=[stop])
    if with_others:
        beside.start()
    while True:
        number += 1
        faulthandler.dump_traceback_later(10, exit=True)
        place = interrupted(number)
        assert np.array_equal(model.encode("happy"), expected[0]), place
        if place is None:
            break
    assert number > 20
    stop.set()
    if with_others:
        beside.join()
    while model._merging._current().waiting:
        pass
"""


@pytest.mark.parametrize("door", ["encode", "aencode"])
def test_an_interrupt_at_any_line(door: str, small_folder: Path) -> None:
    run_program(INTERRUPT_AT_EACH_LINE, small_folder, door)


# --- asyncio --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_aencode_is_encode(backend: str, small_folder: Path) -> None:
    model = EmbeddingModel(small_folder, backend=backend, prompts={"q": "happy "}, truncate_dim=20)
    calls: list[tuple[Any, dict[str, Any]]] = [
        ("happy person", {}),
        ("happy person", {"prompt_name": "q", "normalize_embeddings": True, "truncate_dim": 5}),
        ([], {}),
        (["happy"], {"precision": "ubinary", "truncate_dim": 16}),
        (TEXTS, {}),
        ([*TEXTS, *TEXTS[::-1]], {"batch_size": 3}),
        (TEXTS, {"precision": "int8"}),
        (iter(TEXTS[:3]), {"prompt": "person"}),
        ("happy", {"output_value": "token_embeddings"}),
        (["happy", "person", "happy"], {"output_value": "token_embeddings"}),
    ]

    async def encode() -> list[Any]:
        return await asyncio.gather(*(model.aencode(texts, **options) for texts, options in calls))

    calls[7] = (TEXTS[:3], calls[7][1])
    for found, (texts, options) in zip(asyncio.run(encode()), calls, strict=True):
        expected = model.encode(texts, **options)
        assert type(found) is type(expected)
        for one, other in zip(found, expected, strict=True):
            assert np.array_equal(one, other)
            assert one.dtype == other.dtype


def test_aencode_refuses_what_encode_refuses(model: EmbeddingModel) -> None:
    for texts, options in (
        (3, {}),
        ("\ud800", {}),
        ("happy", {"batch_size": 0}),
        ("happy", {"prompt_name": "no"}),
        ("happy", {"precision": "int8"}),
        ("happy", {"precision": "int8", "output_value": "token_embeddings"}),
        ("happy", {"colour": "red"}),
    ):
        with pytest.raises((InputError, TypeError)) as expected:
            model.encode(texts, **options)  # type: ignore[arg-type]
        with pytest.raises(expected.type):
            asyncio.run(model.aencode(texts, **options))  # type: ignore[arg-type]


def test_a_warning_of_cuts(model: EmbeddingModel, caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(model.aencode(["happy " * 100, "happy"]))
    model.encode("happy " * 100)
    assert caplog.messages == ["1 of 2 texts were cut to 64 tokens.", "1 of 1 texts were cut to 64 tokens."]


def test_a_task_that_is_cancelled(model: EmbeddingModel, gate: Gate) -> None:
    async def call() -> None:
        tasks = [asyncio.create_task(model.aencode("happy"))]
        await asyncio.sleep(0)
        wait_until(lambda: len(gate.batches) == 1)
        tasks += [asyncio.create_task(model.aencode("happy person")) for _ in range(4)]
        await asyncio.sleep(0)
        assert count_waiting(model) == 4
        for number in (0, 2, 3):  # the first is at work
            tasks[number].cancel()
        await asyncio.sleep(0)
        assert count_waiting(model) == 2
        gate.let()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in found] == [True, False, True, True, False]
        assert np.array_equal(found[1], found[4])  # type: ignore[arg-type]

    asyncio.run(call())
    assert gate.batches == [[3], [4, 4]]


def test_the_rest_of_a_call_that_is_cancelled(model: EmbeddingModel, gate: Gate) -> None:
    async def call() -> None:
        task = asyncio.create_task(model.aencode([f"number {number}" for number in range(100)]))
        await asyncio.sleep(0)
        wait_until(lambda: len(gate.batches) == 1)
        task.cancel()
        await asyncio.wait([task])
        gate.let()
        await model.aencode("happy")

    asyncio.run(call())
    assert [len(batch) for batch in gate.batches] == [32, 1]


def test_jobs_that_are_cancelled(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that are not merged are one after the other."""
    model = EmbeddingModel(small_folder, backend="numpy")
    encode, go_on, at_work = model._encode_apart, threading.Event(), []

    def slowly(asked: Any) -> Any:
        at_work.append(len(asked.texts))
        assert go_on.wait(60)
        return encode(asked)

    monkeypatch.setattr(model, "_encode_apart", slowly)

    async def call() -> None:
        tasks = [asyncio.create_task(model.aencode(TEXTS[: number + 1])) for number in range(5)]
        await asyncio.sleep(0.05)
        tasks[3].cancel()
        await asyncio.sleep(0)
        assert at_work == [1]
        go_on.set()
        await asyncio.wait(tasks)

    asyncio.run(call())
    assert at_work == [1, 2, 3, 5]


def test_tasks_need_no_threads(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_pool", threads.ThreadPool())
    before = threading.active_count()
    expected = model.encode(TEXTS)
    most: list[int] = []

    async def call() -> Any:
        tasks = [asyncio.create_task(model.aencode(text)) for text in TEXTS * 4]
        while not all(task.done() for task in tasks):
            most.append(threading.active_count())
            await asyncio.sleep(0.001)
        return [task.result() for task in tasks]

    assert np.array_equal(asyncio.run(call()), np.tile(expected, (4, 1)))
    assert max(most) <= before + 2 * threads.available_processors() + 2


def test_loops_of_several_threads(model: EmbeddingModel) -> None:
    expected = model.encode(TEXTS)

    async def call(number: int) -> Any:
        return await asyncio.gather(*(model.aencode(text) for text in TEXTS[number:]))

    found: dict[int, Any] = {}
    call_in_threads(lambda number: found.__setitem__(number, asyncio.run(call(number))), 4)
    for number, vectors in found.items():
        assert np.array_equal(vectors, expected[number:])


# --- the end --------------------------------------------------------------------------------------------------------


def encode_in_threads(model: EmbeddingModel, count: int) -> list[Any]:
    """The vectors of the first texts, each from a thread of its own."""
    with ThreadPoolExecutor(count) as executor:
        return list(executor.map(model.encode, TEXTS[:count]))


def test_a_model_that_is_dropped(small_folder: Path) -> None:
    model = EmbeddingModel(small_folder, backend="numba", threads=2)
    encode_in_threads(model, 8)
    asyncio.run(model.aencode(TEXTS))
    asyncio.run(model.aencode("happy", output_value="token_embeddings"))
    encoder: Any = model.bert._encoder
    watched = [weakref.ref(part) for part in (model, encoder, encoder.weights, model._merging)]
    gc.collect()
    gc.disable()  # no rest that only the collector finds
    try:
        del model, encoder
        wait_until(lambda: all(part() is None for part in watched))
    finally:
        gc.enable()


FORK = """
import os, signal, sys, threading, time, warnings
import numpy as np
from gte_np import EmbeddingModel

warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons: that the parent has threads
model = EmbeddingModel(sys.argv[1], backend="numba", threads=2)
texts = [f"number {number}" for number in range(40)]
expected = model.encode(texts)
encoder, begun, opened = model.bert._encoder, threading.Event(), threading.Event()
run_all = encoder._run_all

def wait(job):
    begun.set()
    opened.wait()
    run_all(job)

def check(number):
    assert np.array_equal(model.encode(texts[number]), expected[number])

encoder._run_all = wait
callers = [threading.Thread(target=check, args=[number], daemon=True) for number in range(10)]
callers[0].start()
begun.wait()  # it is at work alone
for caller in callers[1:]:
    caller.start()
while len(model._merging._current().waiting) < 9:
    time.sleep(0.01)
child = os.fork()
if child == 0:
    signal.alarm(20)
    encoder._run_all = run_all
    assert not model._merging._current().waiting
    check(1)
    others = [threading.Thread(target=check, args=[number]) for number in range(10)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    grandchild = os.fork()
    check(2)
    if grandchild:
        assert os.waitpid(grandchild, 0)[1] == 0
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert len(model._merging._current().waiting) == 9
opened.set()
for caller in callers:
    caller.join()
check(3)
"""


@POSIX
def test_a_fork_while_calls_wait(small_folder: Path) -> None:
    run_program(FORK, small_folder, environment={"TOKENIZERS_PARALLELISM": "false"})


ENDS = """
import asyncio, sys, threading, time
from gte_np import EmbeddingModel

folder, how = sys.argv[1:]
model = EmbeddingModel(folder, backend="numba", threads=2)

def encode_on():
    while True:
        model.encode("happy person")

async def aencode_on():
    while True:
        await asyncio.gather(*(model.aencode(f"number {number}") for number in range(50)))

async def leave():
    tasks = [asyncio.create_task(aencode_on()) for _ in range(4)]
    await asyncio.sleep(0.2)

if how == "threads":
    for _ in range(20):
        threading.Thread(target=encode_on, daemon=True).start()
    time.sleep(0.3)
elif how == "tasks":
    asyncio.run(leave())
else:  # a loop that is closed amidst its calls
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(model.aencode(f"number {number}")) for number in range(50)]
    loop.run_until_complete(asyncio.sleep(0))
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert model.encode("happy").shape == (32,)
del model
"""


@pytest.mark.parametrize("how", ["threads", "tasks", "closed"])
def test_a_process_ends_while_calls_wait(how: str, small_folder: Path) -> None:
    run_program(ENDS, small_folder, how)


def test_a_loop_that_is_gone_when_its_call_is_over(model: EmbeddingModel, gate: Gate) -> None:
    loop = asyncio.new_event_loop()
    task = loop.create_task(model.aencode("happy"))
    loop.run_until_complete(asyncio.sleep(0))
    wait_until(lambda: len(gate.batches) == 1)
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    gate.let()
    assert model.encode("person").shape == (32,)


def test_dense_modules_are_merged(tmp_path: Path) -> None:
    model = EmbeddingModel(dense_model(tmp_path / "dense"), backend="numba", threads=2)
    expected = [model.encode(text) for text in TEXTS[:32]]
    assert np.array_equal(encode_in_threads(model, 32), expected)


def test_calls_of_many_texts_are_divided_as_ever(model: EmbeddingModel, gate: Gate) -> None:
    gate.let()
    texts = [f"number {number}" for number in range(TEXTS_AT_ONCE + 1)]
    model.encode(texts, batch_size=TEXTS_AT_ONCE + 1)
    assert [len(batch) for batch in gate.batches] == [TEXTS_AT_ONCE + 1]
