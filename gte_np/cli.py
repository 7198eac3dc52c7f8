"""The command line: gte-np embed, similarity, quantize, models, info, warmup, doctor."""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import os
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from math import prod
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gte_np import __version__
from gte_np.architectures.tensors import expected_shapes
from gte_np.backend import BACKENDS
from gte_np.checkpoint.weight_files import find_weights, read_tensors
from gte_np.doctor import report
from gte_np.embedding_model import EmbeddingModel
from gte_np.embedding_quantization import PRECISIONS
from gte_np.errors import GteError, InputError
from gte_np.files import naming, whole_file
from gte_np.formats import dtypes
from gte_np.kernels.runtime.kernel_functions import kernel_files
from gte_np.known_models import KNOWN_MODELS

FORMATS = ("npy", "jsonl", "csv")
_STANDARD_OUTPUT = "standard output"


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {' '.join(message.split())} (try {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 0, or 2 with one line on stderr for a mistake."""
    _open_closed_streams()
    options = _make_parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Whatever the code page of the terminal is, texts may be Chinese; a path may be no Unicode at all.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    logging.basicConfig(format="gte-np: %(message)s", level=logging.WARNING)
    try:
        try:
            options.run(options)
        finally:
            _flush_output()
    except BrokenPipeError:  # the reader, such as head, has enough
        return 0
    except KeyboardInterrupt:
        print("gte-np: interrupted", file=sys.stderr)
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
        with naming(_STANDARD_OUTPUT):
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _make_parser() -> _Parser:
    parser = _Parser(prog="gte-np", description="GTE text embeddings on a CPU, without torch.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}", help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    model = _model_options()
    _add_embed(commands.add_parser("embed", parents=[model], help="lines of text to vectors"))
    _add_similarity(commands.add_parser("similarity", parents=[model], help="a query against texts"))
    smaller = _model_options("int8", "(default: %(default)s)")
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


def _model_options(
    dtype: str | None = None, default_dtype: str = "(by default what the model was saved in)"
) -> _Parser:
    options = _Parser(add_help=False)
    options.add_argument("model", help="a folder, or a name on the hub such as thenlper/gte-large-zh")
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


def _add_embed(command: _Parser) -> None:
    command.add_argument(
        "input",
        nargs="?",
        default="-",
        help="a file with one text a line; - is standard input (default: %(default)s)",
    )
    command.add_argument("-o", "--output", default="-", help="a file; - is standard output (default: %(default)s)")
    command.add_argument("--format", choices=FORMATS, help="by default from the name of the file, else jsonl")
    command.add_argument("--prompt-name", help="a prompt of the model, such as query; by default the model's default")
    command.add_argument("--prompt", help="a text that goes before each line, instead of a prompt of the model")
    command.add_argument("--batch-size", type=int, default=32, help="texts at a time, at most (default: %(default)s)")
    command.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="of the vectors (default: %(default)s)"
    )
    command.add_argument(
        "--truncate-dim",
        type=int,
        help="keep only so many dimensions, the first; by default all, or what the repository says",
    )
    command.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="scale vectors to length 1, or do not; by default what the repository says",
    )
    command.set_defaults(run=_embed)


def _add_similarity(command: _Parser) -> None:
    command.add_argument("query", help="a text")
    command.add_argument("texts", nargs="+", metavar="text", help="a text that the query is compared with")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_similarity)


def _add_quantize(command: _Parser) -> None:
    command.add_argument(
        "-o", "--output", required=True, help="a folder, which is made if it is not there; a model in it is replaced"
    )
    command.set_defaults(run=_quantize)


def _load(options: argparse.Namespace) -> EmbeddingModel:
    return EmbeddingModel(
        options.model,
        revision=options.revision,
        cache_dir=options.cache_dir,
        local_files_only=options.local_files_only,
        backend=options.backend,
        dtype=options.dtype,
        threads=options.threads,
        pooling=options.pooling,
    )


def _embed(options: argparse.Namespace) -> None:
    file_format = options.format or _format_of(options.output)
    output = _find_output(options)
    if file_format == "npy" and output is None and sys.stdout.isatty():
        raise InputError("expected -o FILE for npy, which is not text; or --format jsonl.")
    # A file that cannot be written is told of before the work, not after it.
    with nullcontext() if output is None else whole_file(output) as part:
        texts = _read_lines(options.input)
        vectors = _encode(texts, options)
        with naming(_STANDARD_OUTPUT if output is None else output, part):
            _write(vectors, texts, part, file_format)


def _encode(texts: list[str], options: argparse.Namespace) -> NDArray[Any]:
    return _load(options).encode(
        texts,
        prompt_name=options.prompt_name,
        prompt=options.prompt,
        batch_size=options.batch_size,
        precision=options.precision,
        truncate_dim=options.truncate_dim,
        normalize_embeddings=options.normalize,
        show_progress_bar=sys.stderr.isatty(),
    )


def _find_output(options: argparse.Namespace) -> Path | None:
    """The output file, or None for standard output, which may go by a name such as /dev/stdout.

    Raises InputError if it is the input, or in a folder that is not there.
    """
    target, standard_output = _status(options.output, sys.stdout), _status("-", sys.stdout)
    if _is_same(target, _status(options.input, sys.stdin)) and target and stat.S_ISREG(target.st_mode):
        raise InputError(f"expected an output that is not the input, got {options.input!r} and {options.output!r}.")
    if options.output == "-" or _is_same(target, standard_output):
        return None
    if not Path(options.output).parent.is_dir():
        raise InputError(f"expected an output file in a folder that is there, got {options.output!r}.")
    return Path(options.output)


def _status(name: str, stream: Any) -> os.stat_result | None:
    """What the system knows of a file, or of the one behind a standard stream; None if there is none."""
    try:
        return os.fstat(stream.fileno()) if name == "-" else os.stat(name)  # noqa: PTH116  # the two are alike
    except OSError:
        return None


def _is_same(first: os.stat_result | None, second: os.stat_result | None) -> bool:
    return first is not None and second is not None and os.path.samestat(first, second)


def _format_of(output: str) -> str:
    suffix = Path(output).suffix.removeprefix(".").lower()
    if suffix not in FORMATS and output != "-":
        raise InputError(f"expected an output file that ends in .npy, .jsonl or .csv, or --format, got {output!r}.")
    return suffix if suffix in FORMATS else "jsonl"


def _read_lines(name: str) -> list[str]:
    """The lines of a file, or of standard input, without their ends."""
    content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    try:
        lines = _split_lines(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        before = _split_lines(error.object[: error.start].decode())
        source = "standard input" if name == "-" else name
        raise InputError(
            f"expected UTF-8 text in {source}, got byte {error.object[error.start]:#x} in line {len(before)}, after "
            f"{len(before[-1])} characters."
        ) from error
    return lines[:-1] if lines[-1] == "" else lines


def _split_lines(text: str) -> list[str]:
    """The lines of a text, whose ends are LF, CR LF or CR, nothing else; the last may be empty."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _write(vectors: NDArray[Any], texts: list[str], part: Path | None, file_format: str) -> None:
    with _opened(part, file_format == "npy") as file:
        if file_format == "npy":
            _write_npy(vectors, file)
        else:
            _write_text(vectors, texts, file, file_format)


def _opened(part: Path | None, as_bytes: bool) -> IO[Any]:
    """A file, or standard output in a buffer of its own: without one, part of a write can be lost in silence."""
    file, closes = (sys.stdout.fileno(), False) if part is None else (part, True)
    if as_bytes:
        return open(file, "wb", closefd=closes)
    return open(file, "w", encoding="utf-8", newline="", closefd=closes)


def _write_npy(vectors: NDArray[Any], file: IO[bytes]) -> None:
    """np.save, which would seek, and which does not tell why it could not write."""
    vectors = np.ascontiguousarray(vectors)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(vectors))
    file.write(vectors.data)


def _write_text(vectors: NDArray[Any], texts: list[str], file: IO[str], file_format: str) -> None:
    rows = (_short_numbers(vector) for vector in vectors)
    if file_format == "csv":
        csv.writer(file, lineterminator="\n").writerows(rows)
        return
    for text, row in zip(texts, rows, strict=True):
        file.write(json.dumps({"text": text, "embedding": row}, ensure_ascii=False) + "\n")


def _short_numbers(vector: NDArray[Any]) -> list[float | int]:
    """Python numbers with the fewest digits that give the same float32 again."""
    if vector.dtype.kind != "f":
        return vector.tolist()
    return [float(str(value)) for value in vector]


def _similarity(options: argparse.Namespace) -> None:
    model = _load(options)
    query, texts = model.encode_query(options.query), model.encode_document(options.texts)
    scores = model.similarity(query, texts)[0]
    rows = sorted(zip(scores.tolist(), options.texts, strict=True), key=lambda row: -row[0])
    if options.json:
        result = [{"text": text, "score": round(score, 6)} for score, text in rows]
        _print_json({"query": options.query, "similarity": model.similarity_fn_name, "results": result})
        return
    _print(f"{model.similarity_fn_name} similarity to: {options.query}")
    for score, text in rows:
        _print(f"{score:9.4f}  {text}")


def _quantize(options: argparse.Namespace) -> None:
    model = _load(options)
    model.save_pretrained(options.output)
    before, after = (find_weights(folder) for folder in (model.transformer_folder, Path(options.output)))
    _print(f"{after}: {_megabytes(after)}, {model.bert.dtype} (was {_megabytes(before)})")


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def _models(options: argparse.Namespace) -> None:
    if options.json:
        _print_json([vars(model) for model in KNOWN_MODELS.values()])
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
        _print("  ".join([*cells, row[-1]]).rstrip())


def _info(options: argparse.Namespace) -> None:
    model = _load(options)
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
    _print_facts(facts, options.json)


def _warmup(options: argparse.Namespace) -> None:
    for path in kernel_files():
        _print(path)


def _doctor(options: argparse.Namespace) -> None:
    _print_facts(report(), options.json)


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(facts)
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        _print(f"{name:<{width}}  {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


def _print_json(value: object) -> None:
    _print(json.dumps(value, ensure_ascii=False, indent=2))


def _print(line: object) -> None:
    with naming(_STANDARD_OUTPUT):
        print(line)
