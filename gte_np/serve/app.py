"""The ASGI application: `create_app` for models that are loaded, and `app` for a server that hosts it.

    uvicorn gte_np.serve.app:app

loads the models that the environment variables name, at the first use of `app`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from gte_np.embedding_model import EmbeddingModel
from gte_np.errors import InputError
from gte_np.serve.interface import json_response
from gte_np.serve.metrics import CONTENT_TYPE, Metrics
from gte_np.serve.openai_routes import OpenAIInterface
from gte_np.serve.openapi import Served, description
from gte_np.serve.options import MOST_INPUTS, Limits, of_environment
from gte_np.serve.page import page
from gte_np.serve.problems import METHOD, NOT_FOUND, RequestError
from gte_np.serve.requests import Door
from gte_np.serve.served_model import ServedModel
from gte_np.serve.tei_routes import TeiInterface
from gte_np.terminal import load_named


def __getattr__(name: str) -> Any:
    """`app`, made when it is asked for."""
    if name == "app":
        return load_app(of_environment())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_app(options: Namespace) -> Starlette:
    """Load the models that the options name, and make the application.

    Raises InputError for options that cannot be, and what `EmbeddingModel` raises.
    """
    limits, names = Limits.of(options), _served_names(options)
    return create_app({name: load_named(path, options) for name, path in names.items()}, limits)


def create_app(models: Mapping[str, EmbeddingModel], limits: Limits | None = None) -> Starlette:
    """Make the application for at least one model. The first one answers requests that name none.

    With several models, text-embeddings-inference's routes of each are also below /models/NAME.
    """
    limits, metrics = limits or Limits(), Metrics()
    door = Door(limits.api_key, limits.payload_limit)
    served = [ServedModel(name, model, limits, metrics) for name, model in models.items()]
    openai = OpenAIInterface(served, limits, door, metrics)
    interfaces = [TeiInterface(model, limits, door, metrics) for model in served]
    first = interfaces[0]

    embed = first.guarded(first.embed)

    async def root(request: Request) -> Response:
        if request.method == "POST":
            return await embed(request)
        if "text/html" in request.headers.get("accept", ""):
            return page("page.html")
        return await first.health(request)

    async def answer_metrics(request: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    async def refuse(request: Request, error: Exception) -> Response:
        problem = _problem_of(error)
        metrics.failure(problem.kind.label)
        return (openai if request.url.path.startswith("/v1/") else first).refusal(problem)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        for model in served:
            model.close()

    routes: list[BaseRoute] = [
        Route("/", root, methods=["GET", "POST"]),
        Route("/metrics", answer_metrics, methods=["GET"]),
        *_documents(_described(served, limits)),
        *openai.routes(),
        *first.routes(),
        *(Mount(f"/models/{interface.served.name}", routes=interface.routes()) for interface in interfaces),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: refuse})
    app.router.redirect_slashes = False
    return app


def _documents(described: Served) -> list[BaseRoute]:
    async def openapi(request: Request) -> Response:
        return json_response(description(described))

    async def docs(request: Request) -> Response:
        return page("docs.html")

    return [Route("/openapi.json", openapi, methods=["GET"]), Route("/docs", docs, methods=["GET"])]


def _described(served: list[ServedModel], limits: Limits) -> Served:
    return Served(
        [model.name for model in served],
        sorted(served[0].model.prompts),
        min(model.model.get_sentence_embedding_dimension() for model in served),
        min(limits.max_client_batch_size, MOST_INPUTS),
        min(served[0].model.tokenizer.largest_id, served[0].model.bert.config.vocab_size - 1),
        limits.allow_token_ids,
        limits.api_key is not None,
    )


def _problem_of(error: Exception) -> RequestError:
    """A route or a method that is not there."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    headers = dict(getattr(error, "headers", None) or {})
    if status == 405:
        return RequestError(METHOD, f"expected the method {headers.get('Allow', '')}, got another", headers=headers)
    return RequestError(NOT_FOUND, "expected a path that /docs names, got another")


def _served_names(options: Namespace) -> dict[str, str]:
    """What clients call each model, and what it is loaded by."""
    paths = options.models
    if not paths:
        raise InputError("expected a model to serve, got none: give its folder or its name, or set MODEL_ID.")
    names = options.served_model_name or [_name_of(path) for path in paths]
    if len(names) != len(paths) or len(set(names)) != len(names) or not all(names):
        raise InputError(
            f"expected a name of its own for each of {len(paths)} models, got {', '.join(names)}: give "
            "--served-model-name once for each."
        )
    return dict(zip(names, paths, strict=True))


def _name_of(path: str) -> str:
    folder = Path(path)
    return folder.resolve().name if folder.is_dir() else path
