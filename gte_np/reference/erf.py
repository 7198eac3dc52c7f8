"""The error function, which NumPy does not have, by a polynomial."""

from __future__ import annotations

import numpy as np

from gte_np.encoder_interface import FloatArray

# Beyond it erf is 1 to within 2e-8, less than half the distance between neighbouring float32 numbers there.
ERF_LIMIT = 4.0

# Fitted by scripts/fit_polynomials.py, lowest power first. The kernels have the same ones.
ERF_COEFFICIENTS = np.array(
    [
        0.353531, -0.17657617, 0.1316751, -0.10771328, 0.09021009, -0.07468837, 0.05987173, -0.04601033, 0.03315493,
        -0.02167232, 0.014041013, -0.010073057, 0.00541989, -0.0010855291, 0.0007137558, -0.0013705204, 0.000572087,
    ],
    np.float32,
)  # fmt: skip


def erf(x: FloatArray) -> FloatArray:
    """The error function, within 3e-7 everywhere; an array of any shape gives one of the same shape.

    erf is odd, so erf(x) / x is a function of x^2, and a smooth one: a polynomial of degree 16 follows it closely.

    >>> erf(np.array([-1, 0, 1, 9], np.float32)).round(4)
    array([-0.8427,  0.    ,  0.8427,  1.    ], dtype=float32)
    """
    x = np.clip(x, -ERF_LIMIT, ERF_LIMIT)
    scaled = np.square(x) * np.float32(2 / ERF_LIMIT**2) - 1  # x^2 from 0 to ERF_LIMIT^2 becomes -1 to 1
    ratio = np.full_like(x, ERF_COEFFICIENTS[-1])  # erf(x) / x, at the end of the loop
    for coefficient in ERF_COEFFICIENTS[-2::-1]:  # Horner's rule, in place
        ratio *= scaled
        ratio += coefficient
    return ratio * x
