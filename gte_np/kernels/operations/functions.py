"""exp2, erf and gelu of vectors, by polynomials, with their error bounds."""

from __future__ import annotations

import math

import numpy as np

from gte_np.kernels.language.emitter import ROUNDER
from gte_np.kernels.language.types import Vector, kernel
from gte_np.kernels.language.vectors import fma, maximum, minimum, polynomial, scale_by_power_of_two, splat
from gte_np.reference.erf import ERF_COEFFICIENTS, ERF_LIMIT

# 2^x = 2^n 2^r, with n whole and |r| <= 1/2. Of all polynomials of degree 5 with value 1 at 0, this one has the least
# relative error on that interval: 9.2e-8, and 1.1e-7 once its coefficients are rounded to float32, as they are here.
# scripts/fit_polynomials.py finds it.
EXP2_COEFFICIENTS = [
    1.0, 0.6931470036506653, 0.24022242426872253, 0.05550733581185341, 0.009671512991189957, 0.001326472731307149
]  # fmt: skip
_EXP2_SERIES = polynomial(EXP2_COEFFICIENTS)
_ROUNDER = np.float32(ROUNDER)
EXP2_LOWEST = np.float32(-126.0)  # 2 to it is the smallest normal number
EXP2_HIGHEST = np.float32(127.0)

_ERF_SERIES = polynomial(ERF_COEFFICIENTS.tolist())
_LIMIT = np.float32(ERF_LIMIT)
_SQUARE_SCALE = np.float32(2 / ERF_LIMIT**2)
_ROOT_HALF = np.float32(math.sqrt(0.5))
_ONE = np.float32(1)
_HALF = np.float32(0.5)


@kernel
def exp2(x: Vector) -> Vector:
    """2 to the power of x within 2e-7 of its value, from EXP2_LOWEST to EXP2_HIGHEST; below, that of EXP2_LOWEST."""
    x = maximum(x, splat(EXP2_LOWEST))
    rounded = x + splat(_ROUNDER)
    return scale_by_power_of_two(_EXP2_SERIES(x - (rounded - splat(_ROUNDER))), rounded)


@kernel
def erf(x: Vector) -> Vector:
    """The error function within 3e-7 everywhere, as `gte_np.reference.erf.erf` computes it."""
    x = maximum(minimum(x, splat(_LIMIT)), splat(-_LIMIT))
    return _ERF_SERIES(fma(x * x, splat(_SQUARE_SCALE), splat(-_ONE))) * x


@kernel
def gelu(x: Vector) -> Vector:
    """x times the normal distribution's cumulative function at x."""
    return x * (erf(x * splat(_ROOT_HALF)) + splat(_ONE)) * splat(_HALF)
