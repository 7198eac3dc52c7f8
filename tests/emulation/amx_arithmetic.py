"""What AMX computes, in NumPy: the products of tiles, to the last bit.

Axis letters: M rows of the sums, N columns of the sums, K depth in elements of four bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TINY = np.finfo(np.float32).tiny


def byte_products(sums: NDArray[np.int32], left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.int32]:
    """(M, N) sums, (M, K, 4) and (K, N, 4) of int8 or uint8 -> (M, N), which wrap around."""
    products = np.einsum("mki,kni->mn", left.astype(np.int64), right.astype(np.int64))
    return (sums + products).astype(np.uint32).view(np.int32)


def bfloat16_products(sums: Floats, left: NDArray[np.uint16], right: NDArray[np.uint16]) -> Floats:
    """(M, N) sums, (M, K, 2) and (K, N, 2) bits of bfloat16 -> (M, N), as TDPBF16PS computes them.

    The first numbers of all pairs are one chain of fused multiply-adds, the second numbers another, each begun with
    zero and in the order of K; then sums + (first + second). Every step takes denormals for zeros, rounds to nearest
    even, and makes zeros of what is still smaller than a normal number then. Which NaN comes out is left open.
    """
    chains = np.zeros((2, *sums.shape), np.float32)
    wide_left, wide_right = widened(left), widened(right)
    for k in range(left.shape[1]):
        for i in range(2):
            chains[i] = multiply_add(wide_left[:, k, i, None], wide_right[k, :, i], chains[i])
    return add(sums, add(chains[0], chains[1]))


def widened(bits: NDArray[np.uint16]) -> Floats:
    """Bits of bfloat16 as float32, of the same shape."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def multiply_add(left: Floats, right: Floats, sums: Floats) -> Floats:
    """left * right + sums, rounded once; factors must be numbers of bfloat16, so that float64 holds their product."""
    with np.errstate(all="ignore"):
        product = without_denormals(left).astype(np.float64) * without_denormals(right)
        # Exact, or one of them is so much smaller that it changes nothing in 24 bits either.
        total = product + without_denormals(sums)
        # What 24 bits would round to a normal number is not flushed.
        is_tiny = np.abs(total) < float(TINY) * (1 - 2.0**-25)
        return np.where(is_tiny, np.copysign(0, total), total).astype(np.float32)


def add(left: Floats, right: Floats) -> Floats:
    """left + right of float32."""
    with np.errstate(all="ignore"):
        return without_denormals(without_denormals(left) + without_denormals(right))


def without_denormals(values: Floats) -> Floats:
    """Zeros of the same sign in place of denormal numbers."""
    return np.where(np.abs(values) < TINY, np.copysign(np.float32(0), values), values)
