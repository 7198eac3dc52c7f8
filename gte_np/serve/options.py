"""What can be set: on the command line, and by environment variables with the names that others use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from gte_np.arguments import check_integer
from gte_np.batching import TOKEN_BUDGET
from gte_np.errors import InputError
from gte_np.terminal import AS_SAVED, MODEL_HELP, Parser, loading_options

MOST_INPUTS = 2048  # of a request to OpenAI's service


@dataclass(frozen=True)
class Limits:
    """What a server allows. Raises InputError for limits below 1 and for an empty key."""

    api_key: str | None = None
    max_batch_tokens: int = TOKEN_BUDGET
    max_client_batch_size: int = MOST_INPUTS
    max_concurrent_requests: int = 512
    payload_limit: int = 2_000_000
    auto_truncate: bool = True
    allow_token_ids: bool = False

    def __post_init__(self) -> None:
        for name in ("max_batch_tokens", "max_client_batch_size", "max_concurrent_requests", "payload_limit"):
            check_integer(name, getattr(self, name), least=1)
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            raise InputError(
                "expected an API key of printable ASCII characters, got another one: leave it out, or set it."
            )

    @classmethod
    def of(cls, options: Any) -> Limits:
        """The limits among the options of a command."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})


class _Setting(NamedTuple):
    """An option, its environment variable, and what argparse has to know."""

    flags: tuple[str, ...]
    variable: str
    help: str
    kind: Any
    default: Any = None


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError
    return text.lower() in ("true", "1")


_truth.__name__ = "true or false:"  # as argparse names it

_SETTINGS = (
    _Setting(("--host", "--hostname"), "GTE_NP_HOST", "address to listen on", str, "127.0.0.1"),
    _Setting(("-p", "--port"), "PORT", "port to listen on; 0 takes a free one", int, 3000),
    _Setting(("--uds",), "GTE_NP_UDS", "Unix socket to listen on, instead of a port", str),
    _Setting(
        ("--max-batch-tokens",), "MAX_BATCH_TOKENS", "most tokens computed together", int, Limits.max_batch_tokens
    ),
    _Setting(
        ("--max-client-batch-size",),
        "MAX_CLIENT_BATCH_SIZE",
        "most inputs of one request",
        int,
        Limits.max_client_batch_size,
    ),
    _Setting(
        ("--max-concurrent-requests",),
        "MAX_CONCURRENT_REQUESTS",
        "most requests to a model that wait or are computed; others get status 429",
        int,
        Limits.max_concurrent_requests,
    ),
    _Setting(("--payload-limit",), "PAYLOAD_LIMIT", "most bytes of a request's body", int, Limits.payload_limit),
)
_SWITCHES = (
    _Setting(
        ("--auto-truncate",),
        "AUTO_TRUNCATE",
        "cut texts that are too long, where a request does not say; else refuse them",
        _truth,
        Limits.auto_truncate,
    ),
    _Setting(
        ("--allow-token-ids",),
        "GTE_NP_ALLOW_TOKEN_IDS",
        "take token ids of the model instead of texts",
        _truth,
        Limits.allow_token_ids,
    ),
)
_LOADING = {"revision": "REVISION", "dtype": "DTYPE", "pooling": "POOLING", "cache_dir": "HUGGINGFACE_HUB_CACHE"}


def loading() -> Parser:
    """The options that load models, as a parent of the command's parser."""
    return loading_options(None, AS_SAVED)


def add_options(command: Parser, environment: Mapping[str, str] = os.environ) -> None:
    """Add the options of the command, whose defaults are those of the environment."""
    command.add_argument(
        "models",
        nargs="*",
        metavar="model",
        default=[name for name in environment.get("MODEL_ID", "").split(",") if name] or None,
        help=f"{MODEL_HELP}; the first one answers requests that name none [env MODEL_ID, with commas]",
    )
    command.add_argument(
        "--served-model-name",
        action="append",
        metavar="NAME",
        help="what clients call a model; give it once for each, in order; by default the last part of a folder's "
        "name, or the name on the hub [env SERVED_MODEL_NAME, with commas]",
    )
    names = environment.get("SERVED_MODEL_NAME")
    command.set_defaults(served_model_name=names.split(",") if names else None)
    # The default of the key is no argument's default: --help would print it.
    command.add_argument("--api-key", help="key that requests must bear; better set by the environment [env API_KEY]")
    command.set_defaults(api_key=environment.get("API_KEY"))
    for setting in _SETTINGS:
        _add(command, setting, environment)
    for setting in _SWITCHES:
        _add(command, setting, environment, nargs="?", const=True, metavar="BOOL")
    present = {name: environment[variable] for name, variable in _LOADING.items() if variable in environment}
    command.set_defaults(**present)


def _add(command: Parser, setting: _Setting, environment: Mapping[str, str], **more: Any) -> None:
    shown = "" if setting.default is None else " (default: %(default)s)"
    command.add_argument(
        *setting.flags,
        type=setting.kind,
        default=environment.get(setting.variable, setting.default),
        help=f"{setting.help}{shown} [env {setting.variable}]",
        **more,
    )


def of_environment() -> Any:
    """The options as the environment sets them, for a server that hosts the application."""
    parser = Parser(prog="gte-np serve", parents=[loading()])
    add_options(parser)
    return parser.parse_args([])
