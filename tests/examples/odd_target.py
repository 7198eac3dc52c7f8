"""A made-up target: AVX2 with a tile of other rows and columns, and a dot product of bytes that is its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gte_np.kernels.targets.dot_products import DotProduct, Value
from gte_np.kernels.targets.x86 import AVX2


@dataclass(frozen=True)
class ByteByByte(DotProduct):
    """Four products of 32 bits, of the highest byte first."""

    def add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """Sums of integers do not depend on their order."""
        builder, top = emit.builder, emit.words(24)
        for shift in (24, 16, 8, 0):
            value = builder.lshr(builder.shl(x, emit.words(24 - shift)), top)
            weight = builder.ashr(builder.shl(weights, emit.words(24 - shift)), top)
            accumulator = builder.add(accumulator, builder.mul(value, weight))
        return accumulator


ODD = replace(AVX2, name="x86-64-odd", tile_rows=3, tile_vectors=3, int8_dot_product=ByteByByte())
