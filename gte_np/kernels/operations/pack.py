"""Weights as a checkpoint stores them, in words (out, steps) -> the panels of the matrix product."""

from __future__ import annotations

from typing import Any

from gte_np.kernels.language.memory import offset, smaller, transpose_block
from gte_np.kernels.language.types import LANES, Pointer, kernel

Layout = Any  # a record of gte_np.kernels.operations.records.LAYOUT


@kernel
def pack(source: Pointer, panels: Pointer, layout: Layout) -> None:
    """(outputs, steps) -> (outputs / width, steps, width), by a record of LAYOUT.

    Behind the last output feature of a panel nothing is written.
    """
    stride, width = layout.source_stride, layout.width
    for output in range(0, layout.outputs, LANES):
        target = offset(panels, output // width * layout.panel_size + output % width)
        rows = smaller(LANES, layout.outputs - output)
        whole = layout.steps // LANES * LANES if rows == LANES else 0
        for step in range(0, whole, LANES):
            block = offset(source, output * stride + step)
            transpose_block(block, stride, offset(target, step * width), width)
        for step in range(whole, layout.steps):
            for row in range(rows):
                target[step * width + row] = source[(output + row) * stride + step]
