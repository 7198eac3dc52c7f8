"""A model hub on 127.0.0.1, for the real huggingface_hub client, and the client's environment to go with it.

    with HubServer({"owner/name": folder, "owner/name@branch": other}) as hub, client_environment(home, hub.endpoint):
        ...                              # `import huggingface_hub` in here sees this hub and a cache in `home`
        assert hub.files("GET") == [...]

The client reads HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE once, when it is imported, and derives several constants
from them. To patch these would tie the tests to one version of the client. So `client_environment` sets the
variables and makes Python forget the module: the next import, which takes 50 ms, reads them as a user's process
would. A child process started inside inherits them too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock
from urllib.parse import unquote, urlsplit

_REPOSITORY = r"(?P<name>[^/]+/[^/]+|[^/]+)"
_ROUTES = (
    ("harnesses", re.compile(r"/api/agent-harnesses")),  # the client asks for it once, of its own accord
    ("info", re.compile(rf"/api/models/{_REPOSITORY}/revision/(?P<revision>[^/]+)")),
    ("tree", re.compile(rf"/api/models/{_REPOSITORY}/tree/(?P<revision>[^/]+)")),
    ("info", re.compile(rf"/api/models/{_REPOSITORY}")),
    ("file", re.compile(rf"/{_REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<file>.+)")),
)
_LARGE = (".safetensors", ".bin")  # kept in LFS by the real hub: named by SHA-256, and not by git's SHA-1


class Request(NamedTuple):
    """What a client has asked for; `range` is its Range header or ""."""

    method: str
    path: str
    range: str


class HubServer(ThreadingHTTPServer):
    """Serves folders as repositories: `{"owner/name": folder}`, or "owner/name@branch" beside the main branch.

    `token`: the one that all requests need. `failures`: the status and the X-Error-Code of the answer to a request
    whose path contains the key. `cut`: breaks connections inside a file.
    """

    daemon_threads = False  # so that closing waits for the threads

    def __init__(self, repositories: dict[str, Path], token: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.token = token
        self.failures: dict[str, tuple[int, str]] = {}
        self.requests: list[Request] = []
        self.cuts: dict[str, tuple[int, bool]] = {}
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def endpoint(self) -> str:
        """The value for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, method: str = "GET") -> list[str]:
        """The names of the files that were asked for, sorted, each as often as it was."""
        asked = (_route(request.path) for request in self.requests if request.method == method)
        return sorted(found["file"] for found in asked if "file" in found)

    def ranges(self, file: str) -> list[str]:
        """The Range headers of the GET requests for a file, "" for those that had none."""
        return [asked.range for asked in self.requests if asked.method == "GET" and asked.path.endswith(file)]

    def cut(self, file: str, after: int, always: bool = False) -> None:
        """Break the connection at byte `after` of a file: the next time, or whenever a response comes to it."""
        self.cuts[file] = (after, always)

    def cut_of(self, file: str) -> int | None:
        """The byte at which this response is to be broken."""
        after, always = self.cuts.get(file, (None, True))
        if not always:
            del self.cuts[file]
        return after

    def find(self, name: str, revision: str) -> tuple[Path, str] | None:
        """The folder and the commit of a revision: a branch or a commit."""
        for key, folder in self.repositories.items():
            repository, _, branch = key.partition("@")
            commit = commit_of(folder)
            if repository == name and revision in (branch or "main", commit):
                return folder, commit
        return None

    def has(self, name: str) -> bool:
        """Whether there is such a repository, whatever its revisions."""
        return any(key.partition("@")[0] == name for key in self.repositories)


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.0, one request for each connection: no connection is left open when the server closes."""

    server: HubServer
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append(Request(self.command, path, self.headers.get("Range", "")))
        failure = next((found for part, found in self.server.failures.items() if part in path), None)
        if failure is not None:
            self._refuse(*failure)
        elif self._is_allowed():
            self._serve(_route(path))

    def _is_allowed(self) -> bool:
        """Check the token, and answer as the real hub does, which does not tell "private" from "not there"."""
        sent = self.headers.get("Authorization")
        if not self.server.token or sent == f"Bearer {self.server.token}":
            return True
        if sent is None:
            self._refuse(HTTPStatus.UNAUTHORIZED, "RepoNotFound")
        else:
            self._refuse(HTTPStatus.UNAUTHORIZED, "", "Invalid credentials in Authorization header")
        return False

    def _serve(self, route: dict[str, str]) -> None:
        if route.get("kind") == "harnesses":
            self._send_json({"standardEnvVars": [], "harnesses": {}})
            return
        name, revision = route.get("name", ""), route.get("revision", "main")
        found = self.server.find(name, revision)
        if not self.server.has(name):
            self._refuse(HTTPStatus.UNAUTHORIZED, "RepoNotFound")
        elif found is None:
            self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
        else:
            getattr(self, f"_serve_{route['kind']}")(route, *found)

    def _serve_info(self, route: dict[str, str], folder: Path, commit: str) -> None:
        siblings = [{"rfilename": name} for name in _names(folder)]
        self._send_json({"id": route["name"], "sha": commit, "private": False, "siblings": siblings})

    def _serve_tree(self, route: dict[str, str], folder: Path, commit: str) -> None:
        self._send_json([_tree_entry(folder, name) for name in _names(folder)])

    def _serve_file(self, route: dict[str, str], folder: Path, commit: str) -> None:
        name = route["file"]
        if name not in _names(folder):
            self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound")
            return
        content = (folder / name).read_bytes()
        start = self._start_of_range()
        self.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        self._send_file_headers(name, content, commit, start)
        if self.command == "GET":
            self._send_content(content, start, self.server.cut_of(name))

    def _start_of_range(self) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match else 0

    def _send_file_headers(self, name: str, content: bytes, commit: str, start: int) -> None:
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{_etag(name, content)}"',
            "Accept-Ranges": "bytes",
            "Content-Length": str(len(content) - start),
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if name.endswith(_LARGE):
            headers |= {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(len(content))}
        self._send_headers(headers)

    def _send_content(self, content: bytes, start: int, cut: int | None) -> None:
        with suppress(ConnectionError):  # the client may have left
            self.wfile.write(content[start:cut])
            if cut is not None:
                self.connection.shutdown(socket.SHUT_RDWR)

    def _send_json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(HTTPStatus.OK)
        self._send_headers({"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _refuse(self, status: int, code: str, message: str = "") -> None:
        self.send_response(status)
        self._send_headers({"X-Error-Code": code, "X-Error-Message": message, "Content-Length": "0"})

    def _send_headers(self, headers: dict[str, str]) -> None:
        for key, value in headers.items():
            if value:
                self.send_header(key, value)
        self.end_headers()


def _route(path: str) -> dict[str, str]:
    for kind, pattern in _ROUTES:
        if match := pattern.fullmatch(path):
            return {"kind": kind} | {key: unquote(value) for key, value in match.groupdict().items()}
    return {}


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def commit_of(folder: Path) -> str:
    """The commit that stands for the folder's present content."""
    state = hashlib.sha1(usedforsecurity=False)
    for name in _names(folder):
        state.update(f"{name} {_etag(name, (folder / name).read_bytes())}\n".encode())
    return state.hexdigest()


def _etag(name: str, content: bytes) -> str:
    if name.endswith(_LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _tree_entry(folder: Path, name: str) -> dict[str, Any]:
    content = (folder / name).read_bytes()
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": _etag("", content)}
    if name.endswith(_LARGE):
        entry["lfs"] = {"oid": _etag(name, content), "size": len(content), "pointerSize": 130}
    return entry


@contextmanager
def client_environment(home: Path, endpoint: str, **settings: str) -> Iterator[None]:
    """Inside, huggingface_hub knows these settings and none of the user's: no token, no cache, no proxy."""
    with mock.patch.dict(os.environ):
        for name in filter(_is_setting, list(os.environ)):
            del os.environ[name]
        os.environ.update(HF_HOME=str(home), HF_ENDPOINT=endpoint, NO_PROXY="127.0.0.1")
        os.environ.update(HF_HUB_DISABLE_SYMLINKS_WARNING="1", **settings)
        before = _forget_client()
        try:
            yield
        finally:
            _forget_client()
            sys.modules.update(before)


def _is_setting(name: str) -> bool:
    return name.upper().startswith(("HF_", "HUGGING", "TRANSFORMERS_")) or name.upper().endswith("_PROXY")


def _forget_client() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]
    return {name: sys.modules.pop(name) for name in names}
