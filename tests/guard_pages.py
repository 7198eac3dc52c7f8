"""Guard pages: memory that ends, or begins, right beside a page that nobody may touch.

A process that reads or writes one byte beyond it is ended by the system (SIGSEGV, or SIGBUS on macOS). Everything
that compiled code is given the address of can be put into such memory, each array by itself: see `guard_kernels`.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from gte_np.formats.int8 import FACTORS
from gte_np.kernels.operations.records import ROW_GAP
from gte_np.kernels.runtime import feature_order, kernel_encoder, packed_weights, program, workspace
from gte_np.kernels.runtime.packed_weights import PackedWeights, Piece
from gte_np.kernels.runtime.program import Buffers, Rows, Words
from gte_np.kernels.runtime.workspace import Workspace

CAN_GUARD = sys.platform != "win32"

Side = Literal["end", "start"]

_NOTHING, _READ = 0, 1  # PROT_NONE, PROT_READ


class GuardedMemory:
    """Makes arrays with a guard page right behind them (side "end") or right before them ("start")."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self._protect = ctypes.CDLL(None, use_errno=True).mprotect
        self._protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike = float) -> Any:
        """An array whose bytes are all set: floats are NaN, so what is read before it is written can be seen."""
        return self._make(shape, np.dtype(dtype), 0xFF)

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike = float) -> Any:
        """An array of zeros."""
        return self._make(shape, np.dtype(dtype), 0)

    def copy(self, values: Any, *, writeable: bool = True) -> Any:
        """A copy of an array, in C order; the system ends whoever writes to one that is not `writeable`."""
        array = self.zeros(values.shape, values.dtype)
        array[...] = values
        if not writeable:
            pages = mmap.PAGESIZE
            start = array.ctypes.data // pages * pages
            self._set(start, self._pages(array.nbytes), _READ)
        return array

    def _make(self, shape: int | tuple[int, ...], dtype: np.dtype[Any], byte: int) -> Any:
        shape = (shape,) if isinstance(shape, int | np.integer) else shape
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        inner = self._pages(size)
        memory = mmap.mmap(-1, inner + 2 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = mmap.PAGESIZE + (inner - size if self.side == "end" else 0)
        if byte:
            np.ndarray((inner,), np.uint8, memory, mmap.PAGESIZE)[:] = byte
        array: Any = np.ndarray(shape, dtype, memory, start)
        first = array.ctypes.data - start
        self._set(first, mmap.PAGESIZE, _NOTHING)
        self._set(first + mmap.PAGESIZE + inner, mmap.PAGESIZE, _NOTHING)
        return array

    def _pages(self, size: int) -> int:
        return max(1, -(-size // mmap.PAGESIZE)) * mmap.PAGESIZE

    def _set(self, address: int, size: int, protection: int) -> None:
        if self._protect(address, size, protection):
            raise OSError(ctypes.get_errno(), "mprotect")


class GuardedNumPy:
    """NumPy, but for the functions that make the arrays that compiled code works on."""

    def __init__(self, memory: GuardedMemory) -> None:
        self.empty, self.zeros = memory.empty, memory.zeros
        self._memory = memory

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def array(self, *arguments: Any) -> Any:
        """np.array."""
        return self._memory.copy(np.array(*arguments))


def guard_kernels(memory: GuardedMemory) -> None:
    """From now on put all that compiled code gets into guarded memory, in this process.

    That is packed matrices, biases, constants, norms and tables; what is packed; programs and records; each buffer of
    a workspace and each thread's scratch memory; a chunk's arrays, which cannot be written to; results, and the state
    of a team. A workspace is made for each chunk, and has no more room than that needs.
    """
    for module in (feature_order, kernel_encoder, packed_weights, program, workspace):
        setattr(module, "np", GuardedNumPy(memory))  # noqa: B010  # mypy knows that modules have no such attribute
    setattr(kernel_encoder, "TOKENS_OF_A_CHUNK", 0)  # noqa: B010  # else workspaces have room for more than a chunk
    setattr(kernel_encoder, "Workspace", _workspaces(memory))  # noqa: B010
    _guard_what_is_packed(memory)


def _guard_what_is_packed(memory: GuardedMemory) -> None:
    pack_piece = PackedWeights._pack_piece

    def guarded(self: PackedWeights, linear: Any, piece: Piece, words: Any) -> None:
        rows, stride = len(words), words.strides[0] // words.itemsize
        room = memory.zeros((rows - 1) * stride + words.shape[1], words.dtype)
        source = np.lib.stride_tricks.as_strided(room, words.shape, words.strides)
        source[...] = words
        pack_piece(self, linear, piece, source)

    setattr(PackedWeights, "_pack_piece", guarded)  # noqa: B010


def _workspaces(memory: GuardedMemory) -> type[Workspace]:
    class GuardedWorkspace(Workspace):
        """Every buffer is guarded by itself."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._kept: list[Any] = []
            buffers: dict[str, Any] = {"hidden_words": None, "inner_words": None}
            for name, rows in self.buffers._asdict().items():
                if isinstance(rows, Rows):
                    buffers[name] = Rows(self._room(self._values(name, rows.stride)), rows.stride)
                elif isinstance(rows, Words):
                    words, factors = self._room(self._values(name, rows.stride)), self._room(self.tokens * FACTORS)
                    buffers[name] = Words(words, rows.stride, factors)
            self.buffers = Buffers(**buffers)
            shape, strides = (self.tokens, self.weights.sizes.hidden), (self.buffers.hidden.stride * 4, 4)
            self.hidden = np.lib.stride_tricks.as_strided(self._kept[0], shape, strides)
            self._guard_scratch()

        def fits(self, tokens: int, longest: int, threads: int) -> bool:
            return (tokens, longest, threads) == (self.tokens, self.longest, self.threads)

        def describe(self, arrays: Mapping[str, Any], fields: Mapping[str, int]) -> None:
            super().describe(arrays, fields)
            self._told = {
                name: memory.copy(array.astype(np.int32), writeable=False) for name, array in arrays.items()
            }
            for name, array in self._told.items():
                self.batch[name] = array.ctypes.data

        def _values(self, name: str, stride: int) -> int:
            """A row for each token, the last one without a gap.

            Keys are read up to a multiple of LANES, and what a matrix unit multiplies, up to a multiple of its tile.
            """
            in_tiles = self.weights.target.multiplies_tiles(self.weights.format.tile_product)
            if name == "qkv" or (in_tiles and name in ("hidden_words", "inner_words")):
                return self._rows * stride
            return self.tokens * stride - ROW_GAP

        def _room(self, values: int) -> int:
            self._kept.append(memory.empty(values, np.float32))
            return int(self._kept[-1].ctypes.data)

        def _guard_scratch(self) -> None:
            """Threads' scratch memory lies a stride apart: so many pages, with one between them that is forbidden."""
            pages = memory._pages(self._scratch * 4)
            step = pages + mmap.PAGESIZE
            whole = memory.empty(self.threads * step - mmap.PAGESIZE, np.uint8)
            first = whole.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
            for thread in range(1, self.threads):
                memory._set(first + thread * step - mmap.PAGESIZE, mmap.PAGESIZE, _NOTHING)
            self._kept.append(whole)
            self.run["scratch"] = first + (pages - self._scratch * 4 if memory.side == "end" else 0)
            self.run["scratch_size"] = step // 4

    return GuardedWorkspace
