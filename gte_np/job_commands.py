"""The commands of jobs: gte-np embed, search, verify."""

from __future__ import annotations

import argparse
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from gte_np.embedding_quantization import PRECISIONS
from gte_np.errors import InputError
from gte_np.files import naming
from gte_np.jobs import (
    ON_ERROR,
    ROWS_PER_SHARD,
    Hit,
    Job,
    JobOptions,
    Place,
    Progress,
    Results,
    check_spread,
    model_of,
    reserved,
    run_job,
    search,
    stream_format,
    stream_job,
    verify,
)
from gte_np.jobs.rows import ID, TEXT
from gte_np.ray import Cluster, run_on_ray
from gte_np.terminal import STANDARD_OUTPUT, Parser, Terminated, load_model, print_json, print_line


def add_job_commands(commands: Any, model: Parser) -> None:
    """Add the commands to those of gte-np."""
    _add_embed(commands.add_parser("embed", parents=[model], help="texts to vectors"))
    stored = _stored_options()
    _add_search(commands.add_parser("search", parents=[stored], help="a query against the output of embed"))
    _add_verify(commands.add_parser("verify", parents=[stored], help="whether the output of embed is right"))


def _add_embed(command: Parser) -> None:
    command.description = (
        "Texts to vectors. A job that was interrupted goes on when the same command is given again, and its output "
        "has the same bytes as if it had not been."
    )
    command.add_argument(
        "input",
        nargs="*",
        default="-",
        help="files that end in .txt (a text a line), .jsonl, .csv, .tsv or .parquet, perhaps with .gz or .zst, "
        "folders of these, globs, or - for standard input (default: %(default)s)",
    )
    command.add_argument(
        "-o",
        "--output",
        default="-",
        help="a file that ends in .npy, .parquet, .arrow, .jsonl or .csv, or a folder, for a file for each shard; "
        "- is standard output (default: %(default)s)",
    )
    command.add_argument("--format", help="of the files in a folder, or of standard output (default: npy, jsonl)")
    command.add_argument("--input-format", help="txt, jsonl, csv, ...; by default the endings of names tell")
    command.add_argument("--field", "--column", default="text", help="of the text (default: %(default)s)")
    command.add_argument("--id", help="field of the id; by default rows are numbered")
    command.add_argument("--keep", action="append", metavar="FIELD", help="carry a field over; may be given again")
    command.add_argument("--no-text", action="store_true", help="leave the texts out of the output")
    command.add_argument(
        "--on-error",
        choices=ON_ERROR,
        default="fail",
        help="a row that cannot be read (default: %(default)s)",
    )
    command.add_argument(
        "--rows-per-shard",
        type=int,
        default=ROWS_PER_SHARD,
        help="what an interruption loses at most (default: %(default)s)",
    )
    command.add_argument("--cache", type=Path, help="an SQLite file of vectors that are used again, by any job")
    command.add_argument("--force", action="store_true", help="replace an output that is there")
    command.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="let actors of Ray compute, of the cluster at HOST:PORT or of a new Ray on this machine; each has as "
        "many threads as --threads says",
    )
    command.add_argument("--actors", type=int, help="of --ray; by default one for each node, or as many as have room")
    _add_vector_options(command)
    command.set_defaults(run=_embed)


def _add_vector_options(command: Parser) -> None:
    command.add_argument("--prompt-name", help="a prompt of the model, such as query; by default the model's default")
    command.add_argument("--prompt", help="a text that goes before each text, instead of a prompt of the model")
    command.add_argument("--batch-size", type=int, default=32, help="texts at a time, at most (default: %(default)s)")
    command.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="of the vectors (default: %(default)s)"
    )
    command.add_argument(
        "--ranges", type=Path, help="a .npy file for int8 and uint8, (2, D); by default those of the first shard"
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


def _stored_options() -> Parser:
    options = Parser(add_help=False)
    options.add_argument("output", help="a file or a folder that gte-np embed has written")
    options.add_argument("--model", help="where the model is; by default where it was")
    options.add_argument("--threads", type=int, help="at most so many; by default the processors that may be used")
    return options


def _add_search(command: Parser) -> None:
    command.add_argument("query", help="a text")
    command.add_argument("-k", "--top-k", type=int, default=10, help="rows (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_search)


def _add_verify(command: Parser) -> None:
    command.add_argument("--sample", type=int, help="compute so many rows again, at random; by default all")
    command.set_defaults(run=_verify)


def _embed(options: argparse.Namespace) -> None:
    _check_not_input(options)
    _check_ray(options)
    target = _status(options.output, sys.stdout)
    is_standard_output = options.output == "-" or _is_same(target, _status("-", sys.stdout))
    is_device = target is not None and not stat.S_ISREG(target.st_mode) and not stat.S_ISDIR(target.st_mode)
    with _ended_by_sigterm():
        if is_standard_output or is_device:
            if options.ray is not None:
                raise InputError(f"expected -o with a file or a folder with --ray, got {options.output!r}.")
            _embed_to_stream(options, None if is_standard_output else Path(options.output))
        else:
            _embed_to_place(options, Place.find(options.output, options.format))


def _check_not_input(options: argparse.Namespace) -> None:
    """Raise InputError if the output is a file that is an input, perhaps by another name."""
    target = _status(options.output, sys.stdout)
    for name in options.input:
        if _is_same(target, _status(name, sys.stdin)) and target and stat.S_ISREG(target.st_mode):
            raise InputError(f"expected an output that is not the input, got {name!r} and {options.output!r}.")


def _check_ray(options: argparse.Namespace) -> None:
    """Raise InputError for options that only one process, or only actors, can heed."""
    if options.ray is None and options.actors is not None:
        raise InputError("expected --actors with --ray, got it alone: --threads is for one process.")
    if options.ray is not None:
        check_spread(options.input, options.cache)


def _status(name: str, stream: Any) -> os.stat_result | None:
    """What the system knows of a file, or of the one behind a standard stream; None if there is none."""
    try:
        return os.fstat(stream.fileno()) if name == "-" else os.stat(name)  # noqa: PTH116  # the two are alike
    except OSError:
        return None


def _is_same(first: os.stat_result | None, second: os.stat_result | None) -> bool:
    return first is not None and second is not None and os.path.samestat(first, second)


def _embed_to_place(options: argparse.Namespace, place: Place) -> None:
    with reserved(place, options.force):  # what cannot be written is told of before the work
        job = Job(load_model(options), options.input, _job_options(options))
        with _progress() as report, _saying_how_to_go_on():
            if options.ray is None:
                summary = run_job(job, place, force=options.force, report=report)
            else:
                cluster = Cluster(options.ray or None, options.actors, options.threads)
                summary = run_on_ray(job, place, cluster, force=options.force, report=report)
    skipped = f"; {place.skipped_hint} tells which were skipped" if summary.skipped else ""
    print(f"gte-np: {place.path}: {summary}{skipped}", file=sys.stderr)


@contextmanager
def _saying_how_to_go_on() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise type(error)("; the same command goes on from here") from error


def _embed_to_stream(options: argparse.Namespace, device: Path | None) -> None:
    file_format = stream_format(options.format or "jsonl")
    job = Job(load_model(options), options.input, _job_options(options))
    with naming(options.output if device else STANDARD_OUTPUT, device), _opened(device) as file:
        stream_job(job, file, file_format)


def _opened(path: Path | None) -> IO[bytes]:
    """A device, or standard output in a buffer of its own: without one, part of a write can be lost in silence."""
    return open(sys.stdout.fileno(), "wb", closefd=False) if path is None else path.open("wb")


def _job_options(options: argparse.Namespace) -> Any:
    return JobOptions(
        field=options.field,
        id=options.id,
        keep=tuple(options.keep or ()),
        input_format=options.input_format,
        with_text=not options.no_text,
        on_error=options.on_error,
        prompt_name=options.prompt_name,
        prompt=options.prompt,
        batch_size=options.batch_size,
        normalize_embeddings=options.normalize,
        truncate_dim=options.truncate_dim,
        precision=options.precision,
        ranges=None if options.ranges is None else _read_ranges(options.ranges),
        rows_per_shard=options.rows_per_shard,
        cache=options.cache,
    )


def _read_ranges(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"expected the ranges of a job in {str(path)!r}, got no .npy file: {error}.") from error


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the work as ctrl-C does: nothing is half written, and one line is said."""

    def end(number: int, frame: object) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar on the terminal, of the bytes of the inputs, or of rows where nobody knows how many bytes there are."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from time import monotonic

    from tqdm import tqdm  # slow to import

    begin = monotonic()
    with tqdm(unit="B", unit_scale=True) as bar:

        def report(progress: Progress) -> None:
            seconds = monotonic() - begin
            bar.total = progress.size or None
            bar.set_postfix_str(
                f"{progress.rows / seconds:.0f} texts/s, {progress.tokens / seconds:.0f} tokens/s", False
            )
            bar.update(progress.read - bar.n)

        yield report


def _search(options: argparse.Namespace) -> None:
    results = Results(options.output)
    model = model_of(results, options.model, options.threads)
    settings = results.settings
    query = model.encode_query(
        options.query,
        normalize_embeddings=settings["normalize_embeddings"],
        truncate_dim=settings["truncate_dim"],
    )
    hits = search(results, query, options.top_k)
    if options.json:
        print_json([{"score": round(hit.score, 6), **hit.row} for hit in hits])
        return
    lines = [_cells(hit) for hit in hits]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for cells in lines:
        print_line("  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip())


def _cells(hit: Hit) -> list[str]:
    """What is printed of a row: its score, its id, the fields that were kept, and the text; what is long is cut."""
    most = {**dict.fromkeys(hit.row, 40), ID: None, TEXT: 100}
    return [f"{hit.score:9.4f}", *(_one_line(value, most[name]) for name, value in hit.row.items())]


def _one_line(value: object, most: int | None) -> str:
    line = "" if value is None else " ".join(str(value).split())
    return line if most is None or len(line) <= most else line[: most - 3] + "..."


def _verify(options: argparse.Namespace) -> None:
    results = Results(options.output)
    checked = verify(results, model_of(results, options.model, options.threads), options.sample)
    print_line(f"{options.output}: {checked} of {results.rows} vectors computed again, all bits are equal")
