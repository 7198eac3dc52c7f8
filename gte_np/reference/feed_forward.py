"""The position-wise feed-forward network (Vaswani et al. 2017, section 3.3) with GELU (Hendrycks and Gimpel 2016)."""

from __future__ import annotations

from math import erf as exact_erf
from math import sqrt

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

from gte_np.encoder import FloatArray
from gte_np.reference.linear import Weights, linear

# Beyond it erf is 1 to within 2e-8, less than half the distance of float32 numbers there.
ERF_LIMIT = 4.0


def feed_forward(x: FloatArray, weights: Weights) -> FloatArray:
    """Widen, bend, narrow each token by itself: (N, D) -> (N, F) -> (N, D)."""
    inner = linear(x, weights, "intermediate.dense")  # (N, D) -> (N, F)
    return linear(gelu(inner), weights, "output.dense")  # (N, F) -> (N, D)


def gelu(x: FloatArray) -> FloatArray:
    """x times the normal distribution's cumulative function at x: torch's gelu, not its tanh approximation."""
    return x * (erf(x * np.float32(sqrt(0.5))) + 1) * np.float32(0.5)


def erf(x: FloatArray) -> FloatArray:
    """The error function, within 3e-7 everywhere.

    erf is odd, so erf(x) / x is a function of x^2, and a smooth one: a polynomial of degree 16 follows it.
    """
    x = np.clip(x, -ERF_LIMIT, ERF_LIMIT)
    t = np.square(x) * np.float32(2 / ERF_LIMIT**2) - 1  # x^2 from 0 to ERF_LIMIT^2 becomes -1 to 1
    series = np.full_like(x, ERF_COEFFICIENTS[-1])
    for coefficient in ERF_COEFFICIENTS[-2::-1]:  # Horner's rule, in place
        series *= t
        series += coefficient
    return series * x


def _fit_erf(degree: int) -> NDArray[np.float32]:
    """Coefficients in t, lowest first, of the polynomial that meets erf(x) / x at the Chebyshev points."""

    def erf_over_x(squares: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([exact_erf(sqrt(square)) / sqrt(square) for square in squares])

    series = Chebyshev.interpolate(erf_over_x, degree, domain=[0, ERF_LIMIT**2])
    return series.convert(kind=Polynomial, domain=series.domain, window=[-1, 1]).coef.astype(np.float32)


ERF_COEFFICIENTS = _fit_erf(degree=16)
