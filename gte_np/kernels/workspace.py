"""The memory that a run of the encoder works in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_np.kernels.packing import PANEL, PackedWeights, Sizes, padded
from gte_np.kernels.plan import FACTORS, team_state_size
from gte_np.kernels.processor import LANES, processor

_ALIGNMENT = 64  # bytes of a cache line
# Rows are so much farther apart than they are long, in values: a cache line. Rows of 4 KB, say, would all compete for
# the same few places of the nearest cache.
_GAP = 16


def stride_of(width: int) -> int:
    """How far rows of this width lie apart."""
    return width + _GAP


def attention_scratch(keys: int, head_width: int) -> int:
    """float32 values that `gte_np.kernels.attention.attend` needs: keys and values of a head, and a tile's scores."""
    columns = padded(keys + 1)  # one more than keys, for `exponentiate`
    return columns * head_width + keys * head_width + processor().tile[0] * (columns + LANES + head_width + 1)


def scratch_size(sizes: Sizes, longest: int) -> int:
    """float32 values of scratch memory for each thread: for attention, or for a panel of widened weights."""
    depth = max(sizes.hidden, sizes.inner, sizes.attention_width)
    return padded(max(attention_scratch(longest, sizes.head_width), depth * PANEL), LANES)


class Workspace:
    """Buffers for a batch of so many tokens; `plan` is a record of PLAN with their addresses."""

    def __init__(self, weights: PackedWeights, tokens: int, longest: int, threads: int) -> None:
        sizes = weights.sizes
        self.tokens, self.longest, self.threads = tokens, longest, threads
        self.plan = weights.plan.copy()
        rows = padded(tokens, LANES) + LANES  # keys are read up to a multiple of LANES
        widths = {
            "hidden": sizes.hidden_width,
            "wanted_hidden": sizes.hidden_width,
            "attended": sizes.hidden_width,
            "qkv": 3 * sizes.attention_width,
            "context": sizes.attention_width,
            "inner": sizes.inner_width,
        }
        scratch = scratch_size(sizes, longest)
        lengths = {name: rows * stride_of(width) for name, width in widths.items()} | {"scratch": scratch * threads}
        if weights.values_of_word > 1:
            inner = max(sizes.attention_width, sizes.hidden_width, sizes.inner_width)
            for name, width in (("hidden", sizes.hidden_width), ("inner", inner)):
                stride = stride_of(weights.steps(width))
                self.plan[f"{name}_words_stride"] = stride
                lengths |= {f"{name}_words": rows * stride, f"{name}_factors": rows * FACTORS}
        self._memory = np.empty(sum(lengths.values()) + _ALIGNMENT // 4, np.float32)
        address = padded(self._memory.ctypes.data, _ALIGNMENT)
        for name, length in lengths.items():
            self.plan[name] = address
            address += length * self._memory.itemsize
        for name in ("hidden", "qkv", "context", "inner"):
            self.plan[f"{name}_stride"] = stride_of(widths[name])
        self.plan["scratch_size"] = scratch
        self.state = np.zeros(team_state_size(int(self.plan["layers"][0]), threads), np.int64)
        self.plan["team_state"] = self.state.ctypes.data

    def fits(self, tokens: int, longest: int, threads: int) -> bool:
        """Whether a batch has room here."""
        return tokens <= self.tokens and longest <= self.longest and threads <= self.threads

    def begin(self, **fields: Any) -> NDArray[Any]:
        """The plan, with these fields filled in, for a team that has not begun."""
        self.state[:] = 0
        for name, value in fields.items():
            self.plan[name] = value
        return self.plan
