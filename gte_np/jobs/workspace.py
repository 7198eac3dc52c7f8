"""The folder of a job: its lock, its journal of finished shards, and, in the end, its manifest.

Every file is written under another name and renamed, so it is whole or not there. The journal has a line of settings
and a line for each shard; a line follows the files that it names, so a kill at any instant loses a shard at most.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.errors import InputError
from gte_np.files import naming, remove_leftovers, sha256_of, whole_file
from gte_np.jobs.parts import (
    OUTPUT_FORMATS,
    OutputFormat,
    Part,
    Schema,
    concatenate,
    json_line,
    rows_file,
    write_rows,
)
from gte_np.jobs.rows import Problem

JOURNAL, MANIFEST, LOCK, RANGES, SKIPPED = "journal.jsonl", "manifest.json", ".lock", "ranges.npy", ".skipped.jsonl"


# Settings that are read from a manifest, to make vectors like those of the output.
_READ_SETTINGS = (
    *("model", "name_or_path", "dtype", "backend", "pooling", "prompt", "max_seq_length"),
    *("normalize_embeddings", "truncate_dim", "precision", "format", "with_text"),
)


class Place(NamedTuple):
    """Where an output goes: a file or a folder, and the format of it."""

    path: Path
    format_name: str
    is_file: bool

    @classmethod
    def find(cls, name: str, format_name: str | None) -> Place:
        """A name that ends as a format does is a file; any other is a folder, of .npy files by default.

        Raises InputError for a place that cannot be.
        """
        path = Path(name)
        suffix = path.suffix[1:].lower()
        is_file = suffix in OUTPUT_FORMATS
        endings = ", ".join(f".{ending}" for ending in OUTPUT_FORMATS)
        if is_file and path.is_dir():
            raise InputError(f"expected a file to write to, got the folder {name!r}.")
        if not is_file and (path.is_file() or (suffix and not path.is_dir() and not name.endswith(("/", os.sep)))):
            raise InputError(f"expected an output file that ends in {endings}, or a folder, as NAME/, got {name!r}.")
        if is_file and format_name not in (None, suffix):
            raise InputError(f"expected an output file that ends in .{format_name}, or a folder, got {name!r}.")
        if not path.absolute().parent.is_dir():
            raise InputError(f"expected an output in a folder that is there, got {name!r}.")
        return cls(path, format_name or (suffix if is_file else "npy"), is_file)

    @property
    def format(self) -> OutputFormat:
        """The format."""
        return OUTPUT_FORMATS[self.format_name]

    @property
    def folder(self) -> Path:
        """The folder of the job."""
        return self.path.with_name(self.path.name + ".parts") if self.is_file else self.path

    @property
    def manifest(self) -> Path:
        """Where the manifest is in the end."""
        return self._beside(MANIFEST)

    @property
    def ranges(self) -> Path:
        """Where the ranges of int8 and uint8 are in the end."""
        return self._beside(RANGES)

    @property
    def skipped(self) -> Path:
        """Where the skipped rows of a single file are in the end."""
        return self.path.with_name(self.path.name + SKIPPED)

    @property
    def skipped_hint(self) -> str:
        """Where the skipped rows of an output are in the end, for people."""
        return str(self.skipped if self.is_file else self.path / f"*{SKIPPED}")

    def _beside(self, name: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{name}") if self.is_file else self.path / name

    def shard(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"part-{number:06d}.{self.format_name}"


class Shard(NamedTuple):
    """A finished shard: what it was made of, and what is in it. Numbers of rows count the skipped ones."""

    number: int
    source: str
    place: dict[str, Any]
    input_sha256: str
    first_row: int
    rows: int
    skipped: int
    cut: int
    kinds: dict[str, str]
    files: dict[str, str]  # names -> SHA-256


class Workspace:
    """The folder of one job, which nobody else uses while it is open: see `opened_workspace`."""

    def __init__(self, place: Place, journal: IO[bytes], shards: list[Shard]) -> None:
        self.place = place
        self._journal = journal
        self.shards = {shard.number: shard for shard in shards}

    def save_ranges(self, ranges: NDArray[np.float32]) -> None:
        """Keep the ranges of int8 and uint8."""
        with whole_file(self.place.folder / RANGES) as path, path.open("wb") as file:
            np.save(file, ranges)

    def read_ranges(self) -> NDArray[np.float32] | None:
        """The ranges that were kept, (2, D), if there are any."""
        return read_ranges(self.place.folder / RANGES)

    def finish_shard(self, shard: Shard) -> None:
        """Note in the journal that a shard is finished."""
        self.shards[shard.number] = shard
        with naming(self.place.path, self.place.folder):
            _append(self._journal, shard._asdict())

    def complete(self, settings: Mapping[str, Any], schema_of: Callable[[Mapping[str, str] | None], Schema]) -> None:
        """Make the output of the shards, and leave the manifest in place of the journal."""
        schema = schema_of(self.shards[0].kinds if self.shards else None)
        shards = [self.shards[number] for number in sorted(self.shards)]
        files: dict[str, str] = {}
        if self.place.is_file:
            files = self._join(schema, shards)
            shards = [shard._replace(files={}) for shard in shards]
        facts = {
            "settings": settings,
            "schema": {"kinds": dict(schema.kinds), "dtype": schema.dtype, "width": schema.width},
            "rows": sum(shard.rows - shard.skipped for shard in shards),
            "skipped": sum(shard.skipped for shard in shards),
            "cut": sum(shard.cut for shard in shards),
            "files": files,
            "shards": [shard._asdict() for shard in shards],
        }
        with whole_file(self.place.manifest) as path:
            path.write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", "utf-8")
        (self.place.folder / JOURNAL).unlink()

    def _join(self, schema: Schema, shards: list[Shard]) -> dict[str, str]:
        """Join the shards to one file, with what belongs beside it; return the SHA-256 of each."""
        place = self.place
        paths = [place.shard(shard.number) for shard in shards]
        with _written(place.path) as file:
            place.format.join(file, schema, paths)
        written = [place.path]
        if place.format.has_rows_file:
            with _written(rows_file(place.path)) as file:
                concatenate(file, [rows_file(path) for path in paths])
            written.append(rows_file(place.path))
        if any(shard.skipped for shard in shards):
            with _written(place.skipped) as file:
                concatenate(file, [_skipped(path) for path in paths if _skipped(path).exists()])
            written.append(place.skipped)
        if (place.folder / RANGES).exists():
            with _written(place.ranges) as file:
                concatenate(file, [place.folder / RANGES])
            written.append(place.ranges)
        return {path.name: sha256_of(path) for path in written}


def read_ranges(path: Path) -> NDArray[np.float32] | None:
    """The ranges in a file, (2, D), if it is there."""
    return np.load(path, allow_pickle=False) if path.exists() else None


def write_shard_files(
    place: Place, number: int, schema: Schema, part: Part, problems: list[Problem]
) -> dict[str, str]:
    """Write the files of a shard, each whole; return the SHA-256 of each."""
    path = place.shard(number)
    written = [path]
    with _written(path) as file:
        place.format.write(file, schema, part)
    if place.format.has_rows_file:
        with _written(rows_file(path)) as file:
            write_rows(file, part.columns)
        written.append(rows_file(path))
    if problems:
        with _written(_skipped(path)) as file:
            for problem in problems:
                file.write(json_line(problem._asdict()))
        written.append(_skipped(path))
    return {path.name: sha256_of(path) for path in written}


def _skipped(path: Path) -> Path:
    return path.with_name(path.name + SKIPPED)


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    """A file that is there when it has been written as a whole."""
    with whole_file(path) as part, naming(path, part), part.open("wb") as file:
        yield file


def read_manifest(place: Place) -> dict[str, Any]:
    """The manifest of a finished output. Raises InputError if it is none."""
    try:
        manifest = json.loads(place.manifest.read_text("utf-8"))
        settings, shards = manifest["settings"], [Shard(**shard) for shard in manifest["shards"]]
        _check_manifest(manifest, shards)
    except FileNotFoundError as error:
        raise InputError(
            f"expected an output of gte-np embed, got {str(place.path)!r} without its manifest: it is not finished, "
            "or was not made by it."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"expected the manifest of a job in {str(place.manifest)!r}, got: {error!r:.200}."
        ) from error
    return manifest | {"settings": settings, "shards": shards}


def _check_manifest(manifest: dict[str, Any], shards: list[Shard]) -> None:
    """Raise TypeError or KeyError for what a job has not written."""
    numbers = [number for shard in shards for number in (shard.number, shard.rows, shard.skipped)]
    if not all(type(number) is int for number in (manifest["rows"], *numbers)):
        raise TypeError("numbers of rows that are no numbers")
    for part, names in (("settings", _READ_SETTINGS), ("schema", ("kinds", "dtype", "width")), ("files", ())):
        for name in names:
            manifest[part][name]


@contextmanager
def opened_workspace(place: Place, settings: Mapping[str, Any], force: bool) -> Iterator[Workspace | None]:
    """The folder of a job with what is finished of it, or None if all of it is.

    With `force`, a finished output, and an unfinished one of other settings, is replaced.

    Raises InputError if another job is at work there, if what is there was made with other settings, or by others.
    """
    with reserved(place, force), ExitStack() as stack:
        with naming(place.path, place.folder):
            workspace = _open(place, settings, force, stack)
        yield workspace


@contextmanager
def reserved(place: Place, force: bool) -> Iterator[None]:
    """Make the folder of a job; at the end remove what nobody needs of it.

    Raises InputError for what is there and must not be replaced, and OSError for a place that cannot be written.
    """
    with naming(place.path, place.folder):
        _check_foreign(place, force)
        place.folder.mkdir(exist_ok=True)
    try:
        yield
    finally:
        if place.is_file and place.manifest.exists():
            shutil.rmtree(place.folder, ignore_errors=True)
        elif place.folder.is_dir() and not any(place.folder.iterdir()):
            place.folder.rmdir()


def _open(place: Place, settings: Mapping[str, Any], force: bool, stack: ExitStack) -> Workspace | None:
    stack.enter_context(_locked(place))
    if place.manifest.exists() and not force:
        _compare(place, read_manifest(place)["settings"], settings)
        return None
    shards = _resume(place, settings, force)
    place.manifest.unlink(missing_ok=True)
    stack.enter_context(naming(place.path, place.folder))  # closing a file writes what is left of it
    journal = stack.enter_context((place.folder / JOURNAL).open("ab"))
    workspace = Workspace(place, journal, shards)
    stack.callback(_forget_the_useless, workspace)
    return workspace


def discard(place: Place) -> None:
    """Forget the shards of an unfinished job."""
    with _locked(place):
        _clear(place)


def _forget_the_useless(workspace: Workspace) -> None:
    """Remove the journal of a job that has finished no shard."""
    if not workspace.shards and not workspace.place.manifest.exists():
        _clear(workspace.place)


def _check_foreign(place: Place, force: bool) -> None:
    """Raise InputError for a file or a folder that a job did not make, or may not replace."""
    ours = place.manifest.exists() or (place.folder / JOURNAL).exists()
    if place.is_file:
        if place.path.exists() and not os.access(place.path, os.W_OK):  # a rename asks only the folder
            raise PermissionError(13, "Permission denied", str(place.path))
        if place.path.exists() and place.path.stat().st_size and not ours and not force:
            raise InputError(f"expected a new output, got {str(place.path)!r}, which exists: --force replaces it.")
    elif place.folder.is_dir() and not ours and {path.name for path in place.folder.iterdir()} - {LOCK}:
        raise InputError(f"expected a new folder or that of a job, got {str(place.path)!r}, which has other files.")


@contextmanager
def _locked(place: Place) -> Iterator[None]:
    from filelock import FileLock, Timeout  # comes with huggingface_hub

    lock = FileLock(place.folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"expected an output that nobody else writes, got {str(place.path)!r}, where another job is at work."
        ) from error
    try:
        yield
    finally:
        if not (place.folder / JOURNAL).exists():
            (place.folder / LOCK).unlink(missing_ok=True)
        lock.release()


def _resume(place: Place, settings: Mapping[str, Any], force: bool) -> list[Shard]:
    """The finished shards by the journal, which is begun if it is not there or is to be replaced."""
    clean_up(place)
    entries = _read_journal(place.folder / JOURNAL)
    if entries and force and differences(entries[0], settings):
        entries = []
    if not entries:
        _clear(place)
        with whole_file(place.folder / JOURNAL) as path, path.open("wb") as file:
            _append(file, settings)
        return []
    _compare(place, entries[0], settings)
    return [Shard(**entry) for entry in entries[1:]]


def clean_up(place: Place) -> None:
    """Remove what processes that were killed had begun to write."""
    for leftover in place.folder.glob(".*.part"):
        leftover.unlink(missing_ok=True)
    for path in (place.path, rows_file(place.path), place.skipped, place.ranges, place.manifest):
        remove_leftovers(path)


def _clear(place: Place) -> None:
    """Remove what an earlier job left in its folder."""
    for path in place.folder.glob("part-*"):
        path.unlink()
    for name in (RANGES, JOURNAL):
        (place.folder / name).unlink(missing_ok=True)


def _read_journal(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal; a line that a kill has cut is cut off."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def _append(journal: IO[bytes], entry: Mapping[str, Any]) -> None:
    journal.write(json_line(entry))
    journal.flush()
    os.fsync(journal.fileno())


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The settings that are not the same, in words. A model is known by its hash, wherever it is."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name) and name != "name_or_path"]
    return "; ".join(f"{name} was {old.get(name)!r:.80} and is {new.get(name)!r:.80}" for name in names)


def _compare(place: Place, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changes = differences(old, new)
    if changes:
        raise InputError(
            f"expected the settings that {str(place.path)!r} was begun with, got others: {changes}. Give another "
            "output, or --force to begin anew."
        )
