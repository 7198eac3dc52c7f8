"""What can be wrong with a request: one exception, which each interface puts in its own form."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of problem: its name in the metrics, and how text-embeddings-inference and OpenAI tell of it."""

    label: str
    status: int
    error_type: str
    openai_status: int
    openai_type: str = "invalid_request_error"


VALIDATION = Kind("validation", 422, "Validation", 400)
TOKENIZATION = Kind("tokenization", 422, "Tokenizer", 400)
BATCH_SIZE = Kind("batch_size", 422, "Validation", 400)
EMPTY = Kind("empty", 400, "Empty", 400)
SYNTAX = Kind("syntax", 400, "Validation", 400)
UNAUTHORIZED = Kind("unauthorized", 401, "Unauthorized", 401)
NOT_FOUND = Kind("not_found", 404, "Validation", 404)
METHOD = Kind("method", 405, "Validation", 405)
SLOW = Kind("slow", 408, "Validation", 408)
PAYLOAD = Kind("payload", 413, "Validation", 413)
MEDIA_TYPE = Kind("media_type", 415, "Validation", 415)
BACKEND = Kind("inference", 424, "Backend", 500, "server_error")
OVERLOADED = Kind("overloaded", 429, "Overloaded", 429, "rate_limit_error")
UNHEALTHY = Kind("unhealthy", 503, "Unhealthy", 503, "server_error")


class RequestError(Exception):
    """A request that gets an error. `param` is the field at fault and `code` a name of the mistake, for OpenAI."""

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.message, self.param, self.code = kind, message, param, code
        self.headers = headers or {}


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""
