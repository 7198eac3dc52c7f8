"""Packed weights in a file beside a saved model: mapped instead of packed, and one copy for all processes that do so.

The file is a .npy array of 32-bit words, whose data NumPy aligns to cache lines: the parts that
`PackedWeights.saved_parts` lists, one behind the other, and at the end a fingerprint of the weights that they were
packed from.

A mapped file can be written to by others. This one is written once and replaced whole by `save_pretrained`, and what
is written to it in place is noticed by `check`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_np.errors import CheckpointError
from gte_np.formats import WeightFormat

Words = NDArray[np.uint32]
PANELS_FILES = "panels_*.npy"


def panels_file(weight_format: WeightFormat, panel: int) -> str:
    """The name of the file with weights in a format, in panels of so many output features."""
    return f"panels_{weight_format.name}_{panel}.npy"


def write_panels(path: Path, parts: Sequence[NDArray[Any]], fingerprint: bytes) -> None:
    """Write parts, each of whole 32-bit words, and the fingerprint of their weights."""
    arrays = [*(np.ascontiguousarray(part).reshape(-1).view(np.uint32) for part in parts), _words_of(fingerprint)]
    header = {"descr": "<u4", "fortran_order": False, "shape": (sum(map(len, arrays)),)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for array in arrays:
            file.write(array.data)


class MappedPanels:
    """The parts of such a file, of so many words each.

    Raises CheckpointError for a file that is damaged, or of other weights.
    """

    def __init__(self, path: Path, sizes: Sequence[int], fingerprint: bytes) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)  # stays open, to see whether the file is written to
        weakref.finalize(self, os.close, self._descriptor)
        self._state = self._state_now()
        try:
            words: Words = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._error(f"got: {error}") from error
        end = _words_of(fingerprint)
        if words.dtype != "<u4" or words.shape != (sum(sizes) + len(end),):
            raise self._error(f"got {words.dtype} of shape {words.shape}")
        *parts, found = np.split(words, np.cumsum(sizes))
        if found.tobytes() != end.tobytes():
            raise self._error("got those of other weights")
        self.parts: list[Words] = parts

    def check(self) -> None:
        """Raise CheckpointError if the file was written to since it was mapped."""
        if self._state_now() != self._state:
            raise CheckpointError(
                f"{self._path}: expected a file that nobody writes to while its model is in use, got another size or "
                "time of change: load the model again."
            )

    def _state_now(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns

    def _error(self, came: str) -> CheckpointError:
        return CheckpointError(
            f"{self._path}: expected the packed weights of the model beside them, {came}. Delete this file, or save "
            "the model again."
        )


def _words_of(fingerprint: bytes) -> Words:
    return np.frombuffer(fingerprint, np.uint32)
