"""dtype "bfloat16": weights and activations are rounded to 16 bits, and their products are added up in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_np.formats.stored_tensor import StoredTensor
from gte_np.formats.weight_format import DotProductStep, FloatArray, FormattedMatrix, ProductStep, WeightFormat


class Bfloat16(WeightFormat):
    """Two bfloat16 values of neighbouring input features a word."""

    name = dtype = stored = activations = "bfloat16"
    word = np.dtype(np.uint32)
    values_of_word = 2
    saves_panels = True
    tile_product = "bfloat16"

    def encode_rows(self, values: FloatArray) -> dict[str, NDArray[Any]]:
        """The nearest bfloat16 values."""
        return {"": round_to_bfloat16(values)}

    def multiplier(self, matrix: FormattedMatrix) -> Callable[[FloatArray], FloatArray]:
        """Round x as the weights were rounded, then multiply in float32."""
        weight = matrix.to_float32()
        return lambda x: StoredTensor("bfloat16", round_to_bfloat16(x)).to_float32() @ weight.T  # -> (N, out)

    def step(self, target: Any) -> ProductStep:
        """Two products, that of the second values first, by the target's dot product if it has one."""
        return DotProductStep(target.bfloat16_dot_product)

    def pair_step(self, target: Any) -> ProductStep | None:
        """The same by the target's pair product."""
        return None if target.bfloat16_pair_product is None else DotProductStep(target.bfloat16_pair_product)


def round_to_bfloat16(values: FloatArray) -> NDArray[np.uint16]:
    """The 16-bit patterns of the nearest bfloat16 values, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)


BFLOAT16 = Bfloat16()
