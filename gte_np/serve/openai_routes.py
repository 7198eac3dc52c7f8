"""OpenAI's interface: POST /v1/embeddings, GET /v1/models."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gte_np.encoder_interface import FloatArray
from gte_np.serve.interface import Interface, json_response
from gte_np.serve.metrics import Metrics
from gte_np.serve.options import MOST_INPUTS, Limits
from gte_np.serve.problems import NOT_FOUND, RequestError
from gte_np.serve.requests import Door
from gte_np.serve.served_model import Reading, ServedModel, Task

ENCODINGS = ("float", "base64")
# What text-embeddings-inference's documentation calls any model that is served.
ANY_MODEL = "text-embeddings-inference"


class OpenAIInterface(Interface):
    """The routes, for all models; the first one answers requests that name none."""

    def __init__(self, models: Sequence[ServedModel], limits: Limits, door: Door, metrics: Metrics) -> None:
        super().__init__(limits, door, metrics)
        self._models = {served.name: served for served in models}
        self._first = models[0]

    def routes(self) -> list[BaseRoute]:
        """The routes."""
        return [
            Route("/v1/embeddings", self.guarded(self._embeddings), methods=["POST"]),
            Route("/v1/models", self.guarded(self._list), methods=["GET"]),
            Route("/v1/models/{name:path}", self.guarded(self._show), methods=["GET"]),
        ]

    def refusal(self, problem: RequestError) -> Response:
        """A problem as OpenAI tells it."""
        kind = problem.kind
        error = {
            "message": problem.message,
            "type": kind.openai_type,
            "param": problem.param,
            "code": problem.code,
        }
        return json_response({"error": error}, kind.openai_status, problem.headers)

    async def _embeddings(self, request: Request) -> Response:
        fields = await self.door.fields(request)
        served = self._named(fields.get("model", str, "a string"))
        inputs = self.inputs(fields, "input", min(self.limits.max_client_batch_size, MOST_INPUTS))
        encode = _base64 if fields.choice("encoding_format", ENCODINGS) == "base64" else _floats
        fields.get("user", str, "a string")
        dimension = fields.get("dimensions", int, "an integer")
        served.check_dimension(dimension, "dimensions")
        reading, task = Reading(self.limits.auto_truncate), Task(dimension=dimension)
        computed, headers = await self.compute(request, served, inputs, reading, task)
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(computed.matrix)
        ]
        usage = {"prompt_tokens": computed.tokens, "total_tokens": computed.tokens}
        answer = {"object": "list", "data": data, "model": served.name, "usage": usage}
        return json_response(answer, headers=headers)

    async def _list(self, request: Request) -> Response:
        return json_response({"object": "list", "data": [_model(served) for served in self._models.values()]})

    async def _show(self, request: Request) -> Response:
        return json_response(_model(self._named(request.path_params["name"])))

    def _named(self, name: str | None) -> ServedModel:
        if name in (None, ANY_MODEL):
            return self._first
        if name not in self._models:
            names = ", ".join(self._models)
            raise RequestError(
                NOT_FOUND,
                f"expected `model` to be one of {names}, got another",
                param="model",
                code="model_not_found",
            )
        return self._models[name]


def _floats(vector: FloatArray) -> FloatArray:
    return vector


def _base64(vector: FloatArray) -> str:
    return b64encode(vector.astype("<f4").tobytes()).decode()


def _model(served: ServedModel) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": 0, "owned_by": "gte_np"}
