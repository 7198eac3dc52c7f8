"""The queue: batches within the budget, short requests before the rest of long ones, limits, those who go away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import numpy as np
import pytest

from gte_np.serve.problems import RequestError
from gte_np.serve.scheduler import Answer, Scheduler
from gte_np.token_batch import TokenArray, TokenBatch


class Recorder:
    """Computes the first token of each text, when it is let; remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.tokens: list[int] = []
        self.queued: list[int] = []
        self.may_go = threading.Event()
        self.error: Exception | None = None

    def __call__(self, batch: TokenBatch, task: Any) -> Sequence[int]:
        self.batches.append([int(batch[text][0]) for text in range(len(batch))])
        assert self.may_go.wait(20)
        if self.error is not None:
            raise self.error
        return self.batches[-1]

    def queue(self, requests: int) -> None:
        self.queued.append(requests)

    def batch(self, texts: int, tokens: int) -> None:
        self.tokens.append(tokens)


def texts(first: int, count: int, length: int) -> list[TokenArray]:
    """Texts of one length, whose first tokens tell them apart."""
    return [np.full(length, first + number, np.int32) for number in range(count)]


def run(recorder: Recorder, work: Any, budget: int = 40, most: int = 8) -> Any:
    """Run work(scheduler) in a loop of its own."""

    async def main() -> Any:
        scheduler = Scheduler(recorder, budget, most, recorder)
        try:
            return await asyncio.wait_for(work(scheduler), 30)
        finally:
            recorder.may_go.set()
            scheduler.close()

    return asyncio.run(main())


async def begun(recorder: Recorder) -> None:
    while not recorder.batches:
        await asyncio.sleep(0.001)


def started(work: Coroutine[Any, Any, Answer]) -> asyncio.Task[Answer]:
    return asyncio.ensure_future(work)


def test_requests_merge_and_long_ones_are_divided() -> None:
    """While one batch is computed, a long request and then a short one come: the short one is in the next batch."""
    recorder = Recorder()

    async def work(scheduler: Scheduler) -> list[Answer]:
        first = started(scheduler.submit(texts(1, 1, 10), "task"))
        await begun(recorder)
        long = started(scheduler.submit(texts(100, 9, 10), "task"))
        await asyncio.sleep(0)
        short = started(scheduler.submit(texts(50, 1, 10), "task"))
        await asyncio.sleep(0)
        recorder.may_go.set()
        return [await first, await long, await short]

    answers = run(recorder, work)
    assert [answer.results for answer in answers] == [[1], list(range(100, 109)), [50]]
    assert recorder.batches == [[1], [100, 50, 101, 102], [103, 104, 105, 106], [107, 108]]
    assert recorder.tokens == [10, 40, 40, 20]
    assert recorder.queued[-1] == 0
    assert all(answer.waited >= 0 and answer.computed > 0 for answer in answers)


def test_requests_of_one_moment_share_a_batch() -> None:
    recorder = Recorder()
    recorder.may_go.set()

    async def work(scheduler: Scheduler) -> Any:
        return await asyncio.gather(*(scheduler.submit(texts(number, 1, 5), "task") for number in range(4)))

    run(recorder, work)
    assert recorder.batches == [[0, 1, 2, 3]]


def test_a_text_above_the_budget_goes_alone() -> None:
    recorder = Recorder()
    recorder.may_go.set()

    async def work(scheduler: Scheduler) -> Any:
        return await asyncio.gather(
            scheduler.submit(texts(1, 1, 5), "task"), scheduler.submit(texts(2, 1, 90), "task")
        )

    run(recorder, work)
    assert recorder.batches == [[1], [2]]


def test_only_equal_tasks_share_a_batch() -> None:
    recorder = Recorder()
    recorder.may_go.set()

    async def work(scheduler: Scheduler) -> Any:
        tasks = ("first", "second", "first")
        return await asyncio.gather(
            *(scheduler.submit(texts(number, 1, 5), task) for number, task in enumerate(tasks))
        )

    run(recorder, work)
    assert recorder.batches == [[0, 2], [1]]


def test_who_goes_away_is_forgotten() -> None:
    recorder = Recorder()

    async def work(scheduler: Scheduler) -> None:
        first = started(scheduler.submit(texts(1, 1, 10), "task"))
        await begun(recorder)
        gone = started(scheduler.submit(texts(2, 3, 10), "task"))
        stays = started(scheduler.submit(texts(9, 1, 10), "task"))
        await asyncio.sleep(0)
        gone.cancel()
        first.cancel()  # in work already: computed, and told to nobody
        recorder.may_go.set()
        assert (await stays).results == [9]
        with pytest.raises(asyncio.CancelledError):
            await gone

    run(recorder, work)
    assert recorder.batches == [[1], [9]]


def test_too_many_requests_are_refused_and_told_when_to_return() -> None:
    recorder = Recorder()

    async def request(scheduler: Scheduler) -> Answer:
        with scheduler.admitted():
            return await scheduler.submit(texts(1, 20, 1000), "task")

    async def work(scheduler: Scheduler) -> None:
        tasks = [started(request(scheduler)) for _ in range(8)]
        await begun(recorder)
        with pytest.raises(RequestError, match="overloaded") as refusal, scheduler.admitted():
            pass
        assert refusal.value.kind.status == 429
        assert refusal.value.headers == {"Retry-After": "60"}  # the limit: 159 texts at 1000 tokens a second
        recorder.may_go.set()
        await asyncio.gather(*tasks)
        with scheduler.admitted():
            pass

    run(recorder, work)


def test_an_error_is_that_of_its_batch_only() -> None:
    recorder = Recorder()
    recorder.error = MemoryError("none left")

    async def work(scheduler: Scheduler) -> None:
        recorder.may_go.set()
        results = await asyncio.gather(
            *(scheduler.submit(texts(number, 9, 10), "task") for number in range(2)), return_exceptions=True
        )
        assert [type(result) for result in results] == [MemoryError, MemoryError]
        assert scheduler.has_failed
        recorder.error = None
        assert (await scheduler.submit(texts(5, 2, 10), "task")).results == [5, 6]
        assert not scheduler.has_failed

    run(recorder, work)
    assert recorder.batches[-1] == [5, 6]
