"""Weights as a checkpoint stores them, in words (out, steps) -> the panels of the matrix product."""

from __future__ import annotations

from gte_np.kernels.language.memory import offset, smaller, transpose_block
from gte_np.kernels.language.types import LANES, Pointer, kernel


@kernel
def pack(
    source: Pointer, source_stride: int, outputs: int, steps: int, panels: Pointer, panel_size: int, width: int
) -> None:
    """(outputs, steps) -> (outputs / width, steps, width), in panels that lie `panel_size` words apart.

    Behind the last output feature of a panel nothing is written.
    """
    for output in range(0, outputs, LANES):
        target = offset(panels, output // width * panel_size + output % width)
        rows = smaller(LANES, outputs - output)
        whole = steps // LANES * LANES if rows == LANES else 0
        for step in range(0, whole, LANES):
            block = offset(source, output * source_stride + step)
            transpose_block(block, source_stride, offset(target, step * width), width)
        for step in range(whole, steps):
            for row in range(rows):
                target[step * width + row] = source[(output + row) * source_stride + step]
