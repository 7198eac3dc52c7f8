"""A finished output: its manifest, its vectors some rows at a time, and its rows by their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_np.embedding_model import EmbeddingModel
from gte_np.errors import InputError
from gte_np.files import sha256_of
from gte_np.jobs.parts import OUTPUT_FORMATS
from gte_np.jobs.workspace import Place, Shard, read_manifest, read_ranges


class Results:
    """The output of a finished job, by the name of its file or folder.

    `settings` is what the job was begun with, `rows` the number of rows, `ranges` the ranges of int8 and uint8.
    Raises InputError for anything else.
    """

    def __init__(self, name: str) -> None:
        path = Path(name)
        if not path.exists():
            is_begun = Place(path, "", True).folder.exists()
            came = "is not finished: give the same gte-np embed again" if is_begun else "does not exist"
            raise InputError(f"expected an output of gte-np embed, got {name!r}, which {came}.")
        place = Place(path, "", not path.is_dir())
        manifest = read_manifest(place)
        self.settings: dict[str, Any] = manifest["settings"]
        if self.settings.get("format") not in OUTPUT_FORMATS:
            raise InputError(f"expected an output of a known format, got {self.settings.get('format')!r:.80}.")
        self.place = place._replace(format_name=self.settings["format"])
        self.shards: list[Shard] = manifest["shards"]
        self.rows: int = manifest["rows"]
        self._dtype = np.dtype(manifest["schema"]["dtype"])
        self._files: dict[str, str] = manifest["files"]

    @cached_property
    def ranges(self) -> NDArray[np.float32] | None:
        """The ranges of int8 and uint8, (2, D), if there are any."""
        return read_ranges(self.place.ranges)

    def files(self) -> dict[Path, str]:
        """The files of the output, and the SHA-256 that each had when the job finished."""
        folder = self.place.path.parent if self.place.is_file else self.place.path
        named = [self._files, *(shard.files for shard in self.shards)]
        return {folder / Path(name).name: digest for files in named for name, digest in files.items()}

    def check_files(self) -> None:
        """Raise InputError for a file that is not as the job left it."""
        for path, digest in self.files().items():
            if not path.is_file():
                raise InputError(f"expected the file {str(path)!r}, which the job has written, got none.")
            if sha256_of(path) != digest:
                raise InputError(f"expected {str(path)!r} as the job has written it, got other content.")

    def check_model(self, model: EmbeddingModel, *, bit_for_bit: bool) -> None:
        """Raise InputError for a model that gives other vectors than those of the output, or has other last bits."""
        for key, value in model.fingerprint().items():
            if self.settings[key] != value and (bit_for_bit or key != "backend"):
                expected = f"{key} {self.settings[key]!r}"
                raise InputError(f"expected the model of the output, with {expected}, got one with {key} {value!r}.")

    def _paths(self) -> list[Path]:
        return [self.place.path] if self.place.is_file else [self.place.shard(shard.number) for shard in self.shards]

    def vectors(self) -> Iterator[NDArray[Any]]:
        """The vectors, (B, W), in the order of the rows, as many at a time as the format gives."""
        for path in self._paths():
            yield from (np.asarray(block, self._dtype) for block in self.place.format.vectors(path))

    def columns(self) -> Iterator[dict[str, Any]]:
        """The other columns, row by row."""
        for path in self._paths():
            yield from self.place.format.rows(path)

    def select(self, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
        """The columns of some rows, by their numbers in the output."""
        counts = [self.rows] if self.place.is_file else [shard.rows - shard.skipped for shard in self.shards]
        found: dict[int, dict[str, Any]] = {}
        first = 0
        for path, count in zip(self._paths(), counts, strict=True):
            wanted = sorted({number - first for number in numbers if first <= number < first + count})
            if wanted:
                rows = self.place.format.rows(path, frozenset(wanted))
                found |= zip((first + number for number in wanted), rows, strict=True)
            first += count
        return found


def model_of(results: Results, name: str | None = None, threads: int | None = None) -> EmbeddingModel:
    """The model that an output was made with, from where it was or from another place.

    Raises InputError if it is another model: its vectors could not be compared with those of the output.
    """
    settings = results.settings
    pooling = settings["pooling"][0] if len(settings["pooling"]) == 1 else None
    model = EmbeddingModel(
        name or settings["name_or_path"], dtype=settings["dtype"], threads=threads, pooling=pooling
    )
    model.max_seq_length = settings["max_seq_length"]
    results.check_model(model, bit_for_bit=False)
    return model
