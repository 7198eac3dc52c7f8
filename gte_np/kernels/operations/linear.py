"""A panel of a linear layer for any number of rows, in the way that suits the format and the target."""

from __future__ import annotations

from collections.abc import Callable

from numba.extending import overload

from gte_np.kernels.language.memory import widened_panel, widened_steps
from gte_np.kernels.language.types import Pointer, kernel
from gte_np.kernels.operations.feature_pairs import ordered_tiles
from gte_np.kernels.operations.functions import gelu_rows, rows_of_gelu
from gte_np.kernels.operations.matmul import (
    Linear,
    Matrix,
    Operand,
    linear_tile,
    linear_tiles,
    matrix_at,
    operand_at,
    row_of,
    tiles_of,
)
from gte_np.kernels.operations.matrix_unit import unit_panel
from gte_np.kernels.operations.row_pairs import arrange_weights, paired_tiles
from gte_np.kernels.targets.matrix_units import TILE

FEW_ROWS = 12  # of them, dot products with the same sums read weights faster than a matrix unit


def linear_panel(rows: int, x: Operand, linear: Linear, out: Matrix, scratch: Pointer) -> None:
    """(rows, in), the first panel of a linear layer -> (rows, panel width), through gelu if that follows.

    `scratch` is as large as `gte_np.kernels.runtime.workspace.scratch_size` says.
    """


@overload(linear_panel, jit_options={"error_model": "numpy"})
def _linear_panel(rows, x, linear, out, scratch):  # type: ignore[no-untyped-def]  # Numba compares the signatures
    packed = linear.types[0].dtype
    if packed.target.multiplies_tiles(packed.format.tile_product):
        return _by_unit(0 if packed.target.rounds_in_tiles(packed.format.tile_product) else FEW_ROWS)
    if packed.format.pair_step(packed.target) is not None:
        return _pairing_panel
    if packed.format.orders_features(packed.target):
        return _ordering_panel
    return _panel if packed.format.widened(packed.target) is None else _widening_panel


def _panel(rows, x, linear, out, scratch):  # type: ignore[no-untyped-def]
    linear_tiles(rows, x, linear, out)
    activate(rows, linear, out)


def _by_unit(few: int) -> Callable[..., None]:
    """More rows than a few go to the matrix unit, if the depth of the product suits it."""

    def panel(rows, x, linear, out, scratch):  # type: ignore[no-untyped-def]
        if rows > few and linear.steps % TILE == 0:
            unit_panel(rows, x, linear, out, scratch)
        else:
            linear_tiles(rows, x, linear, out)
            activate(rows, linear, out)

    return panel


def _pairing_panel(rows, x, linear, out, scratch):  # type: ignore[no-untyped-def]
    """Several tiles go by pairs of rows, for which weights are arranged in `scratch`, if the depth is even."""
    if tiles_of(linear.weight, rows) > 1 and linear.steps % 2 == 0:
        arrange_weights(linear, scratch)
        paired_tiles(rows, x, linear, out, scratch)
    else:
        linear_tiles(rows, x, linear, out)
    activate(rows, linear, out)


def _ordering_panel(rows, x, linear, out, scratch):  # type: ignore[no-untyped-def]
    ordered_tiles(rows, x, linear, out, scratch)
    activate(rows, linear, out)


def _widening_panel(rows, x, linear, out, scratch):  # type: ignore[no-untyped-def]
    """The first of several tiles leaves the widened weights in `scratch` for the others."""
    tiles = tiles_of(linear.weight, rows)
    if tiles == 1:
        linear_tiles(rows, x, linear, out)
    else:
        height = rows // tiles
        linear_tile(height, x, linear, out, scratch)
        weight, steps = widened_panel(scratch, linear.weight), widened_steps(linear.weight, linear.steps)
        widened = Linear(weight, linear.bias, linear.constants, linear.constant_rows, steps, linear.gelu)
        linear_tiles(rows - height, operand_at(x, height), widened, matrix_at(out, height, 0))
    activate(rows, linear, out)


@kernel
def activate(rows: int, linear: Linear, out: Matrix) -> None:
    """Gelu of (rows, panel width) results, in place, if it follows."""
    if linear.gelu == 1:
        gelu_block(linear.weight, rows, out)


@kernel
def gelu_block(weights: Pointer, rows: int, block: Matrix) -> None:
    """Gelu of (rows, panel width) values, in place: they were written just before."""
    for row in range(0, rows, rows_of_gelu(weights)):
        gelu_rows(weights, row_of(block, row), block.stride, rows - row)
