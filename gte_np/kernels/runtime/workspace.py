"""The memory that a run of the encoder works in, and the programs that refer to it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.formats import WeightFormat
from gte_np.formats.int8 import FACTORS
from gte_np.kernels.language.team_state import team_state_size
from gte_np.kernels.operations.records import ARRAYS, BATCH, ROW_GAP, RUN
from gte_np.kernels.runtime.packed_weights import PackedWeights, Sizes, padded
from gte_np.kernels.runtime.program import Buffers, Rows, Words, write_program
from gte_np.kernels.targets import Target
from gte_np.kernels.targets.matrix_units import BFLOAT16_DEPTH, UNIT_ROWS
from gte_np.kernels.targets.target import CACHE_LINE, LANES


def stride_of(width: int) -> int:
    """How far rows of this width lie apart."""
    return width + ROW_GAP


def attention_scratch(keys: int, head_width: int, weight_format: WeightFormat, target: Target) -> int:
    """float32 values that `gte_np.kernels.operations.attention.attend` needs for a head of a text.

    That is its keys and values, and the scores, their sums and the context of a tile of queries.
    """
    columns = padded(keys + 1, target.panel)  # one more than keys, for `exponentiate_rows`
    in_tiles = columns * head_width + keys * head_width + target.tile_rows * (columns + LANES + head_width + 1)
    if not target.rounds_in_tiles(weight_format.tile_product):
        return in_tiles
    return max(in_tiles, unit_attention_scratch(keys, head_width, target))


def unit_attention_scratch(keys: int, head_width: int, target: Target) -> int:
    """The same for a matrix unit: operands in words of two values, queries too, and a row of a panel."""
    columns = padded(keys, BFLOAT16_DEPTH)
    of_queries = columns + LANES + head_width // 2 + head_width + 1
    return columns * head_width + UNIT_ROWS * of_queries + target.panel


def scratch_size(sizes: Sizes, longest: int, weight_format: WeightFormat, target: Target) -> int:
    """float32 values of scratch memory for each thread.

    It is for attention, for a panel of widened weights, for a tile of rows in a panel's order, twice as long, or for
    the sums of two blocks of a matrix unit and a row behind them.
    """
    depth = max(sizes.hidden, sizes.inner, sizes.attention_width, 2 * UNIT_ROWS + 1)
    attention = attention_scratch(longest, sizes.head_width, weight_format, target)
    return padded(max(attention, depth * target.panel), LANES)


class Program(NamedTuple):
    """The steps of an encoder, records of STEP, and where they are: an address takes a microsecond to find out."""

    steps: NDArray[Any]
    address: int


class Workspace:
    """Buffers for a batch of so many tokens, of texts of at most so many, and a team of so many threads."""

    def __init__(self, weights: PackedWeights, tokens: int, longest: int, threads: int) -> None:
        self.tokens, self.longest, self.threads = tokens, longest, threads
        self.weights = weights
        # Keys are read up to a multiple of LANES, and so is what a matrix unit multiplies.
        self._rows = padded(tokens, LANES) + LANES
        self._scratch = scratch_size(weights.sizes, longest, weights.format, weights.target)
        places = self._places()
        self._memory = np.empty(places["end"] + CACHE_LINE // 4, np.float32)
        address = padded(self._memory.ctypes.data, CACHE_LINE)
        self.buffers, scratch = self._buffers(places, address), address + places["scratch"] * 4
        hidden = self._memory[(self.buffers.hidden.address - self._memory.ctypes.data) // 4 :]
        stride = self.buffers.hidden.stride
        self.hidden = hidden[: tokens * stride].reshape(tokens, stride)[:, : weights.sizes.hidden]  # (N, D)
        self._programs: dict[tuple[bool, bool], Program] = {}
        self.batch, self.run = np.zeros(1, BATCH), np.zeros(1, RUN)
        self.batch_address, self.run_address = self.batch.ctypes.data, self.run.ctypes.data
        # Of a batch, which is copied into them: to find out the addresses of its own would take longer.
        self._arrays = {name: np.empty(tokens + 1, np.int32) for name in ARRAYS}  # no text is empty
        for name, array in self._arrays.items():
            self.batch[name] = array.ctypes.data
        self.run["scratch"], self.run["scratch_size"] = scratch, self._scratch
        self.run["yield_function"] = _yield_function()
        self._state = np.zeros(0, np.int64)

    def fits(self, tokens: int, longest: int, threads: int) -> bool:
        """Whether a batch has room here."""
        return tokens <= self.tokens and longest <= self.longest and threads <= self.threads

    def begin(self, threads: int, *, wanted: bool, keep_layers: bool) -> Program:
        """The program for a run, with `run` telling a team of so many threads of it."""
        key = wanted, keep_layers
        if key not in self._programs:
            steps = write_program(self.weights, self.buffers, wanted=wanted, keep_layers=keep_layers)
            self._programs[key] = Program(steps, steps.ctypes.data)
        program = self._programs[key]
        size = team_state_size(len(program.steps), threads)
        if size > len(self._state):
            self._state = np.zeros(size, np.int64)
            self.run["team_state"] = self._state.ctypes.data
        self._state[:size] = 0
        self.run["steps"], self.run["threads"] = len(program.steps), threads
        return program

    def describe(self, arrays: Mapping[str, NDArray[np.integer]], fields: Mapping[str, int]) -> None:
        """Tell kernels of a batch: arrays by the name of the field for their address, and other fields of BATCH."""
        for name, array in arrays.items():
            self._arrays[name][: len(array)] = array
        for name, value in fields.items():
            self.batch[name] = value

    def _widths(self) -> dict[str, int]:
        sizes = self.weights.sizes
        return {
            "hidden": sizes.hidden_width,
            "wanted_hidden": sizes.hidden_width,
            "attended": sizes.hidden_width,
            "qkv": 3 * sizes.attention_width,
            "context": sizes.attention_width,
            "inner": sizes.inner_width,
        }

    def _word_strides(self) -> dict[str, int]:
        """The strides of what linear layers read, in words, if that is not float32 rows."""
        widths = self._widths()
        if self.weights.format.activations == "float32":
            return {}
        inner = max(widths["hidden"], widths["context"], widths["inner"])
        wide = {"hidden_words": widths["hidden"], "inner_words": inner}
        return {name: stride_of(self.weights.format.steps(width)) for name, width in wide.items()}

    def _places(self) -> dict[str, int]:
        """Where each buffer begins, the scratch memory and the end, in float32 values."""
        place, places = 0, dict[str, int]()
        for name, width in self._widths().items():
            # The feed-forward network needs no queries, keys, values and contexts any more: `inner` has their memory.
            places[name] = places["qkv"] if name == "inner" else place
            place = max(place, places[name] + self._rows * stride_of(width))
        for name, stride in self._word_strides().items():
            places[name] = place
            place += self._rows * (stride + FACTORS)
        return places | {"scratch": place, "end": place + self._scratch * self.threads}

    def _buffers(self, places: Mapping[str, int], address: int) -> Buffers:
        """The buffers, in memory that begins at an address."""
        buffers: dict[str, Any] = {"hidden_words": None, "inner_words": None}
        for name, width in self._widths().items():
            buffers[name] = Rows(address + places[name] * 4, stride_of(width))
        for name, stride in self._word_strides().items():
            start = address + places[name] * 4
            buffers[name] = Words(start, stride, start + self._rows * stride * 4)
        return Buffers(**buffers)


@cache
def _yield_function() -> int:
    """The address of the system's function that lets other threads have the processor."""
    if sys.platform == "win32":
        function: Any = ctypes.WinDLL("kernel32").SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0
