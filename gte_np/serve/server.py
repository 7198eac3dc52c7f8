"""The server: one process that listens, and that answers all it has accepted before it ends."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from gte_np.errors import InputError
from gte_np.files import naming
from gte_np.serve.app import load_app

_BACKLOG = 2048


class _Server(uvicorn.Server):
    """uvicorn's, which says where it listens once it does."""

    address = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"gte-np: serving at {self.address}", file=sys.stderr, flush=True)


def serve(options: Namespace) -> None:
    """Load the models and serve them until SIGTERM or Ctrl-C; then answer what was accepted.

    Raises InputError for options that cannot be, OSError for an address that cannot be listened on, and what
    `EmbeddingModel` raises.
    """
    with _listening(options) as (listener, address):
        config = uvicorn.Config(
            load_app(options),
            lifespan="on",
            ws="none",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
        )
        server = _Server(config)
        server.address = address
        # uvicorn raises the signal again when it is done.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: None)
        server.run(sockets=[listener])


@contextmanager
def _listening(options: Namespace) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens as the options say, and its address."""
    if options.uds is not None:
        with _unix_socket(Path(options.uds)) as listener:
            yield listener, f"unix:{options.uds}"
        return
    if not 0 <= options.port <= 65535:
        raise InputError(f"expected a port from 0 to 65535, got {options.port}.")
    with naming(f"{options.host} port {options.port}"), _tcp_socket(options.host, options.port) as listener:
        host, port = listener.getsockname()[:2]
        yield listener, f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _tcp_socket(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family, backlog=_BACKLOG)


@contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode) and not _is_listened_on(path):
            path.unlink()  # what a server that was killed left
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with naming(str(path)):
            listener.bind(os.fspath(path))
        try:
            listener.listen(_BACKLOG)
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _is_listened_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        return True
