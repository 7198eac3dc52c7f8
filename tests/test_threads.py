"""Threads: how many, who waits for whom, and that nothing that happens to a caller harms the next one."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from gte_np import BackendError, EmbeddingModel, InputError
from gte_np.kernels.runtime import threads
from gte_np.kernels.runtime.threads import ThreadPool, available_processors, pool, take_turns
from tests.programs import run_program

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs fork or signals")
# A few for a team, and so many that threads work apart.
TEXTS = ["That is a happy person", "中国的首都是哪里", *(f"number {number} is very happy" for number in range(60))]


# --- how many processors ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process to processors")
def test_affinity_counts() -> None:
    program = (
        "import os\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from gte_np.kernels.runtime.threads import available_processors, pool\n"
        "print(available_processors(), pool()._processors)"
    )
    assert run_program(program).split() == ["1", "1"]


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Control groups of a system of eight processors; this process is in the group /outer/inner of each."""
    own = tmp_path / "own-groups"
    own.write_text("4:memory:/other\n3:cpu,cpuacct:/outer/inner\n2:cpu:/outer/inner\n0::/outer/inner\n", "utf-8")
    read_text = Path.read_text

    def read(path: Path, *arguments: Any) -> str:
        return read_text(own if path == Path("/proc/self/cgroup") else path, *arguments)

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(threads, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    return tmp_path / "cgroup"


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files, by their paths in the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")


def quota(folder: str, micros: int) -> dict[str, str]:
    """The files of a group of version 1."""
    return {f"{folder}/cpu.cfs_quota_us": f"{micros}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),  # in a container its own group is the root
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "1000 100000\n"}, 1),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"outer/inner/cpu.max": "300000 100000\n"}, 3),
        ({"outer/inner/cpu.max": "max 100000\n", "outer/cpu.max": "25000 50000\n"}, 1),
        ({"outer/inner/cpu.max": "200000 100000\n", "outer/cpu.max": "500000 100000\n"}, 2),
        ({"other/cpu.max": "100000 100000\n"}, 8),
        (quota("cpu", 300000), 3),
        (quota("cpu", -1), 8),
        (quota("cpu/outer/inner", 250000), 3),
        (quota("cpu,cpuacct/outer", 400000) | quota("cpu,cpuacct/outer/inner", -1), 4),
        (quota("cpu/outer", 400000) | {"outer/cpu.max": "200000 100000\n"}, 2),
        (quota("memory/other", 100000), 8),
    ],
)
def test_quotas_count(cgroups: Path, files: dict[str, str], processors: int) -> None:
    write(cgroups, files)
    assert available_processors() == processors


@pytest.mark.parametrize("content", ["", "\n", "max", "a b", "1 2 3", "max max", "0 100000", "-1 100000", "nan 1"])
def test_a_quota_that_is_none(cgroups: Path, content: str) -> None:
    write(cgroups, {"cpu.max": content, "cpu/cpu.cfs_quota_us": content, "cpu/cpu.cfs_period_us": "100000"})
    assert available_processors() == 8


def test_a_quota_that_cannot_be_read(cgroups: Path) -> None:
    (cgroups / "cpu.max").mkdir(parents=True)
    (cgroups / "outer").mkdir()
    (cgroups / "outer" / "cpu.max").write_bytes(b"\xff\xfe")
    assert available_processors() == 8


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cgroup/cpu.max", b"100000 0"),
        ("cgroup/cpu.max", b"inf 100000"),
        ("cgroup/cpu/cpu.cfs_quota_us", b"\xff"),
        ("own-groups", b"0::/\xff\n"),  # the name of a group may be any bytes
        ("own-groups", b"0::/a\x0cb\n"),
    ],
)
def test_what_no_kernel_or_nobody_writes(cgroups: Path, name: str, content: bytes) -> None:
    write(cgroups, quota("cpu", -1))
    (cgroups.parent / name).write_bytes(content)
    assert available_processors() == 8


def test_the_other_order_of_controllers(cgroups: Path) -> None:
    """As on RHEL 7, whose folder is called cpu,cpuacct, and cpu is a link to it."""
    (cgroups.parent / "own-groups").write_text("3:cpuacct,cpu:/outer\n", "utf-8")
    write(cgroups, quota("cpu,cpuacct/outer", 200000))
    (cgroups / "cpu").symlink_to("cpu,cpuacct")
    assert available_processors() == 2


# --- claims -------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> ThreadPool:
    """A pool of a system with two processors."""
    monkeypatch.setattr(threads, "available_processors", lambda: 2)
    return ThreadPool()


def call_in_threads(call: Callable[[int], object], count: int, timeout: float = 60) -> None:
    """Call call(0) ... call(count - 1) in a thread each, all at once; raise what they raise."""
    start = threading.Barrier(count)

    def begin(number: int) -> object:
        start.wait(timeout)
        return call(number)

    with ThreadPoolExecutor(count) as executor:
        for future in [executor.submit(begin, number) for number in range(count)]:
            future.result(timeout)


def wait_until(condition: Callable[[], bool]) -> None:
    """Look until it is so."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


class Gauge:
    """A function that counts how many calls of it are at work, and were at most."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.now, self.most = 0, 0
        self._function = function
        self._lock = threading.Lock()

    def __call__(self, *arguments: Any) -> Any:
        """Call it."""
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            return self._function(*arguments)
        finally:
            with self._lock:
                self.now -= 1


def is_idle(threads_of: ThreadPool) -> bool:
    """Whether a pool has no work, and waits for none."""
    no_jobs = all(jobs.empty() for jobs in threads_of._idle)
    return threads_of._at_work == 0 and not threads_of._waiting and no_jobs


def test_a_claim_is_for_what_is_free(two: ThreadPool) -> None:
    with two.claim(1) as first, two.claim(2) as second:
        assert (first, second) == (1, 1)
        with two.claim(3) as third:  # more than there are processors, if a caller asks for it
            assert third == 1
        with two.claim(7) as fourth:
            assert fourth == 5
    with two.claim(2) as both:
        assert both == 2
    assert is_idle(two)


def test_a_claim_waits_until_a_thread_is_free(two: ThreadPool) -> None:
    claimed: list[int] = []

    def claim() -> None:
        with two.claim(2) as count:
            claimed.append(count)

    with two.claim(2):
        waiting = threading.Thread(target=claim)
        waiting.start()
        time.sleep(0.05)
        assert claimed == []
    waiting.join(30)
    assert claimed == [2]


def test_no_more_claims_than_processors(two: ThreadPool) -> None:
    """Many callers with limits of 1 to 3: nobody is left behind, and no claim is for more than is free."""
    at_work: list[int] = []
    lock = threading.Lock()
    too_many: list[tuple[int, int]] = []

    def claim_often(number: int) -> None:
        limit = 1 + number % 3
        for _ in range(200):
            with two.claim(limit) as count:
                with lock:
                    at_work.append(count)
                    if sum(at_work) > max(limit, 2) or not 1 <= count <= limit:
                        too_many.append((limit, sum(at_work)))
                if number % 2:
                    time.sleep(0.0001)
                with lock:
                    at_work.remove(count)

    call_in_threads(claim_often, 12)
    assert too_many == []
    assert is_idle(two)


def test_a_claim_is_given_back_after_an_error(two: ThreadPool) -> None:
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), two.claim(2):
            raise error
    assert is_idle(two)


def test_who_came_first_claims_first(two: ThreadPool) -> None:
    order: list[str] = []

    def claim_late() -> None:
        with two.claim(1):
            order.append("who waited")

    for _ in range(20):
        with two.claim(2):
            late = threading.Thread(target=claim_late)
            late.start()
            wait_until(lambda: len(two._changed._waiters) == 1)  # type: ignore[attr-defined]
        with two.claim(2):
            order.append("who had it")
        late.join(30)
    assert order == ["who waited", "who had it"] * 20


# --- runs ---------------------------------------------------------------------------------------------------------


def test_all_run_at_once(two: ThreadPool) -> None:
    everybody = threading.Barrier(7)  # more than there are processors
    ran_in: dict[int, threading.Thread] = {}

    def work(number: int) -> None:
        ran_in[number] = threading.current_thread()
        everybody.wait(30)

    two.run(work, 7)
    assert sorted(ran_in) == list(range(7))
    assert len(set(ran_in.values())) == 7
    assert all(thread.daemon for number, thread in ran_in.items() if number)
    assert is_idle(two)


def test_runs_of_many_callers_do_not_wait_for_each_other(two: ThreadPool) -> None:
    """Each run needs all of its threads at once, as a team does."""

    def run_often(number: int) -> None:
        for count in (2, 5, 3, 1) * 10:
            everybody = threading.Barrier(count)
            two.run(lambda _, everybody=everybody: everybody.wait(30), count)  # type: ignore[misc]

    call_in_threads(run_often, 8)
    assert is_idle(two)
    assert len(two._idle) <= 8 * 4


def test_helpers_are_used_again(two: ThreadPool) -> None:
    for count in (3, 1, 2, 3):
        two.run(lambda number: None, count)
    assert len(two._idle) == 2


@pytest.mark.parametrize("failing", [[0], [1], [2], [0, 2], [0, 1, 2]])
def test_an_error_is_raised_when_all_are_done(failing: list[int], two: ThreadPool) -> None:
    done: list[int] = []

    def work(number: int) -> None:
        time.sleep(0.02 * number)
        done.append(number)
        if number in failing:
            raise ValueError(f"number {number}")

    with pytest.raises(ValueError, match=f"number {failing[0]}"):
        two.run(work, 3)
    assert done == [0, 1, 2]
    assert is_idle(two)
    two.run(done.append, 3)
    assert sorted(done) == [0, 0, 1, 1, 2, 2]


def test_idle_helpers_keep_nothing(two: ThreadPool) -> None:
    class Work:
        def __call__(self, number: int) -> None:
            pass

    work = Work()
    watched = weakref.ref(work)
    two.run(work, 3)
    del work
    wait_until(lambda: gc.collect() >= 0 and watched() is None)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_turns_are_taken_once(count: int) -> None:
    done: list[int] = []
    take_turns(range(1000), done.append, count)
    assert sorted(done) == list(range(1000))
    with pytest.raises(ZeroDivisionError):
        take_turns([1, 2, 0, 3], lambda task: 1 // task, count)
    assert is_idle(pool())


def test_a_thread_that_cannot_be_started(two: ThreadPool, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(BackendError, match="start another thread, got: can't start new thread"):
            two.run(lambda number: None, 3)
    two.run(lambda number: None, 2)
    assert len(two._idle) == 1
    assert is_idle(two)


# --- threads that are not needed ----------------------------------------------------------------------------------


class OwnPool(ThreadPool):
    """A pool of a system with two processors that knows its threads."""

    def __init__(self) -> None:
        super().__init__()
        self._processors = 2
        self.threads: set[threading.Thread] = set()

    def _work(self, jobs: threads.Jobs) -> None:
        self.threads.add(threading.current_thread())
        super()._work(jobs)

    def count(self) -> int:
        """How many threads it has."""
        return sum(thread.is_alive() for thread in self.threads)


def test_threads_that_are_not_needed_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.2)
    own, everybody = OwnPool(), threading.Barrier(200)
    call_in_threads(lambda _: own.call(lambda: everybody.wait(60)), 200)
    assert own.count() == 200
    wait_until(lambda: own.count() <= 2)
    assert len(own._idle) == own.count()
    assert own.call(lambda: 3) == 3


def test_they_end_although_a_few_are_always_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who had work last is given the next, so that the others' time runs out."""
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.2)
    own, everybody = OwnPool(), threading.Barrier(50)
    call_in_threads(lambda _: own.call(lambda: everybody.wait(60)), 50)
    wait_until(lambda: own.call(own.count) <= 3)  # more calls in 0.2 seconds than there are threads


def test_a_job_for_a_thread_whose_time_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.001)
    own = OwnPool()

    def call_often(number: int) -> None:
        for turn in range(100):
            assert own.call(lambda turn=turn: turn) == turn  # type: ignore[misc]
            everybody = threading.Barrier(3)
            own.run(lambda _, everybody=everybody: everybody.wait(30), 3)  # type: ignore[misc]
            time.sleep(0.0002 * (turn % 10))

    call_in_threads(call_often, 6)
    wait_until(lambda: own.count() <= 2)
    assert len(own.threads) > 20  # many have come and gone
    assert is_idle(own)


MANY_CALLERS = """
import sys, threading
import numpy as np
from gte_np import EmbeddingModel
from gte_np.kernels.runtime import threads

threads.IDLE_SECONDS = 0.5
model = EmbeddingModel(sys.argv[1], backend="numba", threads=2)
expected = model.encode(["happy person"])
everybody, wrong = threading.Barrier(200), []

def encode():
    everybody.wait()
    for _ in range(5):
        if not np.array_equal(model.encode(["happy person"]), expected):
            wrong.append(1)

def count():
    return sum(thread.name == "gte_np" for thread in threading.enumerate())

callers = [threading.Thread(target=encode) for _ in range(200)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
assert not wrong
while count() > threads.available_processors():
    pass
assert np.array_equal(model.encode(["happy person"]), expected)
"""


def test_two_hundred_callers_leave_few_threads(small_folder: Path) -> None:
    run_program(MANY_CALLERS, small_folder)


# --- models -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "at_work"), [(1, 2), (2, 2), (3, 3)])
def test_eight_callers_of_one_model(
    limit: int, at_work: int, small: EmbeddingModel, small_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = small.encode(TEXTS)
    model = EmbeddingModel(small_folder, backend="numba", threads=limit)
    encoder: Any = model.bert._encoder
    gauge = Gauge(encoder._run_program)
    monkeypatch.setattr(encoder, "_run_program", gauge)
    monkeypatch.setattr(pool(), "_processors", 2)
    wrong: list[str] = []

    def encode_often(number: int) -> None:
        for size in (1, 3, 30, 100) * 5:
            texts = TEXTS[number : number + size]
            if not np.array_equal(model.encode(texts, batch_size=50), expected[number : number + size]):
                wrong.append(f"caller {number}, {size} texts")

    call_in_threads(encode_often, 8)
    assert wrong == []
    assert 1 < gauge.most <= at_work
    assert gauge.now == 0
    assert is_idle(pool())


@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS])
def test_an_error_in_a_run_leaves_the_model_usable(
    texts: list[str], small: EmbeddingModel, small_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = EmbeddingModel(small_folder, backend="numba", threads=3)
    encoder: Any = model.bert._encoder
    encode, calls = encoder._run_program, iter(range(100))

    def fail_second(*arguments: Any) -> None:
        encode(*arguments)
        if next(calls) == 1:
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "_run_program", fail_second)
        with pytest.raises(MemoryError):
            model.encode(texts)
    assert is_idle(pool())
    assert np.array_equal(model.encode(texts), small.encode(texts))


def test_models_of_all_kinds_of_threads_at_once(small: EmbeddingModel, small_folder: Path) -> None:
    models = [EmbeddingModel(small_folder, backend="numba", threads=count) for count in (1, 2, 3, 4, 7)]
    parts = [TEXTS[:1], TEXTS[:3], ["happy " * 60, *TEXTS[:5]], TEXTS]
    expected = [small.encode(part) for part in parts]
    end = time.monotonic() + 2

    def encode_often(number: int) -> None:
        turn = number
        while time.monotonic() < end:
            turn += 1
            part = turn * 7 % len(parts)
            assert np.array_equal(models[turn % len(models)].encode(parts[part]), expected[part])

    call_in_threads(encode_often, 10)
    assert is_idle(pool())


def test_idle_threads_take_no_time(small_folder: Path) -> None:
    program = (
        "import sys, time, gte_np\n"
        "model = gte_np.EmbeddingModel(sys.argv[1], backend='numba', threads=4)\n"
        "model.encode(['happy'])\n"
        "before = time.process_time()\n"
        "time.sleep(0.5)\n"
        "print(time.process_time() - before)"
    )
    assert float(run_program(program, small_folder)) < 0.05


def test_a_process_ends_while_threads_are_at_work(small_folder: Path) -> None:
    program = (
        "import sys, threading, time, gte_np\n"
        "model = gte_np.EmbeddingModel(sys.argv[1], backend='numba', threads=3)\n"
        "def encode_on():\n"
        "    while True:\n"
        "        model.encode([f'number {number}' for number in range(50)])\n"
        "for _ in range(3):\n"
        "    threading.Thread(target=encode_on, daemon=True).start()\n"
        "time.sleep(0.2)\n"
        "del model"
    )
    run_program(program, small_folder)


# --- processes ----------------------------------------------------------------------------------------------------

FORKS = """
import os, sys, warnings
import numpy as np
from gte_np import EmbeddingModel

warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons: that the parent has threads
model = EmbeddingModel(sys.argv[1], backend="numba", threads=3)
parts = [["happy person"], [f"number {number}" for number in range(50)]]
expected = [model.encode(part) for part in parts]

def check():
    assert all(np.array_equal(model.encode(part), vectors) for part, vectors in zip(parts, expected))

def fork(depth):
    check()
    if depth:
        child = os.fork()
        if child == 0:
            fork(depth - 1)
            os._exit(0)
        check()
        assert os.waitpid(child, 0)[1] == 0
    check()

fork(3)
"""


@POSIX
def test_a_forked_process_and_its_own(small_folder: Path) -> None:
    run_program(FORKS, small_folder, environment={"TOKENIZERS_PARALLELISM": "false"})


FORK_BESIDE_ENCODING = """
import os, sys, threading, warnings
import numpy as np
from gte_np import EmbeddingModel

warnings.simplefilter("ignore", DeprecationWarning)
model = EmbeddingModel(sys.argv[1], backend="numba", threads=3)
batch = model.tokenize(["happy person"])
expected = model.bert.encode_batch(batch).last_hidden_state
ended = threading.Event()

def encode_on():
    while not ended.is_set():
        model.bert.encode_batch(batch)

callers = [threading.Thread(target=encode_on) for _ in range(3)]
for caller in callers:
    caller.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(not np.array_equal(model.bert.encode_batch(batch).last_hidden_state, expected))
    assert os.waitpid(child, 0)[1] == 0
ended.set()
"""


@POSIX
def test_a_process_that_is_forked_while_others_encode(small_folder: Path) -> None:
    run_program(FORK_BESIDE_ENCODING, small_folder)


PROCESSES = """
import multiprocessing, sys, warnings
from concurrent.futures import ProcessPoolExecutor
import numpy as np
from gte_np import EmbeddingModel

TEXTS = ["happy person", *(f"number {number}" for number in range(50))]
model = None

def vectors(folder):
    global model
    model = model or EmbeddingModel(folder, backend="numba")
    return model.encode(TEXTS)

if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    folder, method = sys.argv[1:]
    expected = vectors(folder)
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as executor:
        for found in executor.map(vectors, [folder] * 4):
            assert np.array_equal(found, expected)
"""


@pytest.mark.parametrize("method", [pytest.param("fork", marks=POSIX), "spawn"])
def test_processes(method: str, small_folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROCESSES, "utf-8")
    command = [sys.executable, str(script), str(small_folder), method]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(threads.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=100, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


FORK_BESIDE_LOADING = """
import os, signal, sys, threading, time, warnings
from gte_np import EmbeddingModel
from gte_np.kernels.runtime import object_cache

warnings.simplefilter("ignore", DeprecationWarning)
read, compiling = object_cache._object_code, threading.Event()

def compile_slowly(name, target):
    compiling.set()
    time.sleep(1)
    return read(name, target)

object_cache._object_code = compile_slowly
threading.Thread(target=EmbeddingModel, args=[sys.argv[1]], daemon=True).start()
compiling.wait()
child = os.fork()
if child == 0:
    signal.alarm(3)  # ends a process that waits for ever
    object_cache._object_code = read
    EmbeddingModel(sys.argv[1]).encode("happy")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@POSIX
def test_a_process_that_is_forked_while_another_thread_compiles(small_folder: Path) -> None:
    run_program(FORK_BESIDE_LOADING, small_folder)


# --- interrupts -----------------------------------------------------------------------------------------------------


@contextmanager
def interrupt_after(seconds: float) -> Iterator[None]:
    """Interrupt this thread, as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


INTERRUPTS = """
import signal, sys
import numpy as np
from gte_np import EmbeddingModel

model = EmbeddingModel(sys.argv[1], backend="numba")
texts = [f"number {number} is very happy" for number in range(3000)]
expected = model.encode(texts)
print("ready", flush=True)
for _ in range(5):
    try:
        print("encoding", flush=True)
        while True:
            model.encode(texts)
    except KeyboardInterrupt:
        assert np.array_equal(model.encode(texts[:100]), expected[:100])
        assert np.array_equal(model.encode(texts[0]), expected[0])
print("done", flush=True)
"""


@POSIX
def test_an_interrupted_process_goes_on(small_folder: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTS, str(small_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            assert child.stdout.readline() == "ready\n"
            for number in range(5):
                assert child.stdout.readline() == "encoding\n"
                time.sleep(0.05 + 0.013 * number)
                child.send_signal(signal.SIGINT)
            child.wait(30)  # a child that hangs is not waited for
        finally:
            child.kill()
        assert (child.stdout.read(), child.stderr.read()) == ("done\n", "")


@POSIX
def test_an_interrupted_caller_waits_no_longer_for_a_claim(two: ThreadPool) -> None:
    with two.claim(2):
        with interrupt_after(0.05), pytest.raises(KeyboardInterrupt), two.claim(1):
            pass
        assert two._at_work == 2
    assert is_idle(two)


@POSIX
def test_what_an_interrupted_caller_waited_for_goes_on(two: ThreadPool) -> None:
    done = threading.Event()

    def work() -> None:
        with two.claim(1):
            time.sleep(0.3)
            done.set()

    with interrupt_after(0.1), pytest.raises(KeyboardInterrupt):
        two.call(work)
    assert not done.is_set()
    wait_until(lambda: done.is_set() and is_idle(two))
    assert two.call(lambda: 3) == 3


INTERRUPT_AT_EACH_LINE = """
import faulthandler, sys
import numpy as np
from gte_np import EmbeddingModel
from gte_np.encoder_interface import EncoderInput
from gte_np.kernels.runtime.threads import pool
from tests.interrupter import Interrupter

folder, function = sys.argv[1:]
model = EmbeddingModel(folder, backend="numba", threads=2)
encode = model.bert._encoder  # a team of two
batch = EncoderInput(model.tokenize(["happy person"]), model.bert.config)
expected = encode(batch).last_hidden_state

def watches(code):
    return "kernels" in code.co_filename and code.co_name == function

number = 0
while True:
    number += 1
    interrupter = Interrupter(number, watches)
    faulthandler.dump_traceback_later(3, exit=True)
    sys.settrace(interrupter)
    try:
        encode(batch)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    faulthandler.dump_traceback_later(3, exit=True)
    assert np.array_equal(encode(batch).last_hidden_state, expected), interrupter.place
    while pool()._at_work:  # what was interrupted goes on
        pass
    if interrupter.place is None:
        break
assert number > 1
"""


@pytest.mark.parametrize("function", ["__call__", "__init__", "call", "start"])
def test_an_interrupt_at_any_line_leaves_the_model_usable(function: str, small_folder: Path) -> None:
    """A signal's handler runs where Python is just then; so does an error such as MemoryError."""
    run_program(INTERRUPT_AT_EACH_LINE, small_folder, function)


DEEP_CALLS = """
import faulthandler, sys
import numpy as np
from gte_np import EmbeddingModel
from gte_np.encoder_interface import EncoderInput

model = EmbeddingModel(sys.argv[1], backend="numba", threads=2)
encode = model.bert._encoder
batch = EncoderInput(model.tokenize(["happy person"]), model.bert.config)
expected = encode(batch).last_hidden_state

def call(depth):
    return call(depth - 1) if depth else encode(batch).last_hidden_state

errors = 0
for depth in range(sys.getrecursionlimit() - 100, sys.getrecursionlimit()):
    faulthandler.dump_traceback_later(3, exit=True)
    try:
        assert np.array_equal(call(depth), expected)
    except RecursionError:
        errors += 1
assert errors
"""


def test_calls_near_the_limit_of_recursion(small_folder: Path) -> None:
    run_program(DEEP_CALLS, small_folder)


def test_a_copy_with_other_threads_shares_the_weights(small: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed: list[int] = []
    claim = ThreadPool.claim

    def noted(self: ThreadPool, limit: int) -> Any:
        claimed.append(limit)
        return claim(self, limit)

    monkeypatch.setattr(ThreadPool, "claim", noted)
    expected = small.encode(TEXTS)
    before = set(claimed)
    twin = small.with_threads(3)
    for model in (twin, pickle.loads(pickle.dumps(twin))):
        claimed.clear()
        assert np.array_equal(model.encode(TEXTS), expected)
        assert set(claimed) == {3}
    claimed.clear()
    small.encode(TEXTS)
    assert set(claimed) == before
    assert vars(twin.bert._encoder)["weights"] is vars(small.bert._encoder)["weights"]
    with pytest.raises(InputError, match="threads"):
        small.with_threads(0)


def test_numpy_has_the_threads_of_its_blas(small_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = EmbeddingModel(small_folder, backend="numpy")
    twin = pickle.loads(pickle.dumps(model.with_threads(3)))
    assert np.array_equal(twin.encode(TEXTS), model.encode(TEXTS))
    assert not caplog.records
