"""A server under load for long, and under too much of it: python -m benchmarks.serve_endurance [--model FOLDER].

64 clients send 5,000 short texts, one after the other, as in `benchmarks.serve`, again and again. After each round
/metrics is asked for the resident memory of the server. A second server admits half as many requests as there are
clients: the others must get status 429, and send their texts again after the seconds that Retry-After asks for. When
all are answered, as many clients as it admits send the texts, none of which may be refused. Each vector is compared
with that of `encode`, bit by bit.

Prints what it measures; the last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.request import urlopen

from benchmarks.serve import Reply, check, clients, post, short_texts
from gte_np import EmbeddingModel
from scripts.server import serving

MEMORY = re.compile(r"^process_resident_memory_bytes (\S+)", re.MULTILINE)
RETRY_AFTER = re.compile(rb"retry-after: (\d+)", re.IGNORECASE)


def main() -> None:
    """Measure, and print."""
    options = _options()
    model = EmbeddingModel(options.model)
    texts = short_texts(model, options.texts)
    expected = model.encode(texts)
    result = {
        "clients": options.clients,
        "texts": len(texts),
        "megabytes": endure(texts, expected, options),
        "overload": overload(texts, expected, options),
    }
    print(json.dumps(result))


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=".models/all-MiniLM-L6-v2")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=20)
    return parser.parse_args()


def endure(texts: Sequence[str], expected: Any, options: Any) -> list[float]:
    """The megabytes of a server before the first request and after each round."""
    with serving(options.model) as address:
        megabytes = [memory(address)]
        for number in range(1, options.rounds + 1):
            check(asyncio.run(clients(_port(address), texts, options.clients)), expected, same_bits=True)
            megabytes.append(memory(address))
            print(f"{number * len(texts)} requests: {megabytes[-1]} MB", flush=True)
    return megabytes


def overload(texts: Sequence[str], expected: Any, options: Any) -> dict[str, Any]:
    """How often a server refused, for how many seconds, and how many requests it then answered without refusing."""
    admitted = options.clients // 2
    with serving(options.model, "--max-concurrent-requests", str(admitted)) as address:
        waits: list[int] = []
        replies = asyncio.run(patient_clients(_port(address), texts, options.clients, waits))
        check(replies, expected, same_bits=True)
        assert waits, "expected that some requests are refused"
        assert min(waits) >= 1
        check(asyncio.run(clients(_port(address), texts, admitted)), expected, same_bits=True)
    return {
        "admitted_at_once": admitted,
        "answered": len(replies),
        "refused": len(waits),
        "retry_after_seconds": sorted(set(waits)),
        "answered_afterwards": len(texts),
    }


def memory(address: str) -> float:
    """The resident memory of a server, in megabytes."""
    with urlopen(f"{address}/metrics", timeout=60) as answer:
        found = MEMORY.search(answer.read().decode())
    assert found is not None
    return round(float(found[1]) / 1e6, 1)


async def patient_clients(port: int, texts: Sequence[str], count: int, waits: list[int]) -> list[Reply]:
    """Send each text, by so many clients, until it is answered; `waits` gets the seconds that were asked for."""
    waiting = iter(enumerate(texts))
    parts = await asyncio.gather(*(patient_client(port, waiting, waits) for _ in range(count)))
    return [reply for part in parts for reply in part]


async def patient_client(port: int, waiting: Iterator[tuple[int, str]], waits: list[int]) -> list[Reply]:
    """Send one text after the other, each again after a refusal."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    replies = []
    for number, text in waiting:
        begin = loop.time()
        while not (answer := await post(reader, writer, text))[0].startswith(b"HTTP/1.1 200"):
            assert answer[0].startswith(b"HTTP/1.1 429"), answer
            asked = RETRY_AFTER.search(answer[0])
            assert asked is not None
            waits.append(int(asked[1]))
            await asyncio.sleep(waits[-1])
        replies.append(Reply(number, loop.time() - begin, answer[1]))
    writer.close()
    return replies


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


if __name__ == "__main__":
    main()
