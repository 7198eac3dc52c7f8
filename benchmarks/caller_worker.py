"""A process that has loaded a model and lets callers encode texts: one JSON object a line, in and out.

It is run by its path with another checkout on PYTHONPATH, so it imports nothing but gte_np.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np

from gte_np import EmbeddingModel


def main(folder: str, threads: int) -> None:
    """Read the texts, then answer until the input ends."""
    texts: list[str] = json.loads(sys.stdin.readline())
    model = EmbeddingModel(folder, backend="numba", threads=threads)
    expected = model.encode(texts)
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        found, seconds, latencies = _run(model, texts, **json.loads(line))
        wrong = int((found != expected).any(axis=1).sum())
        print(json.dumps({"seconds": seconds, "latencies": latencies, "wrong": wrong}), flush=True)


def _run(model: Any, texts: list[str], door: str, callers: int) -> tuple[Any, float, list[float]]:
    """The vectors, the seconds of all, and those of each call."""
    if door == "all":
        start = time.perf_counter()
        found = model.encode(texts)
        return found, time.perf_counter() - start, []
    run = _in_tasks if door == "tasks" else _in_threads
    results: list[Any] = [None] * len(texts)
    seconds = run(model, texts, results, callers)
    return np.stack([vector for vector, _ in results]), seconds, [latency for _, latency in results]


def _in_threads(model: Any, texts: list[str], results: list[Any], callers: int) -> float:
    """A text a call, each caller a share of the texts in a thread of its own."""
    start_together = Barrier(callers + 1)

    def call(first: int) -> None:
        start_together.wait()
        for number in range(first, len(texts), callers):
            start = time.perf_counter()
            vector = model.encode(texts[number])
            results[number] = vector, time.perf_counter() - start

    with ThreadPoolExecutor(callers) as executor:
        futures = [executor.submit(call, first) for first in range(callers)]
        start_together.wait()
        return _seconds(lambda: [future.result() for future in futures])


def _in_tasks(model: Any, texts: list[str], results: list[Any], callers: int) -> float:
    """The same in one thread, by `aencode`."""

    async def call(first: int) -> None:
        for number in range(first, len(texts), callers):
            start = time.perf_counter()
            vector = await model.aencode(texts[number])
            results[number] = vector, time.perf_counter() - start

    async def call_all() -> None:
        await asyncio.gather(*map(call, range(callers)))

    return _seconds(lambda: asyncio.run(call_all()))


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
