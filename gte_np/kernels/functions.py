"""exp, erf and gelu of vectors, by polynomials, with their error bounds."""

from __future__ import annotations

import math

import numpy as np

from gte_np.kernels.simd import Vector, fma, kernel, maximum, minimum, polynomial, scale_by_power_of_two, splat
from gte_np.reference.feed_forward import ERF_COEFFICIENTS, ERF_LIMIT

# exp(x) = 2^n exp(r), with n whole and |r| <= log(2) / 2. log(2) in two parts: n times the first has no rounding
# error.
_LOG2_E = np.float32(math.log2(math.e))
_LOG_2_HIGH = np.float32(0.693359375)
_LOG_2_LOW = np.float32(math.log(2) - 0.693359375)
# exp(r), of least error on that interval (Cephes, expf).
_EXP_SERIES = polynomial(
    [1.0, 1.0, 5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4]
)
# Adding it leaves the nearest whole number in the low bits of a float32: beyond 2^23 there are no fractions.
_ROUNDER = np.float32(1.5 * 2**23)
EXP_LOWEST = np.float32(-87.0)  # exp of it is 1.6e-38, nearly the smallest normal number
EXP_HIGHEST = np.float32(88.0)

_ERF_SERIES = polynomial(ERF_COEFFICIENTS.tolist())
_LIMIT = np.float32(ERF_LIMIT)
_SQUARE_SCALE = np.float32(2 / ERF_LIMIT**2)
_ROOT_HALF = np.float32(math.sqrt(0.5))
_ONE = np.float32(1)
_HALF = np.float32(0.5)


@kernel
def exp(x: Vector) -> Vector:
    """The exponential within 2e-7 of its value, for x from EXP_LOWEST to EXP_HIGHEST; below, that of EXP_LOWEST."""
    x = maximum(x, splat(EXP_LOWEST))
    rounded = fma(x, splat(_LOG2_E), splat(_ROUNDER))
    exponent = rounded - splat(_ROUNDER)
    rest = fma(exponent, splat(-_LOG_2_LOW), fma(exponent, splat(-_LOG_2_HIGH), x))
    return scale_by_power_of_two(_EXP_SERIES(rest), rounded)


@kernel
def erf(x: Vector) -> Vector:
    """The error function within 3e-7 everywhere, as `gte_np.reference.feed_forward.erf` computes it."""
    x = maximum(minimum(x, splat(_LIMIT)), splat(-_LIMIT))
    return _ERF_SERIES(fma(x * x, splat(_SQUARE_SCALE), splat(-_ONE))) * x


@kernel
def gelu(x: Vector) -> Vector:
    """x times the normal distribution's cumulative function at x."""
    return x * (erf(x * splat(_ROOT_HALF)) + splat(_ONE)) * splat(_HALF)
