"""A request's body: read within limits, parsed, and its fields checked."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson
from starlette.requests import Request

from gte_np.serve.problems import (
    MEDIA_TYPE,
    PAYLOAD,
    SLOW,
    SYNTAX,
    UNAUTHORIZED,
    VALIDATION,
    ClientGoneError,
    RequestError,
)

SECONDS_FOR_BODY = 60.0
_MOST_DISCARDED = 1 << 26  # bytes that are read after a body is known to be too long, so that the error is seen

Value = TypeVar("Value")


class Door:
    """Who may come in, and how large a body may be."""

    def __init__(self, api_key: str | None, payload_limit: int) -> None:
        self._digest = None if api_key is None else _digest(f"Bearer {api_key}")
        self._limit = payload_limit

    def authorize(self, request: Request) -> None:
        """Raise RequestError for a wrong key, or none. The time this takes tells nothing of the key."""
        given = request.headers.get("authorization", "")
        if self._digest is not None and not hmac.compare_digest(_digest(given), self._digest):
            raise RequestError(
                UNAUTHORIZED,
                "expected the header Authorization: Bearer KEY with the server's key, got another key or none",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def fields(self, request: Request) -> Fields:
        """The fields of a body that is a JSON object. Raises RequestError for any other, and ClientGoneError."""
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise RequestError(
                MEDIA_TYPE, "expected the header Content-Type: application/json, got another one or none"
            )
        try:
            body = await asyncio.wait_for(self._body(request), SECONDS_FOR_BODY)
        except asyncio.TimeoutError as error:
            raise RequestError(
                SLOW, f"expected the body within {SECONDS_FOR_BODY:.0f} seconds, got a part of it"
            ) from error
        try:
            values = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            where = f"line {error.lineno} column {error.colno}"
            raise RequestError(SYNTAX, f"expected a body of JSON in UTF-8, got an error at {where}") from error
        if not isinstance(values, dict):
            raise RequestError(VALIDATION, f"expected a JSON object, got {_kind(values)}")
        return Fields(values)

    async def _body(self, request: Request) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            size += len(message.get("body", b""))
            if size <= self._limit:
                chunks.append(message.get("body", b""))
            if not message.get("more_body", False) or size > self._limit + _MOST_DISCARDED:
                break
        if size > self._limit:
            raise RequestError(PAYLOAD, f"length limit exceeded: expected a body of at most {self._limit} bytes")
        return b"".join(chunks)


class Fields:
    """The fields of a request. A field that is null counts as absent."""

    def __init__(self, values: dict[str, Any], within: str = "") -> None:
        self._values, self._within = values, within

    def get(self, name: str, kind: type[Value], what: str, default: Value | None = None) -> Value | None:
        """The value of a field. Raises RequestError if it is of another kind than `what` says."""
        value = self._values.get(name)
        if value is None:
            return default
        if kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)  # 3.0 is an integer in JSON
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.problem(name, what, _kind(value))
        return value

    def flag(self, name: str, default: bool) -> bool:
        """A field that is true or false."""
        return bool(self.get(name, bool, "true or false", default))

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """A field that is one of the choices, by default the first."""
        value = self.get(name, str, "a string", choices[0])
        if value not in choices:
            raise self.problem(name, f"one of {', '.join(choices)}", "another string")
        return str(value)

    def object(self, name: str) -> Fields:
        """A field that has fields, or none if it is absent."""
        return Fields(self.get(name, dict, "an object", {}) or {}, f"{name}.")

    def any(self, name: str) -> Any:
        """A field of any kind. Raises RequestError if it is absent."""
        value = self._values.get(name)
        if value is None:
            raise self.problem(name, "a value", "none")
        return value

    def problem(self, name: str, expected: str, got: str) -> RequestError:
        """What is to be raised for a field."""
        return RequestError(VALIDATION, f"expected `{self._within}{name}` to be {expected}, got {got}", param=name)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Value]) -> Value:
    """The result of the work, which is cancelled if the client goes away. Raises ClientGoneError then."""
    working = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(request.receive())  # after the body there is only the end of the connection
    try:
        await asyncio.wait((working, watcher), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGoneError
    finally:
        working.cancel()
        watcher.cancel()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("latin-1", "replace")).digest()


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
