"""The command line: gte-np embed, similarity, quantize, models, info, warmup, doctor."""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gte_np.backend import BACKENDS
from gte_np.checkpoint.config import DTYPES
from gte_np.checkpoint.names import scale_of
from gte_np.checkpoint.weights import find_weights, read_tensors
from gte_np.doctor import report
from gte_np.embedding_model import EmbeddingModel
from gte_np.errors import GteError, InputError
from gte_np.kernels.library import check_numba, compile_all
from gte_np.known_models import KNOWN_MODELS
from gte_np.quantization import PRECISIONS

FORMATS = ("npy", "jsonl", "csv")


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
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _make_parser() -> _Parser:
    parser = _Parser(prog="gte-np", description="GTE text embeddings on a CPU, without torch.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    model = _model_options()
    _add_embed(commands.add_parser("embed", parents=[model], help="lines of text to vectors"))
    _add_similarity(commands.add_parser("similarity", parents=[model], help="a query against texts"))
    _add_quantize(commands.add_parser("quantize", parents=[model], help="a model to a smaller, faster one"))
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


def _model_options() -> _Parser:
    options = _Parser(add_help=False)
    options.add_argument("model", help="a folder, or a name on the hub such as thenlper/gte-large-zh")
    options.add_argument("--revision", help="branch, tag or commit on the hub")
    options.add_argument("--cache-dir", help="where downloads are kept")
    options.add_argument("--local-files-only", action="store_true", help="never use the network")
    options.add_argument("--backend", choices=BACKENDS, default="auto")
    options.add_argument("--dtype", choices=DTYPES, help="of linear layers; by default what the model was saved in")
    options.add_argument("--threads", type=int)
    options.add_argument("--pooling", help="override the repository's: cls, mean, ...")
    return options


def _add_embed(command: _Parser) -> None:
    command.add_argument("input", nargs="?", default="-", help="a file with one text a line; - is standard input")
    command.add_argument("-o", "--output", default="-", help="a file; - is standard output")
    command.add_argument("--format", choices=FORMATS, help="by default from the name of the file, else jsonl")
    command.add_argument("--prompt-name", help="a prompt of the model, such as query")
    command.add_argument("--prompt", help="a text that goes before each line")
    command.add_argument("--batch-size", type=int, default=32)
    command.add_argument("--precision", choices=PRECISIONS, default="float32")
    command.add_argument("--truncate-dim", type=int, help="keep only the first dimensions")
    command.add_argument(
        "--normalize", action=argparse.BooleanOptionalAction, help="by default what the repository says"
    )
    command.set_defaults(run=_embed)


def _add_similarity(command: _Parser) -> None:
    command.add_argument("query")
    command.add_argument("texts", nargs="+", metavar="text")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_similarity)


def _add_quantize(command: _Parser) -> None:
    command.add_argument("-o", "--output", required=True, help="a folder, which is made if it is not there")
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
    if not Path(options.output).parent.is_dir():  # told before the work, not after it
        raise InputError(f"expected an output file in a folder that is there, got {options.output!r}.")
    if file_format == "npy" and options.output == "-" and sys.stdout.isatty():
        raise InputError("expected -o FILE for npy, which is not text; or --format jsonl.")
    texts = _read_lines(options.input)
    vectors = _load(options).encode(
        texts,
        prompt_name=options.prompt_name,
        prompt=options.prompt,
        batch_size=options.batch_size,
        precision=options.precision,
        truncate_dim=options.truncate_dim,
        normalize_embeddings=options.normalize,
        show_progress_bar=sys.stderr.isatty(),
    )
    _write(vectors, texts, options.output, file_format)


def _format_of(output: str) -> str:
    suffix = Path(output).suffix.removeprefix(".").lower()
    if suffix not in FORMATS and output != "-":
        raise InputError(f"expected an output file that ends in .npy, .jsonl or .csv, or --format, got {output!r}.")
    return suffix if suffix in FORMATS else "jsonl"


def _read_lines(name: str) -> list[str]:
    """The lines of a file, or of standard input, without their ends: LF, CR LF or CR, nothing else."""
    content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise InputError(f"expected UTF-8 text in {name}, got byte {byte:#x} at {error.start}.") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _write(vectors: NDArray[Any], texts: list[str], output: str, file_format: str) -> None:
    if file_format == "npy":
        if output == "-":
            content = io.BytesIO()
            np.save(content, vectors)  # to a pipe it would seek
            sys.stdout.buffer.write(content.getbuffer())
        else:
            with Path(output).open("wb") as file:
                np.save(file, vectors)
        return
    if output == "-":
        _write_text(vectors, texts, sys.stdout, file_format)
    else:
        with Path(output).open("w", encoding="utf-8", newline="") as file:
            _write_text(vectors, texts, file, file_format)


def _write_text(vectors: NDArray[Any], texts: list[str], file: Any, file_format: str) -> None:
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
    print(f"{model.similarity_fn_name} similarity to: {options.query}")
    for score, text in rows:
        print(f"{score:9.4f}  {text}")


def _quantize(options: argparse.Namespace) -> None:
    options.dtype = options.dtype or "int8"
    model = _load(options)
    model.save_pretrained(options.output)
    before, after = (find_weights(folder) for folder in (model.transformer_folder, Path(options.output)))
    print(f"{after}: {_megabytes(after)}, {model.bert.dtype} (was {_megabytes(before)})")


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
        print("  ".join([*cells, row[-1]]).rstrip())


def _info(options: argparse.Namespace) -> None:
    model = _load(options)
    weights = find_weights(model.transformer_folder)
    tensors = read_tensors(weights)
    scales = {scale_of(name) for name in tensors}
    facts: dict[str, Any] = vars(model.bert.config) | {
        "dtype": model.bert.dtype,
        "folder": str(model.folder),
        "weights": weights.name,
        "tensor_dtypes": dict(Counter(tensor.dtype for tensor in tensors.values())),
        "parameters": sum(
            tensor.data.size for name, tensor in tensors.items() if tensor.dtype != "int64" and name not in scales
        ),
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
    check_numba()
    for path in compile_all():
        print(path)


def _doctor(options: argparse.Namespace) -> None:
    _print_facts(report(), options.json)


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(facts)
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        print(f"{name:<{width}}  {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))
