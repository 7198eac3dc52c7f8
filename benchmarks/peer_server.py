"""A server as people write it, around another engine: python -m benchmarks.peer_server ENGINE MODEL PORT.

FastAPI, and behind it an engine of `benchmarks.engines`. A request is computed as soon as it comes, in a thread of
FastAPI's pool; with `--merge`, what waits is computed together, up to 32 texts at a time, by one thread.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.engines import ENGINES, Engine

BATCH = 32


class Request(BaseModel):
    """What OpenAI's clients send, as far as it is needed here."""

    input: str


class Merging:
    """Requests that wait, and a task that has them computed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: asyncio.Queue[tuple[str, asyncio.Future[Any]]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def encode(self, text: str) -> Any:
        """The vector of a text."""
        self._task = self._task or asyncio.create_task(self._work())
        future = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((text, future))
        return await future

    async def _work(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            vectors = await asyncio.to_thread(self._engine.encode_texts, [text for text, _ in batch], BATCH)
            for (_, future), vector in zip(batch, vectors, strict=True):
                future.set_result(vector)


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("model", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--merge", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    engine = ENGINES[options.engine](options.model, options.threads)
    merging = Merging(engine)
    app = FastAPI()

    if options.merge:

        @app.post("/v1/embeddings")
        async def embeddings(request: Request) -> dict[str, Any]:
            return reply(await merging.encode(request.input))

    else:

        @app.post("/v1/embeddings")
        def embeddings(request: Request) -> dict[str, Any]:
            return reply(engine.encode_texts([request.input], 1)[0])

    uvicorn.run(app, port=options.port, log_level="error")


def reply(vector: Any) -> dict[str, Any]:
    """The part of OpenAI's answer that is looked at here."""
    return {"data": [{"embedding": base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()}]}


if __name__ == "__main__":
    main()
