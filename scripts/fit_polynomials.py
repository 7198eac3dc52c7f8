"""Fit the polynomials of erf and exp2, and print their coefficients, lowest first.

The code has them as literals: those of erf are in gte_np/reference/erf.py, those of exp2 in
gte_np/kernels/functions.py.
"""

from __future__ import annotations

from math import erf, log, sqrt
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.polynomial.polynomial import polyval
from numpy.typing import NDArray

from gte_np.reference.erf import ERF_LIMIT

GRID = 200_000  # points; even, so that 0 is none of them
EXCHANGES = 10  # it settles after 4

FloatArray = NDArray[np.floating[Any]]


def main() -> None:
    print(f"ERF_COEFFICIENTS = [{literals(fit_erf())}]")
    print(f"EXP2_COEFFICIENTS = [{literals(fit_exp2())}]")


def literals(coefficients: NDArray[Any]) -> str:
    """The shortest decimal numbers that are these coefficients in float32."""
    return ", ".join(str(coefficient) for coefficient in coefficients.astype(np.float32))


def fit_erf(degree: int = 16) -> FloatArray:
    """The polynomial that equals erf(x) / x at the Chebyshev points of x^2 from 0 to ERF_LIMIT^2.

    Its variable is x^2, scaled and shifted to [-1, 1]. The error is close to the least that a polynomial of this
    degree can have.
    """

    def erf_over_x(squares: FloatArray) -> FloatArray:
        return np.array([erf(sqrt(square)) / sqrt(square) for square in squares])

    series = Chebyshev.interpolate(erf_over_x, degree, domain=[0, ERF_LIMIT**2])
    return series.convert(kind=Polynomial, domain=series.domain, window=[-1, 1]).coef


def fit_exp2(degree: int = 5) -> FloatArray:
    """Of all polynomials in r with value 1 at 0, the one with the least relative error from 2^r, for |r| <= 1/2.

    The polynomial is 1 + r q(r): q approximates (2^r - 1) / r, and its error is weighted by |r| / 2^r. The best q has
    errors of equal size and alternating signs at degree + 1 points. Remez's algorithm finds them: it solves for the
    q that has such errors at the points of the round before, then moves each point to the largest error near it.
    """
    r = np.linspace(-0.5, 0.5, GRID)
    target, weight = np.expm1(r * log(2)) / r, np.abs(r) / np.exp2(r)
    points = np.linspace(0, GRID - 1, degree + 1).astype(int)
    for _ in range(EXCHANGES):
        q = _level(r[points], target[points], weight[points])
        points = _largest_of_each_sign(weight * (polyval(r, q) - target))
    return np.concatenate([[1.0], q])


def _level(r: FloatArray, target: FloatArray, weight: FloatArray) -> FloatArray:
    """The polynomial whose weighted errors at these points are E, -E, E, ...: one coefficient fewer than points."""
    signs = (-1.0) ** np.arange(len(r))
    powers = np.vander(r, len(r) - 1, increasing=True)
    return np.linalg.solve(np.column_stack([powers, signs / weight]), target)[:-1]  # the last unknown is E


def _largest_of_each_sign(error: FloatArray) -> NDArray[np.intp]:
    """Where |error| is largest in each run of errors of one sign."""
    runs = np.split(np.arange(len(error)), np.flatnonzero(np.diff(np.sign(error))) + 1)
    return np.array([run[np.abs(error[run]).argmax()] for run in runs])


if __name__ == "__main__":
    main()
