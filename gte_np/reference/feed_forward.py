"""The position-wise feed-forward network (Vaswani et al. 2017, section 3.3) with GELU (Hendrycks and Gimpel 2016)."""

from __future__ import annotations

from math import sqrt

import numpy as np

from gte_np.encoder_interface import FloatArray
from gte_np.reference.erf import erf
from gte_np.reference.linear import Weights, linear


def feed_forward(x: FloatArray, weights: Weights) -> FloatArray:
    """Expand each token to F features, apply GELU, project back to D: (N, D) -> (N, D).

    Attention mixes tokens; this works on each token by itself. F is four times D in most models.

    Here D = 1 and F = 2, and the sum of GELU(x) and GELU(-x) is nearly |x| for a large x:

    >>> weights = {"intermediate.dense.weight": np.array([[1], [-1]]), "intermediate.dense.bias": np.zeros(2)}
    >>> weights |= {"output.dense.weight": np.array([[1, 1]]), "output.dense.bias": np.zeros(1)}
    >>> feed_forward(np.array([[-5], [5]], np.float32), weights).round(3).tolist()
    [[5.0], [5.0]]
    """
    expanded = linear(x, weights, "intermediate.dense")  # (N, D) -> (N, F)
    return linear(gelu(expanded), weights, "output.dense")  # (N, F) -> (N, D)


def gelu(x: FloatArray) -> FloatArray:
    """x times the probability that a standard normal variable is below x; the shape stays.

    Without a function that is not linear between them, two linear layers would be no more than one. GELU passes large
    values and stops very negative ones, as ReLU, max(x, 0), does, but it is smooth: its gradient does not jump at 0.
    This is torch's gelu by erf, not its tanh approximation.

    >>> gelu(np.array([-9, -1, 0, 1, 9], np.float32)).round(4) + 0  # adding 0 turns -0 into 0
    array([ 0.    , -0.1587,  0.    ,  0.8413,  9.    ], dtype=float32)
    """
    return x * (erf(x * np.float32(sqrt(0.5))) + 1) * np.float32(0.5)
