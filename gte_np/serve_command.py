"""The command gte-np serve."""

from __future__ import annotations

import argparse
from typing import Any

from gte_np.errors import MissingDependencyError
from gte_np.serve.options import add_options, loading

_PACKAGES = ("orjson", "prometheus_client", "starlette", "uvicorn")


def add_serve_command(commands: Any) -> None:
    """Add the command to those of gte-np."""
    command = commands.add_parser(
        "serve", parents=[loading()], help="models over HTTP, as OpenAI's and others' clients speak it"
    )
    command.description = (
        "Serve models over HTTP: OpenAI's /v1/embeddings, text-embeddings-inference's routes, a page to try them at "
        "/, and the description of all at /docs. SIGTERM ends it after all that was accepted is answered."
    )
    add_options(command)
    command.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    try:
        from gte_np.serve.server import serve
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        raise MissingDependencyError(
            f"gte-np serve needs the package {error.name}, which is not installed: pip install 'gte_np[serve]'."
        ) from error
    serve(options)
