"""Requests to a server, by many clients at once: python -m benchmarks.serve.

The server is a process of its own, `gte-np serve`, and so are the clients: each sends one short text after the other
to /v1/embeddings over one connection, asks for base64 as OpenAI's clients do, and checks each vector against
`encode`, bit by bit, after the time is taken. The texts have about 23 tokens on average. `encode` of all texts in one
call is measured before and after, and the mean is taken.

Prints what it measures; the last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gte_np import EmbeddingModel
from scripts.server import serving
from tests.texts import of_length

FOLDER = Path(".models/benchmarks/gte-small")
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Reply(NamedTuple):
    """What came for a text, and after how many seconds."""

    text: int
    seconds: float
    body: bytes


def main() -> None:
    """Measure, and print."""
    options = _options()
    model = EmbeddingModel(options.model, threads=options.threads)
    texts = short_texts(model, options.requests)
    model.encode(texts[:64])
    before = offline(model, texts)
    threads = [] if options.threads is None else ["--threads", str(options.threads)]
    with serving(options.model, *threads) as address:
        port = int(address.rpartition(":")[2])
        asyncio.run(clients(port, texts[:256], options.clients))  # what is used first is loaded
        begin = time.perf_counter()
        replies = asyncio.run(clients(port, texts, options.clients))
        seconds = time.perf_counter() - begin
    after = offline(model, texts)
    check(replies, model.encode(texts))
    times = np.array([reply.seconds for reply in replies])
    result = {
        "clients": options.clients,
        "requests": len(texts),
        "encode_texts_per_second": round(len(texts) / statistics.mean((before, after)), 1),
        "served_texts_per_second": round(len(texts) / seconds, 1),
        "share_of_encode": round(statistics.mean((before, after)) / seconds, 3),
        "p50_ms": round(float(np.percentile(times, 50)) * 1e3, 1),
        "p99_ms": round(float(np.percentile(times, 99)) * 1e3, 1),
    }
    for name, value in result.items():
        print(f"{name:<24} {value}")
    print(json.dumps(result))


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(FOLDER))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


def short_texts(model: EmbeddingModel, count: int) -> list[str]:
    """Different texts of mixed lengths, log-normal in words."""
    words = np.clip(np.random.default_rng(0).lognormal(2.5, 0.6, count), 1, 40).astype(int)
    texts = [f"{number} {of_length(int(length), seed=number)}" for number, length in enumerate(words)]
    print(f"{model.tokenize(texts).lengths.mean():.1f} tokens a text")
    return texts


def offline(model: EmbeddingModel, texts: Sequence[str]) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    model.encode(texts)
    return time.perf_counter() - begin


async def clients(port: int, texts: Sequence[str], count: int) -> list[Reply]:
    """Send each text once, by so many clients."""
    waiting = iter(enumerate(texts))
    return [reply for part in await asyncio.gather(*(client(port, waiting) for _ in range(count))) for reply in part]


async def client(port: int, waiting: Iterator[tuple[int, str]]) -> list[Reply]:
    """Send one text after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    replies = []
    for number, text in waiting:
        body = json.dumps({"input": text, "encoding_format": "base64"}).encode()
        begin = time.perf_counter()
        writer.write(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = LENGTH.search(head)
        assert length is not None
        content = await reader.readexactly(int(length[1]))
        replies.append(Reply(number, time.perf_counter() - begin, content))
    writer.close()
    return replies


def check(replies: Sequence[Reply], expected: Any) -> None:
    """Raise AssertionError for a vector that is not that of its text."""
    assert sorted(reply.text for reply in replies) == list(range(len(expected)))
    for reply in replies:
        (row,) = json.loads(reply.body)["data"]
        assert np.array_equal(np.frombuffer(base64.b64decode(row["embedding"]), "<f4"), expected[reply.text])


if __name__ == "__main__":
    main()
