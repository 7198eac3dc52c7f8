"""Weights as a checkpoint stores them, (out, in) -> the panels of the matrix product, (out / PANEL, in, PANEL)."""

from __future__ import annotations

from gte_np.kernels.matmul import PANEL
from gte_np.kernels.simd import LANES, Pointer, kernel, offset, smaller, transpose_block


@kernel
def pack(source: Pointer, source_stride: int, outputs: int, inputs: int, panels: Pointer, panel_size: int) -> None:
    """(outputs, inputs) -> (outputs / PANEL, inputs, PANEL), in panels that lie `panel_size` elements apart.

    Behind the last output of a panel nothing is written.
    """
    for output in range(0, outputs, LANES):
        target = offset(panels, output // PANEL * panel_size + output % PANEL)
        rows = smaller(LANES, outputs - output)
        whole = inputs // LANES * LANES if rows == LANES else 0
        for feature in range(0, whole, LANES):
            block = offset(source, output * source_stride + feature)
            transpose_block(block, source_stride, offset(target, feature * PANEL), PANEL)
        for feature in range(whole, inputs):
            for row in range(rows):
                target[feature * PANEL + row] = source[(output + row) * source_stride + feature]
