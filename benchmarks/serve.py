"""Requests to a server, by many clients at once: python -m benchmarks.serve [--peers NAME...].

The server is a process of its own, `gte-np serve`. This process is the clients: each sends one short text after the
other to /v1/embeddings over one connection and asks for base64, as OpenAI's clients do. Each vector is compared with
that of `encode`, bit by bit, after the time is taken. The texts have 23 tokens on average. `encode` of all texts
in one call is measured in the same turns. A peer is an engine of `benchmarks.engines` behind FastAPI (`peer_server`);
" merged" behind its name lets it compute together what waits. Figures are medians of all turns.

Prints what it measures; the last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.engines import ENGINES
from gte_np import EmbeddingModel
from scripts.server import serving
from tests.texts import of_length

FOLDER = Path(".models/benchmarks/gte-small")
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
MERGED = " merged"
LEAST_COSINE = 0.999  # of a peer's vector with ours


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
    expected = model.encode(texts)
    results: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.turns):
        begin = time.perf_counter()
        model.encode(texts)
        offline = len(texts) / (time.perf_counter() - begin)
        results.setdefault("encode", []).append({"texts_per_second": offline})
        for name in ("gte_np", *options.peers):
            results.setdefault(name, []).append(load(name, texts, expected, options))
    summary = {
        name: {figure: round(median(turn[figure] for turn in turns), 4) for figure in turns[0]}
        for name, turns in results.items()
    }
    for name, figures in summary.items():
        print(f"{name:<32} " + "  ".join(f"{figure} {value:.4g}" for figure, value in figures.items()))
    print(json.dumps({"clients": options.clients, "requests": len(texts), "results": summary}))


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=str(FOLDER))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--peers", nargs="*", default=[], choices=[*ENGINES, *(name + MERGED for name in ENGINES)])
    return parser.parse_args()


def load(name: str, texts: Sequence[str], expected: Any, options: Any) -> dict[str, float]:
    """Start a server, let it load what it uses first, and send all texts."""
    server = (
        serving(options.model, "--threads", str(options.threads)) if name == "gte_np" else peer_serving(name, options)
    )
    with server as address:
        port = int(address.rpartition(":")[2])
        asyncio.run(clients(port, texts[:256], options.clients))
        begin = time.perf_counter()
        replies = asyncio.run(clients(port, texts, options.clients))
        seconds = time.perf_counter() - begin
    check(replies, expected, same_bits=name == "gte_np")
    p50, p99 = np.percentile([reply.seconds for reply in replies], (50, 99)).tolist()
    return {"texts_per_second": len(texts) / seconds, "p50": p50, "p99": p99}


@contextmanager
def peer_serving(name: str, options: Any) -> Iterator[str]:
    """Serve by another engine; the address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    engine = name.removesuffix(MERGED)
    command = [sys.executable, "-m", "benchmarks.peer_server", engine, options.model, str(port)]
    command += ["--threads", str(options.threads)] + ["--merge"] * (engine != name)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    if process.poll() is not None:
                        raise RuntimeError(f"{command} ended with status {process.returncode}.") from None
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def short_texts(model: EmbeddingModel, count: int) -> list[str]:
    """Different texts of mixed lengths, log-normal in words."""
    words = np.clip(np.random.default_rng(0).lognormal(2.5, 0.6, count), 1, 40).astype(int)
    texts = [f"{number} {of_length(int(length), seed=number)}" for number, length in enumerate(words)]
    print(f"{model.tokenize(texts).lengths.mean():.1f} tokens a text")
    return texts


async def clients(port: int, texts: Sequence[str], count: int) -> list[Reply]:
    """Send each text once, by so many clients."""
    waiting = iter(enumerate(texts))
    return [reply for part in await asyncio.gather(*(client(port, waiting) for _ in range(count))) for reply in part]


async def client(port: int, waiting: Iterator[tuple[int, str]]) -> list[Reply]:
    """Send one text after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    replies = []
    for number, text in waiting:
        begin = time.perf_counter()
        head, content = await post(reader, writer, text)
        assert head.startswith(b"HTTP/1.1 200"), head
        replies.append(Reply(number, time.perf_counter() - begin, content))
    writer.close()
    return replies


async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> tuple[bytes, bytes]:
    """Send a text; the head and the body of the answer."""
    body = json.dumps({"input": text, "encoding_format": "base64"}).encode()
    writer.write(
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    assert length is not None
    return head, await reader.readexactly(int(length[1]))


def check(replies: Sequence[Reply], expected: Any, *, same_bits: bool) -> None:
    """Raise AssertionError for a vector that is not that of its text."""
    assert sorted(reply.text for reply in replies) == list(range(len(expected)))
    for reply in replies:
        (row,) = json.loads(reply.body)["data"]
        vector = np.frombuffer(base64.b64decode(row["embedding"]), "<f4")
        if same_bits:
            assert np.array_equal(vector, expected[reply.text])
        else:
            assert vector @ expected[reply.text] > LEAST_COSINE


if __name__ == "__main__":
    main()
