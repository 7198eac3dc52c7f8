"""What the commands share: their parser, the options of a model, and output to the terminal."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, NoReturn

from gte_np.backend import BACKENDS
from gte_np.embedding_model import EmbeddingModel
from gte_np.files import naming
from gte_np.formats import dtypes

STANDARD_OUTPUT = "standard output"
MODEL_HELP = "a folder, or a name on the hub such as thenlper/gte-large-zh"
AS_SAVED = "(by default what the model was saved in)"


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the line, and exit with status 2."""
        print(f"{self.prog}: error: {' '.join(message.split())} (try {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def model_options(dtype: str | None = None, default_dtype: str = AS_SAVED) -> Parser:
    """The options that load one model, as a parent of a command's parser."""
    options = loading_options(dtype, default_dtype)
    options.add_argument("model", help=MODEL_HELP)
    return options


def loading_options(dtype: str | None, default_dtype: str) -> Parser:
    """How models are loaded, as a parent of a command's parser, without their names."""
    options = Parser(add_help=False)
    options.add_argument("--revision", help="branch, tag or commit on the hub; by default its main branch")
    options.add_argument("--cache-dir", help="where downloads are kept; by default the hub's cache")
    options.add_argument("--local-files-only", action="store_true", help="never use the network")
    options.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="what computes; auto is numba if it can be (default: %(default)s)",
    )
    options.add_argument("--dtype", choices=dtypes(), default=dtype, help=f"of linear layers {default_dtype}")
    options.add_argument("--threads", type=int, help="at most so many; by default the processors that may be used")
    options.add_argument("--pooling", help="cls, mean, ...; by default what the repository says")
    return options


def load_model(options: argparse.Namespace) -> EmbeddingModel:
    """The model that the options of a command ask for."""
    return load_named(options.model, options)


def load_named(name: str, options: argparse.Namespace) -> EmbeddingModel:
    """The model of that name, loaded as the options of a command say."""
    return EmbeddingModel(
        name,
        revision=options.revision,
        cache_dir=options.cache_dir,
        local_files_only=options.local_files_only,
        backend=options.backend,
        dtype=options.dtype,
        threads=options.threads,
        pooling=options.pooling,
    )


def print_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Print names and values, a line each, or JSON."""
    if as_json:
        print_json(facts)
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        print_line(f"{name:<{width}}  {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


def print_json(value: object) -> None:
    """Print JSON."""
    print_line(json.dumps(value, ensure_ascii=False, indent=2))


def print_line(line: object) -> None:
    """Print a line; an error of the system names standard output."""
    with naming(STANDARD_OUTPUT):
        print(line)
