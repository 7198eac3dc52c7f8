"""The kinds of fuzzing: each writes what it needs, and makes a call of a Random."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import numpy as np

from gte_np import EmbeddingModel, GteError
from gte_np.jobs import Job, JobOptions, Place, Results, run_job, verify
from gte_np.kernels.runtime.threads import pool
from scripts.fetch_minilm import FOLDER
from tests.checkpoints import SMALL_VOCAB, small_model
from tests.fuzz.damage import damaged_bytes, damaged_files
from tests.fuzz.memory import growth_limited, open_files, resident
from tests.fuzz.models import FORMS, TEXTS, files_of, write_changed, write_chinese, write_english, write_forms
from tests.job_inputs import write_inputs
from tests.texts import generated


class WrongAnswerError(AssertionError):
    """An answer that cannot be right."""


class Kind(ABC):
    """A kind of fuzzing, of which `folder` has all that `write` made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    @abstractmethod
    def write(folder: Path) -> None:
        """Write what all children read."""

    @abstractmethod
    def warm_up(self) -> None:
        """Do once what takes memory that stays."""

    @abstractmethod
    def call(self, random: Random) -> Mapping[str, int]:
        """Make a call; return what came of it, and how often. What it raises is a finding."""


# --- damaged models -----------------------------------------------------------------------------------------------


class Checkpoints(Kind):
    """A damaged model is loaded and gives finite vectors, or is refused by a GteError."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._files = {form: files_of(folder / form) for form in FORMS}

    @staticmethod
    def write(folder: Path) -> None:
        """Write a model in each form."""
        write_forms(folder)

    def warm_up(self) -> None:
        """Load each form once."""
        for form in FORMS:
            for backend in ("numba", "numpy"):
                check_model(self.folder / form, backend)

    def call(self, random: Random) -> Mapping[str, int]:
        """Damage a model, then load and use it."""
        form, other = random.choice(FORMS), random.choice(FORMS)
        changes = damaged_files(random, self._files[form], self._files[other])
        damaged = write_changed(self.folder / "damaged", self.folder / form, changes)
        return {f"{form}: {outcome_of(damaged, random.choice(('numba', 'numba', 'numba', 'numpy')))}": 1}


def outcome_of(folder: Path, backend: str) -> str:
    """What comes of a model that may be damaged. Anything but finite vectors and a GteError is raised."""
    try:
        check_model(folder, backend)
    except GteError as error:
        if "\n" in str(error) or not str(error):
            raise WrongAnswerError(f"a message of several lines or none: {error}") from error
        return f"refused by {type(error).__name__}"
    return "finite vectors"


def check_model(folder: Path, backend: str) -> None:
    """Load a model and use it; raise WrongAnswerError for what it must not give."""
    model = EmbeddingModel(folder, backend=backend, threads=2)
    vectors = model.encode(TEXTS)
    if vectors.shape != (len(TEXTS), model.get_sentence_embedding_dimension()) or vectors.dtype != np.float32:
        raise WrongAnswerError(f"{vectors.dtype} {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise WrongAnswerError("vectors that are not finite")


# --- inputs of jobs -----------------------------------------------------------------------------------------------


class Inputs(Kind):
    """A job over a damaged input gives the vectors of the rows that it reads, or is refused by a GteError."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._inputs = {path.name: path.read_bytes() for path in sorted((folder / "inputs").iterdir())}

    @staticmethod
    def write(folder: Path) -> None:
        """Write an input in each format, and a model."""
        write_inputs(folder / "inputs")
        small_model(folder / "model")

    def warm_up(self) -> None:
        """Do a job for each format."""
        self._model = EmbeddingModel(self.folder / "model", backend="numba", threads=2)
        for name, content in self._inputs.items():
            self._outcome(name, content, "fail")

    def call(self, random: Random) -> Mapping[str, int]:
        """Damage an input, then do a job."""
        name = random.choice(sorted(self._inputs))
        content = self._inputs[name]
        for _ in range(random.choice((1, 1, 2, 5))):
            content = damaged_bytes(random, content)
        return {self._outcome(name, content, random.choice(("fail", "skip"))): 1}

    def _outcome(self, name: str, content: bytes, on_error: str) -> str:
        source, output = self.folder / f"damaged-{name}", self.folder / "out.npy"
        source.write_bytes(content)
        options = JobOptions(field="body", id="key", keep=("year",), rows_per_shard=3, on_error=on_error)
        try:
            run_job(Job(self._model, [str(source)], options), Place.find(str(output), None), force=True)
        except GteError as error:
            if "\n" in str(error):
                raise WrongAnswerError(f"expected an error of one line, got {error}") from error
            return f"{name}: refused by {type(error).__name__}"
        finally:
            shutil.rmtree(self.folder / "out.npy.parts", ignore_errors=True)
        verify(Results(str(output)), self._model)
        return f"{name}: verified"


# --- texts --------------------------------------------------------------------------------------------------------

TEXTS_OF_A_CALL = 50


class Texts(Kind):
    """Texts of all of Unicode give finite vectors of length 1, the same bits as each text alone."""

    @staticmethod
    def write(folder: Path) -> None:
        """Write a model for each vocabulary."""
        write_chinese(folder / "chinese")
        write_english(folder / "english", FOLDER)

    def warm_up(self) -> None:
        """Load the models."""
        places = (self.folder / "chinese", self.folder / "english")
        self._models = [EmbeddingModel(place, backend="numba", threads=2) for place in places]
        for model in self._models:
            check_texts(model, [*TEXTS, "happy " * 5000, *map(str, range(100))], 200)

    def call(self, random: Random) -> Mapping[str, int]:
        """Encode texts together and alone."""
        number = random.randrange(len(self._models))
        texts = texts_of(random, TEXTS_OF_A_CALL)
        check_texts(self._models[number], texts, random.choice((1, 3, 32, 1000)))
        return {f"texts with vocabulary {number}": len(texts)}


def texts_of(random: Random, count: int) -> list[str]:
    """Texts of all kinds: of all planes of Unicode, of words, now and then a very long one."""
    texts = list(generated(count, random.getrandbits(40)))
    for place in random.sample(range(count), 10):
        texts[place] = " ".join(random.choices(SMALL_VOCAB, k=random.randrange(100)))
    if not random.randrange(20):
        texts[random.randrange(count)] = random.choice(texts) * random.choice((100, 1000))
    return texts


def check_texts(model: EmbeddingModel, texts: Sequence[str], batch_size: int) -> None:
    """Raise WrongAnswerError unless texts have vectors of length 1, the same together and alone."""
    vectors = model.encode(texts, batch_size=batch_size)
    if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5):  # NaN is not close to 1
        raise WrongAnswerError("vectors that are not of length 1")
    for text, vector in zip(texts, vectors, strict=True):
        if not np.array_equal(model.encode(text), vector):
            raise WrongAnswerError(f"another vector alone than together: {text!r:.300}")


# --- what happens to a process ------------------------------------------------------------------------------------


class Disturbed(Kind):
    """Calls of a model that something happens to: an error ends them or nothing does, and then the model works."""

    errors: tuple[type[BaseException], ...]

    @staticmethod
    def write(folder: Path) -> None:
        """Write the models."""
        write_forms(folder)

    def warm_up(self) -> None:
        """Load a model, and compute what it gives."""
        self.texts = [f"number {number} is a very happy person" * (1 + number % 5) for number in range(200)]
        self.model = EmbeddingModel(self.folder / "published", backend="numba", threads=2)
        self.expected = self.model.encode(self.texts)

    def call(self, random: Random) -> Mapping[str, int]:
        """Make a call that is disturbed, then look."""
        count = random.choice((1, 3, 30, len(self.texts)))
        try:
            found = self.disturb(random, self.texts[:count])
        except self.errors as error:
            outcome = f"ended by {type(error).__name__}"
        else:
            outcome = "answered"
            self._compare(found, count)
        self._wait_until_idle()
        self._compare(self.model.encode(self.texts[:count]), count)
        return {outcome: 1}

    @abstractmethod
    def disturb(self, random: Random, texts: list[str]) -> Any:
        """Encode texts while something happens."""

    def _compare(self, vectors: Any, count: int) -> None:
        if not np.array_equal(vectors, self.expected[:count]):
            raise WrongAnswerError("other vectors than before")

    def _wait_until_idle(self) -> None:
        while pool()._at_work:  # what was interrupted goes on; a child that waits for ever is ended
            time.sleep(0.001)


class Pressure(Disturbed):
    """Allocations fail: MemoryError, or one error of this package; then the same model gives the same bits.

    The tokenizers library ends the process when its own allocations fail, so texts become tokens before.
    """

    errors = (MemoryError, GteError)

    @staticmethod
    def write(folder: Path) -> None:
        """Write also a model whose buffers do not fit into what the C library has reserved: 64 MB for each thread."""
        Disturbed.write(folder)
        small_model(folder / "wide", num_hidden_layers=1, intermediate_size=40_000)

    def warm_up(self) -> None:
        """Load this model, too."""
        super().warm_up()
        self._wide = EmbeddingModel(self.folder / "wide", backend="numba", threads=2)

    def disturb(self, random: Random, texts: list[str]) -> Any:
        """Encode with less memory than that takes, in a model that has no buffers yet, and may need more threads."""
        model = EmbeddingModel(self.folder / "wide", backend="numba", threads=random.choice((1, 2, 2, 12)))
        batch = model.tokenize(texts[:30])
        expected = self._wide.bert.encode_batch(batch).last_hidden_state
        try:
            with growth_limited(1 << random.randrange(16, 30)):
                model.bert.encode_batch(batch)
        finally:
            if not np.array_equal(model.bert.encode_batch(batch).last_hidden_state, expected):
                raise WrongAnswerError("other states than those of an equal model")
        return self.model.encode(texts)


class LoadingPressure(Disturbed):
    """Loading fails for want of memory."""

    errors = (MemoryError, GteError)

    def disturb(self, random: Random, texts: list[str]) -> Any:
        """Load a model with less memory than that takes."""
        form = random.choice(("published", "torch", "int8", "bfloat16"))
        with growth_limited(1 << random.randrange(12, 25)):
            read = EmbeddingModel(self.folder / form, backend="numba", threads=2).bert
        return self.model.encode(texts[: len(texts) * read.config.hidden_size // 32])


class AlarmError(Exception):
    """What the handler of a signal raises."""


class Alarms(Disturbed):
    """A handler of a signal raises an error, or encodes, at any moment of a call."""

    errors = (AlarmError, KeyboardInterrupt)

    def disturb(self, random: Random, texts: list[str]) -> Any:
        """Encode until the alarm goes off, or to the end."""
        kind = random.choice(("raise", "raise", "interrupt", "encode"))

        def handle(number: int, frame: FrameType | None) -> None:
            if kind == "encode":
                self._compare(self.model.encode(self.texts[:2]), 2)
            else:
                raise AlarmError if kind == "raise" else KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, handle)
        try:
            signal.setitimer(signal.ITIMER_REAL, random.choice((0.0001, 0.001, 0.005)) * (random.random() + 0.01))
            return self.model.encode(texts)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


class Deaths(Disturbed):
    """A caller's thread is ended by an error from outside, at any moment of a call."""

    errors = (AlarmError,)

    def disturb(self, random: Random, texts: list[str]) -> Any:
        """Encode in a thread that is killed, beside one that is not."""
        ended: list[BaseException] = []

        def encode() -> None:
            try:
                for _ in range(50):
                    self.model.encode(texts)
            except AlarmError as error:
                ended.append(error)

        victim = threading.Thread(target=encode)
        victim.start()
        time.sleep(random.random() * 0.01)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(victim.ident or 0), ctypes.py_object(AlarmError))
        vectors = self.model.encode(texts)
        victim.join()
        if ended:
            raise ended[0]
        return vectors


class Forks(Disturbed):
    """A process is forked by a handler of a signal, amidst a call, and its child uses the model."""

    errors = ()

    def disturb(self, random: Random, texts: list[str]) -> Any:
        """Encode, and fork before the end."""
        children: list[int] = []

        def fork(number: int, frame: FrameType | None) -> None:
            child = os.fork()
            if child:
                children.append(child)
                return
            try:
                signal.alarm(5)
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                self._compare(self.model.encode(self.texts[:40]), 40)
                EmbeddingModel(self.folder / "int8", backend="numba").encode("happy")
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(1)

        before = signal.signal(signal.SIGALRM, fork)
        signal.setitimer(signal.ITIMER_REAL, 0.0001 + random.choice((0.001, 0.005)) * random.random())
        try:
            return self.model.encode(texts)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            for child in children:
                if os.waitpid(child, 0)[1]:
                    raise WrongAnswerError("a child that did not end well")


# --- many calls ---------------------------------------------------------------------------------------------------


class Repeated(Kind):
    """Calls of all kinds, one after another: as many files are open as before, and memory does not grow."""

    most_growth = 8_000_000  # bytes, from the first calls to any later one

    @staticmethod
    def write(folder: Path) -> None:
        """Write the models."""
        write_forms(folder)

    def warm_up(self) -> None:
        """Make calls of all kinds."""
        self._model = EmbeddingModel(self.folder / "published", backend="numba", threads=2)
        self._calls = 0
        for number in range(300):
            self._use(Random(number))
        self._files: int | None = None
        self._memory = resident()

    def call(self, random: Random) -> Mapping[str, int]:
        """Use a model, then look."""
        outcome = self._use(random)
        self._calls += 1
        files = self._files = self._files or open_files()
        if open_files() != files:
            raise WrongAnswerError(f"{open_files()} open files, not {files}")
        if self._calls % 100 == 0 and resident() > self._memory + self.most_growth:
            raise WrongAnswerError(f"{resident()} bytes of memory, not {self._memory}")
        return {outcome: 1}

    def _use(self, random: Random) -> str:
        kind = random.randrange(20)
        if kind == 0:
            form = random.choice(FORMS)
            EmbeddingModel(self.folder / form, backend=random.choice(("numba", "numpy"))).encode(TEXTS)
            return f"loaded {form}"
        try:
            self._model.encode([*texts_of(random, 10), *(["\ud800"] if kind == 1 else [])], batch_size=7)
        except GteError:
            return "refused"
        return "encoded"


KINDS: Mapping[str, type[Kind]] = {
    "checkpoints": Checkpoints,
    "inputs": Inputs,
    "texts": Texts,
    "pressure": Pressure,
    "loading-pressure": LoadingPressure,
    "alarms": Alarms,
    "deaths": Deaths,
    "forks": Forks,
    "repeated": Repeated,
}
