"""One tensor as a checkpoint file stores it."""

from __future__ import annotations

import mmap
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Storage name -> NumPy dtype of its elements, little-endian. NumPy has no bfloat16: its bit patterns are kept.
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}
FLOAT_DTYPES = ("float32", "float16", "bfloat16")


class StoredTensor(NamedTuple):
    """A tensor in the precision in which it was published, usually a view of a memory-mapped file.

    `dtype` is a key of `NUMPY_DTYPES`; `data` has the tensor's shape, and for bfloat16 holds the 16-bit
    patterns as uint16.
    """

    dtype: str
    data: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.data.shape

    def to_float32(self) -> NDArray[np.float32]:
        """A copy of the values as float32, which needs the file no more; exact for each dtype of `FLOAT_DTYPES`."""
        if self.dtype == "bfloat16":  # bfloat16 is the upper half of a float32
            return (self.data.astype(np.uint32) << 16).view(np.float32)
        return self.data.astype(np.float32)

    def rows(self, rows: Any) -> StoredTensor:
        """Some rows: a view by a slice, a copy by their numbers."""
        return StoredTensor(self.dtype, self.data[rows])

    def forget_pages(self) -> None:
        """Give the memory of a mapped file back to the system (Linux): it is read again if it is used again."""
        base: Any = self.data
        while base is not None and not isinstance(base, mmap.mmap):
            base = base.base if isinstance(base, np.ndarray) else None
        if base is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = self.data.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
        first, end = -(-start // mmap.PAGESIZE), (start + self.data.nbytes) // mmap.PAGESIZE
        if end > first:  # whole pages only
            base.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (end - first) * mmap.PAGESIZE)
