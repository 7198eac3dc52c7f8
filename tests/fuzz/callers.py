"""Threads that encode texts of all lengths, all at once, while others load models and drop them."""

from __future__ import annotations

import gc
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from gte_np import EmbeddingModel
from tests.fuzz.memory import open_files, resident
from tests.fuzz.models import FORMS, write_forms
from tests.texts import of_length

CALLERS, LOADERS = 32, 4
FORM = "published"


class Report(NamedTuple):
    """What came of it: how many calls and loads, how many vectors were wrong, and memory and open files over time.

    These are looked at while nobody works, and without the buffers that models keep for the next call, of which there
    are as many as there were threads at work at once: what is in use then was kept.
    """

    calls: int
    loads: int
    wrong: int
    megabytes: list[int]
    files: list[int]

    def is_wrong(self) -> bool:
        """Whether a vector was wrong, memory grew from its first third to its last, or a file stayed open."""
        third = len(self.megabytes) // 3
        grown = max(self.megabytes[-third:]) - max(self.megabytes[:third])
        return bool(self.wrong) or grown > 0.1 * self.megabytes[0] or len(set(self.files)) > 1


class Callers:
    """The work of the threads, until they are told to end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ended = threading.Event()
        self.calls = self.loads = self.wrong = 0
        self._changed = threading.Condition()
        self._at_work, self._at_rest = 0, False
        self.texts = [of_length(random.choice((1, 5, 20, 60, 300)), seed) for seed, random in _randoms(200)]
        self._models = [EmbeddingModel(folder / FORM, backend="numba", threads=count) for count in (1, 2, 4)]
        self._expected = {form: self._load(form).encode(self.texts) for form in FORMS}

    def _load(self, form: str) -> EmbeddingModel:
        return EmbeddingModel(self.folder / form, backend="numba")

    def encode(self, number: int) -> None:
        """Encode a few texts again and again."""
        random = Random(number)
        while not self.ended.is_set():
            with self._working():
                self._check(random.choice(self._models), FORM, random)
            self._count("calls")

    def load(self, number: int) -> None:
        """Load a model, use it once, and drop it, again and again."""
        random = Random(-1 - number)
        while not self.ended.is_set():
            form = random.choice(FORMS)
            with self._working():
                self._check(self._load(form), form, random)
            self._count("loads")

    def buffers(self) -> int:
        """The size of what models keep for the next call, in bytes."""
        encoders: list[Any] = [model.bert._encoder for model in self._models]
        return sum(workspace._memory.nbytes for encoder in encoders for workspace in encoder._idle)

    def _count(self, what: str) -> None:
        with self._changed:
            setattr(self, what, getattr(self, what) + 1)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Work, unless all rest."""
        with self._changed:
            self._changed.wait_for(lambda: not self._at_rest)
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Wait until nobody works, and let nobody begin."""
        with self._changed:
            self._at_rest = True
            self._changed.wait_for(lambda: not self._at_work)
        try:
            yield
        finally:
            with self._changed:
                self._at_rest = False
                self._changed.notify_all()

    def _check(self, model: EmbeddingModel, form: str, random: Random) -> None:
        numbers = random.sample(range(len(self.texts)), random.choice((1, 1, 2, 10, 50)))
        vectors = model.encode([self.texts[number] for number in numbers], batch_size=random.choice((1, 4, 32)))
        if not np.array_equal(vectors, self._expected[form][numbers]):
            self._count("wrong")


def _randoms(count: int) -> list[tuple[int, Random]]:
    return [(seed, Random(seed)) for seed in range(count)]


def call_at_once(seconds: float, samples: int = 30) -> Report:
    """Let all threads work for so many seconds; raise what one of them raises."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(CALLERS + LOADERS) as executor:
        write_forms(Path(folder))
        callers = Callers(Path(folder))
        works: list[Callable[[int], None]] = [*[callers.encode] * CALLERS, *[callers.load] * LOADERS]
        try:
            futures = [executor.submit(work, number) for number, work in enumerate(works)]
            megabytes, files = [], []
            for _ in range(samples):
                time.sleep(seconds / samples)
                with callers.resting():
                    gc.collect()
                    megabytes.append((resident() - callers.buffers()) // 10**6)
                    files.append(open_files())
        finally:
            callers.ended.set()
        for future in futures:
            future.result()
        return Report(callers.calls, callers.loads, callers.wrong, megabytes, files)


if __name__ == "__main__":
    logging.disable()
    found = call_at_once(float(sys.argv[1]))
    print(found)
    sys.exit(found.is_wrong())
