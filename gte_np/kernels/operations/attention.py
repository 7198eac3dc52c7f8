"""Attention in one head of one text, in the way that suits the format and the target."""

from __future__ import annotations

from numba.extending import overload

from gte_np.kernels.language.types import Pointer
from gte_np.kernels.operations.attention_head import Head
from gte_np.kernels.operations.tile_attention import attend_in_tiles
from gte_np.kernels.operations.unit_attention import attend_by_unit
from gte_np.kernels.targets.matrix_units import BFLOAT16_DEPTH


def attend(weights: Pointer, head: Head, memory: Pointer) -> None:
    """softmax(query key^T / sqrt(head size)) value.

    `weights` is any pointer to packed weights, for its format and its target; `memory` is scratch memory, as large
    as `gte_np.kernels.runtime.workspace.attention_scratch` says.
    """


@overload(attend, jit_options={"error_model": "numpy"})
def _attend(weights, head, memory):  # type: ignore[no-untyped-def]  # Numba compares the signatures
    return _by_unit if weights.dtype.target.rounds_in_tiles(weights.dtype.format.tile_product) else _in_tiles


def _in_tiles(weights, head, memory):  # type: ignore[no-untyped-def]
    attend_in_tiles(weights, head, memory)


def _by_unit(weights, head, memory):  # type: ignore[no-untyped-def]
    """If a head's features fill whole tiles, as they always do where a panel has two vectors."""
    if head.width % BFLOAT16_DEPTH == 0:
        attend_by_unit(weights, head, memory)
    else:
        attend_in_tiles(weights, head, memory)
