"""The command line: gte-np embed, search, verify, serve, mteb, similarity, explain, quantize, info and others."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from gte_np import __version__
from gte_np.architectures.tensors import expected_shapes
from gte_np.checkpoint.weight_files import find_weights, read_tensors
from gte_np.errors import GteError
from gte_np.explain_command import add_explain_command
from gte_np.files import naming
from gte_np.job_commands import add_job_commands
from gte_np.kernels.runtime.kernel_functions import kernel_files
from gte_np.known_models import KNOWN_MODELS
from gte_np.mteb_command import add_mteb_command
from gte_np.serve_command import add_serve_command
from gte_np.terminal import (
    STANDARD_OUTPUT,
    Parser,
    Terminated,
    load_model,
    model_options,
    print_facts,
    print_json,
    print_line,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 0, or 2 with one line on stderr for a mistake."""
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Whatever the code page of the terminal is, texts may be Chinese; a path may be no Unicode at all.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    logging.basicConfig(format="gte-np: %(message)s", level=logging.WARNING)
    try:
        options = _make_parser().parse_args(arguments)
        try:
            options.run(options)
        finally:
            _flush_output()
    except BrokenPipeError:  # the reader, such as head, has enough
        return 0
    except Terminated as error:
        print(f"gte-np: terminated{error}", file=sys.stderr)
        return 143
    except KeyboardInterrupt as error:
        print(f"gte-np: interrupted{error}", file=sys.stderr)
        return 130
    except (GteError, OSError, MemoryError) as error:
        print(f"gte-np: error: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _open_closed_streams() -> None:
    """Let a process that was started without a standard stream read nothing, and write to nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


def _flush_output() -> None:
    """Write what has been printed so far. What cannot be written is dropped, or Python would complain at its end."""
    try:
        with naming(STANDARD_OUTPUT):
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _make_parser() -> Parser:
    parser = Parser(prog="gte-np", description="GTE text embeddings on a CPU, without torch.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}", help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    model = model_options()
    add_job_commands(commands, model)
    add_serve_command(commands)
    add_mteb_command(commands, model)
    _add_similarity(commands.add_parser("similarity", parents=[model], help="a query against texts"))
    add_explain_command(commands, model)
    smaller = model_options("int8", "(default: %(default)s)")
    _add_quantize(commands.add_parser("quantize", parents=[smaller], help="a model to a smaller, faster one"))
    info = commands.add_parser("info", parents=[model], help="what a model's repository says")
    info.set_defaults(run=_info)
    models = commands.add_parser("models", help="the known models")
    models.set_defaults(run=_models)
    warmup = commands.add_parser("warmup", help="compile the kernels now, in an image's build say, for later starts")
    warmup.set_defaults(run=_warmup)
    doctor = commands.add_parser("doctor", help="what a bug report needs")
    doctor.set_defaults(run=_doctor)
    for command in (info, models, doctor):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_similarity(command: Parser) -> None:
    command.add_argument("query", help="a text")
    command.add_argument("texts", nargs="+", metavar="text", help="a text that the query is compared with")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_similarity)


def _add_quantize(command: Parser) -> None:
    command.add_argument(
        "-o", "--output", required=True, help="a folder, which is made if it is not there; a model in it is replaced"
    )
    command.set_defaults(run=_quantize)


def _similarity(options: argparse.Namespace) -> None:
    model = load_model(options)
    query, texts = model.encode_query(options.query), model.encode_document(options.texts)
    scores = model.similarity(query, texts)[0]
    rows = sorted(zip(scores.tolist(), options.texts, strict=True), key=lambda row: -row[0])
    if options.json:
        result = [{"text": text, "score": round(score, 6)} for score, text in rows]
        print_json({"query": options.query, "similarity": model.similarity_fn_name, "results": result})
        return
    print_line(f"{model.similarity_fn_name} similarity to: {options.query}")
    for score, text in rows:
        print_line(f"{score:9.4f}  {text}")


def _quantize(options: argparse.Namespace) -> None:
    model = load_model(options)
    model.save_pretrained(options.output)
    before, after = (find_weights(folder) for folder in (model.transformer_folder, Path(options.output)))
    print_line(f"{after}: {_megabytes(after)}, {model.bert.dtype} (was {_megabytes(before)})")


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def _models(options: argparse.Namespace) -> None:
    if options.json:
        print_json([vars(model) for model in KNOWN_MODELS.values()])
        return
    header = ("name", "language", "dimension", "layers", "tokens", "pooling", "size", "query prompt")
    rows = [
        (
            model.name,
            model.language,
            str(model.dimension),
            str(model.layers),
            str(model.max_tokens),
            model.pooling,
            f"{model.size_mb} MB",
            model.prompts.get("query", ""),
        )
        for model in KNOWN_MODELS.values()
    ]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header) - 1)]
    for row in [header, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print_line("  ".join([*cells, row[-1]]).rstrip())


def _info(options: argparse.Namespace) -> None:
    model = load_model(options)
    weights = find_weights(model.transformer_folder)
    tensors = read_tensors(weights)
    shapes = expected_shapes(model.bert.config, pooler=model.bert.has_pooler)
    facts: dict[str, Any] = vars(model.bert.config) | {
        "dtype": model.bert.dtype,
        "folder": str(model.folder),
        "weights": weights.name,
        "tensor_dtypes": dict(Counter(tensor.dtype for tensor in tensors.values())),
        "parameters": sum(prod(shape) for shape in shapes.values()),
        "pooling": list(model.pooling_modes),
        "modules_after_pooling": [type(module).__name__ for module in model.modules],
        "embedding_dimension": model.get_sentence_embedding_dimension(),
        "max_seq_length": model.max_seq_length,
        "tokenizer_model_max_length": model.tokenizer.model_max_length,
        "similarity": model.similarity_fn_name,
        "prompts": model.prompts,
        "default_prompt_name": model.default_prompt_name,
    }
    print_facts(facts, options.json)


def _warmup(options: argparse.Namespace) -> None:
    for path in kernel_files():
        print_line(path)


def _doctor(options: argparse.Namespace) -> None:
    from gte_np.doctor import report  # no other command waits for its imports

    print_facts(report(), options.json)
