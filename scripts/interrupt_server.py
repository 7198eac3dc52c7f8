"""Ask a server to end under load, again and again: python -m scripts.interrupt_server MODEL --times 50.

Clients send one text after the other over connections of their own. At some instant the server gets SIGTERM. It must
then end by itself with status 0, and each request that it accepted must have been answered: the clients must have as
many answers as the server has counted requests. Prints how many there were.

Servers are then killed and started again, in turn with processes that load the model and encode a text. Prints the
medians of the times from the start of a process, to the server's first answer and to the other's vector.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple

CLIENTS = 16
# What the command does; its last line on standard output is how many requests came, and how many were answered.
PROGRAM = """
import json, sys
from gte_np.cli import main
from gte_np.serve import app
made = []
make = app.Metrics
app.Metrics = lambda: made.append(make()) or made[0]
status = main(sys.argv[1:])
counts = [sum(made[0]._counts[name].values()) for name in ("te_request_count", "te_request_success")]
print(json.dumps([*counts, dict(made[0]._counts["te_request_failure"])]))
sys.exit(status)
"""

LIBRARY = """
import sys
from gte_np import EmbeddingModel
print(EmbeddingModel(sys.argv[1]).encode("a")[0], flush=True)
"""


class Counts(NamedTuple):
    """Of one run: requests that the server accepted, that it answered, and answers that the clients have."""

    accepted: int
    answered: int
    received: int


def main() -> None:
    """Interrupt it, and print what came of that."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    source = random.Random(options.seed)
    all_counts = [asyncio.run(interrupted(options.model, source.uniform(0.05, 0.6))) for _ in range(options.times)]
    for counts in all_counts:
        assert counts.accepted == counts.answered == counts.received, counts
    starts = [(start_after_kill(options.model), start_of_library(options.model)) for _ in range(options.starts)]
    served, encoded = (statistics.median(seconds) for seconds in zip(*starts, strict=True))
    result = {
        "times": options.times,
        "requests": sum(counts.accepted for counts in all_counts),
        "lost": 0,
        "answered_after_kill_seconds": round(served, 3),
        "encoded_by_library_seconds": round(encoded, 3),
    }
    print(json.dumps(result))


async def interrupted(model: str, seconds: float) -> Counts:
    """Load a server for so long, ask it to end, and count."""
    process, port = start(model)
    work = [asyncio.ensure_future(client(port, number)) for number in range(CLIENTS)]
    await asyncio.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    received = sum(await asyncio.gather(*work))
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, process.returncode
    accepted, answered, failures = json.loads(out.splitlines()[-1])
    assert not failures, failures
    return Counts(accepted, answered, received)


def start(model: str) -> tuple[Any, int]:
    """A server, and its port."""
    command = [sys.executable, "-c", PROGRAM, "serve", model, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    return process, next(int(line.rpartition(":")[2]) for line in process.stderr if "serving at" in line)


async def client(port: int, number: int) -> int:
    """Send texts until the server closes the connection; the number of whole answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = 0
    while True:
        body = json.dumps({"inputs": f"text {answers} of client {number}", "dimensions": 2}).encode()
        try:
            writer.write(
                b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            await reader.readexactly(length)
        except (ConnectionError, asyncio.IncompleteReadError):
            return answers
        answers += 1


def start_after_kill(model: str) -> float:
    """Kill a server; seconds from the start of the next one to its first answer."""
    process, _ = start(model)
    process.kill()
    process.communicate()
    begin = time.perf_counter()
    process, port = start(model)
    answer = asyncio.run(asyncio.wait_for(once(port), 20))
    seconds = time.perf_counter() - begin
    assert b" 200 OK" in answer
    process.kill()
    process.communicate()
    return seconds


def start_of_library(model: str) -> float:
    """Seconds from the start of a process to its first vector."""
    begin = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", LIBRARY, model], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        return time.perf_counter() - begin


async def once(port: int) -> bytes:
    """Send one text; the first bytes of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"inputs": "a"}'
    writer.write(
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    answer = await reader.read(1000)
    writer.close()
    return answer


if __name__ == "__main__":
    main()
