"""What both interfaces do with a request: let it in, read its inputs, compute, time, and answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, NamedTuple

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gte_np.serve.metrics import Metrics
from gte_np.serve.options import Limits
from gte_np.serve.problems import BACKEND, BATCH_SIZE, EMPTY, VALIDATION, ClientGoneError, RequestError
from gte_np.serve.requests import Door, Fields, unless_gone
from gte_np.serve.served_model import Computed, Input, Reading, ServedModel, Task

logger = logging.getLogger("gte_np.serve")

Handler = Callable[[Request], Awaitable[Response]]

NO_TOKEN_IDS = (
    "expected `{name}` to be texts, got token ids, which may be another tokenizer's. Send texts: LangChain's "
    "OpenAIEmbeddings does with check_embedding_ctx_length=False. If the ids are this model's, start the server with "
    "--allow-token-ids"
)


class Inputs(NamedTuple):
    """The inputs of a request, and whether it was a single one, not in a list."""

    values: list[Input]
    is_single: bool

    @property
    def method(self) -> str:
        """How the metrics call it."""
        return "single" if self.is_single else "batch"

    @property
    def characters(self) -> int:
        """How long the inputs are."""
        return sum(map(len, self.values))


class Interface:
    """What is common to both. `refusal` puts a problem into the form of one."""

    def __init__(self, limits: Limits, door: Door, metrics: Metrics) -> None:
        self.limits, self.door, self.metrics = limits, door, metrics

    def refusal(self, problem: RequestError) -> Response:
        """The answer to a request with a problem."""
        raise NotImplementedError

    def guarded(self, handler: Handler) -> Handler:
        """A handler behind the door, whose problems become answers. Of other errors only the kind is logged."""

        async def answer(request: Request) -> Response:
            try:
                self.door.authorize(request)
                return await handler(request)
            except RequestError as problem:
                self.metrics.failure(problem.kind.label)
                return self.refusal(problem)
            except ClientGoneError:
                self.metrics.failure("disconnected")
                return Response(status_code=499)
            except Exception as error:
                logger.error("a request failed: %s", type(error).__name__)
                self.metrics.failure(BACKEND.label)
                return self.refusal(RequestError(BACKEND, f"Inference failed: {type(error).__name__}"))

        return answer

    async def compute(
        self, request: Request, served: ServedModel, inputs: Inputs, reading: Reading, task: Task
    ) -> tuple[Computed, dict[str, str]]:
        """The results of the inputs, and headers that tell what they took. Raises as `ServedModel.embed`."""
        begin = perf_counter()
        self.metrics.request(inputs.method)
        computed = await unless_gone(request, served.embed(inputs.values, reading, task))
        seconds = (perf_counter() - begin, *computed.seconds)
        self.metrics.success(inputs.method, len(inputs.values), seconds)
        total, tokenization, queue, inference = (str(int(1000 * part)) for part in seconds)
        headers = {
            "x-compute-type": "cpu",
            "x-compute-time": total,
            "x-compute-characters": str(inputs.characters),
            "x-compute-tokens": str(computed.tokens),
            "x-total-time": total,
            "x-tokenization-time": tokenization,
            "x-queue-time": queue,
            "x-inference-time": inference,
        }
        return computed, headers

    def check_count(self, count: int, name: str, most: int | None = None) -> None:
        """Raise RequestError for no inputs, and for too many."""
        most = self.limits.max_client_batch_size if most is None else most
        if not count:
            raise RequestError(EMPTY, f"`{name}` cannot be empty", param=name)
        if count > most:
            raise RequestError(BATCH_SIZE, f"batch size {count} > maximum allowed batch size {most}", param=name)

    def inputs(self, fields: Fields, name: str, most: int | None = None) -> Inputs:
        """The inputs in a field: a text, or a list of texts; token ids where they are allowed."""
        value = fields.any(name)
        is_single = isinstance(value, str) or bool(as_ids(value))
        given = value if isinstance(value, list) and not is_single else [value]
        read = [text if isinstance(text, str) else as_ids(text) for text in given]
        values = [text for text in read if text is not None]
        if len(values) < len(given):
            raise fields.problem(name, "a string or a list of strings", "another value")
        self.check_count(len(values), name, most)
        if not self.limits.allow_token_ids and any(isinstance(text, list) for text in values):
            raise RequestError(VALIDATION, NO_TOKEN_IDS.format(name=name), param=name)
        if not all(values):
            raise RequestError(EMPTY, f"`{name}` cannot be empty", param=name)
        return Inputs(values, is_single)


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON. The numbers of an array in float32 read back, as float32, to the same bits."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, "application/json")


def as_ids(value: object) -> list[int] | None:
    """A list of whole numbers, which 3.0 is too in JSON; None for anything else."""
    if not isinstance(value, list):
        return None
    numbers = [int(number) if type(number) is float and number.is_integer() else number for number in value]
    return numbers if all(type(number) is int for number in numbers) else None
