"""Packed weights in a file beside a saved model: mapped instead of packed, and one copy for all processes that do so.

The file is a .npy array of 32-bit words, whose data NumPy aligns to cache lines: the parts that
`PackedWeights.saved_parts` lists, one behind the other, and at the end a fingerprint of the weights that they were
packed from.

Others can write to a mapped file. `save_pretrained` replaces files whole, which changes nothing that is mapped; what
is written to a file in place is noticed by `WatchedFile.check`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_np.checkpoint.mapping import mapping
from gte_np.errors import CheckpointError
from gte_np.formats import WeightFormat

Words = NDArray[np.uint32]
PANELS_FILES = "panels_*.npy"


def panels_file(weight_format: WeightFormat, panel: int, is_ordered: bool) -> str:
    """The name of the file with weights in a format, in panels of so many output features, with orders or without."""
    return f"panels_{weight_format.name}_{panel}{'_ordered' if is_ordered else ''}.npy"


def write_panels(path: Path, parts: Sequence[NDArray[Any]], fingerprint: bytes) -> None:
    """Write parts, each of whole 32-bit words, and the fingerprint of their weights."""
    arrays = [*(np.ascontiguousarray(part).reshape(-1).view(np.uint32) for part in parts), _words_of(fingerprint)]
    header = {"descr": "<u4", "fortran_order": False, "shape": (sum(map(len, arrays)),)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for array in arrays:
            file.write(array.data)


def map_panels(path: Path, sizes: Sequence[int], fingerprint: bytes) -> list[Words]:
    """The parts of such a file, of so many words each, mapped.

    Raises CheckpointError for a file that is damaged, or of other weights.
    """
    try:
        with mapping(path):
            words: Words = np.lib.format.open_memmap(path, mode="r")
    except MemoryError:
        raise
    except Exception as error:  # NumPy has no common error for broken headers
        raise panels_error(path, f"got: {error}") from error
    end = _words_of(fingerprint)
    if words.dtype != "<u4" or words.shape != (sum(sizes) + len(end),):
        raise panels_error(path, f"got {words.dtype} of shape {words.shape}")
    *parts, found = np.split(words, np.cumsum(sizes))
    if found.tobytes() != end.tobytes():
        raise panels_error(path, "got those of other weights")
    return parts


class WatchedFile:
    """A file that is about to be mapped, and whose content must not change from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)  # stays open: the name may soon be another file's
        weakref.finalize(self, os.close, self._descriptor)
        self._state = self._state_now()

    def check(self) -> None:
        """Raise CheckpointError if the file was written to."""
        if self._state_now() != self._state:
            raise CheckpointError(
                f"{self._path}: expected a file that nobody writes to while its model is in use, got another size or "
                "time of change: load the model again."
            )

    def _state_now(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns


def panels_error(path: Path, came: str) -> CheckpointError:
    """The error for a file that has something else."""
    return CheckpointError(
        f"{path}: expected the packed weights of the model beside them, {came}. Delete this file, or save the model "
        "again."
    )


def _words_of(fingerprint: bytes) -> Words:
    return np.frombuffer(fingerprint, np.uint32)
