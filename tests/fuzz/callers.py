"""Threads that encode texts of all lengths, all at once, while others load models and drop them."""

from __future__ import annotations

import gc
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from gte_np import EmbeddingModel
from tests.fuzz.memory import open_files, resident
from tests.fuzz.models import FORMS, write_forms
from tests.texts import of_length

CALLERS, LOADERS = 32, 4
FORM = "published"


class Report(NamedTuple):
    """What came of it: how many calls and loads, how many vectors were wrong, and memory and open files over time."""

    calls: int
    loads: int
    wrong: int
    megabytes: list[int]
    files: list[int]

    def is_wrong(self) -> bool:
        """Whether a vector was wrong, or memory or open files grew: from its first third to its end."""
        third = len(self.megabytes) // 3
        grown = max(self.megabytes[-third:]) - max(self.megabytes[third : 2 * third])
        more_files = min(self.files[-third:]) - min(self.files[third : 2 * third])
        return bool(self.wrong) or grown > 0.1 * self.megabytes[0] or more_files > 0


class Callers:
    """The work of the threads, until they are told to end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ended = threading.Event()
        self.calls = self.loads = self.wrong = 0
        self._lock = threading.Lock()
        self.texts = [of_length(random.choice((1, 5, 20, 60, 300)), seed) for seed, random in _randoms(200)]
        self._models = [EmbeddingModel(folder / FORM, backend="numba", threads=count) for count in (1, 2, 4)]
        self._expected = {form: self._load(form).encode(self.texts) for form in FORMS}

    def _load(self, form: str) -> EmbeddingModel:
        return EmbeddingModel(self.folder / form, backend="numba")

    def encode(self, number: int) -> None:
        """Encode a few texts again and again."""
        random = Random(number)
        while not self.ended.is_set():
            self._check(random.choice(self._models), FORM, random)
            with self._lock:
                self.calls += 1

    def load(self, number: int) -> None:
        """Load a model, use it once, and drop it, again and again."""
        random = Random(-1 - number)
        while not self.ended.is_set():
            form = random.choice(FORMS)
            self._check(self._load(form), form, random)
            with self._lock:
                self.loads += 1

    def _check(self, model: EmbeddingModel, form: str, random: Random) -> None:
        numbers = random.sample(range(len(self.texts)), random.choice((1, 1, 2, 10, 50)))
        vectors = model.encode([self.texts[number] for number in numbers], batch_size=random.choice((1, 4, 32)))
        if not np.array_equal(vectors, self._expected[form][numbers]):
            with self._lock:
                self.wrong += 1


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
                gc.collect()
                megabytes.append(resident() // 10**6)
                files.append(open_files())
        finally:
            callers.ended.set()
        for future in futures:
            future.result()
        return Report(callers.calls, callers.loads, callers.wrong, megabytes, files)
