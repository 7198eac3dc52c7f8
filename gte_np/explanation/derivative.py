"""Forward-mode derivatives of the encoder: how the pooled vector moves when one token's state does.

The value and the derivative go through the same steps side by side. `x` is the value, (T, D); `dx` holds n
directions at once, (n, T, D). Where a function ends in `_derivative`, it takes what the step was computed from, and
gives the derivative of its result alone. The steps are those of `gte_np.reference`, for one text.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_np.reference.attention import softmax
from gte_np.reference.erf import erf
from gte_np.reference.feed_forward import gelu
from gte_np.reference.layer_norm import layer_norm
from gte_np.reference.linear import Weights, linear

Floats = NDArray[Any]  # float32, or float64, in which the tests compare with differences


def linear_derivative(dx: Floats, weights: Weights, name: str) -> Floats:
    """Of `linear`, whose bias has none: (n, T, in) -> (n, T, out)."""
    rows = dx.reshape(-1, dx.shape[-1]) @ weights[f"{name}.weight"].T  # one product: (n T, in) @ (in, out)
    return rows.reshape(*dx.shape[:-1], -1)


def layer_norm_derivative(x: Floats, dx: Floats, scale: Floats, eps: float) -> Floats:
    """Of `layer_norm` at x, (T, D): (n, T, D) -> (n, T, D). `scale` is its weight, (D,)."""
    centred = x - x.mean(axis=-1, keepdims=True)  # (T, D)
    deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + eps)  # (T, 1)
    normal = centred / deviation  # (T, D)
    change = dx - dx.mean(axis=-1, keepdims=True)  # (n, T, D)
    along = (change * normal).mean(axis=-1, keepdims=True)  # (n, T, 1): what normalising takes away
    return (change - normal * along) / deviation * scale


def gelu_derivative(x: Floats) -> Floats:
    """The slope of `gelu`: the normal distribution, and x times its density; the shape stays."""
    distribution = (erf(x * np.float32(sqrt(0.5))) + 1) * 0.5
    return distribution + x * np.exp(-0.5 * np.square(x)) * (1 / sqrt(2 * pi))


def softmax_derivative(probabilities: Floats, dscores: Floats) -> Floats:
    """Of `softmax`, whose result is given, (..., T): dscores (n, ..., T) -> (n, ..., T)."""
    mean = (probabilities * dscores).sum(axis=-1, keepdims=True)
    return probabilities * (dscores - mean)


def normalize_derivative(vector: Floats, dvector: Floats) -> Floats:
    """Of vector / |vector|, (D,): (n, D) -> (n, D)."""
    length = np.linalg.norm(vector)
    unit = vector / length
    return (dvector - (dvector @ unit)[:, None] * unit) / length


def attention_derivative(x: Floats, dx: Floats, weights: Weights, heads: int) -> tuple[Floats, Floats]:
    """Self-attention of one text and its derivative: (T, D), (n, T, D) -> (T, D), (n, T, D)."""
    query, key, value = (_split(linear(x, weights, f"attention.self.{n}"), heads) for n in _NAMES)  # (H, T, K)
    dquery, dkey, dvalue = (_split(linear_derivative(dx, weights, f"attention.self.{n}"), heads) for n in _NAMES)
    root = query.shape[-1] ** 0.5
    probabilities = softmax(query @ _turned(key) / root)  # (H, T, T)
    dscores = (dquery @ _turned(key) + query @ _turned(dkey)) / root  # (n, H, T, T)
    dcontext = softmax_derivative(probabilities, dscores) @ value + probabilities @ dvalue  # (n, H, T, K)
    output = "attention.output.dense"
    context = _joined(probabilities @ value)  # (H, T, K) -> (T, D)
    return linear(context, weights, output), linear_derivative(_joined(dcontext), weights, output)


def layer_derivative(x: Floats, dx: Floats, weights: Weights, heads: int, eps: float) -> tuple[Floats, Floats]:
    """`encoder_layer` for one text, and its derivative: (T, D), (n, T, D) -> (T, D), (n, T, D)."""
    attended, dattended = attention_derivative(x, dx, weights, heads)
    x, dx = _add_norm((x, attended), (dx, dattended), weights, "attention.output.LayerNorm", eps)
    expanded = linear(x, weights, "intermediate.dense")  # (T, F)
    dexpanded = linear_derivative(dx, weights, "intermediate.dense") * gelu_derivative(expanded)  # (n, T, F)
    processed = linear(gelu(expanded), weights, "output.dense")  # (T, D)
    dprocessed = linear_derivative(dexpanded, weights, "output.dense")  # (n, T, D)
    return _add_norm((x, processed), (dx, dprocessed), weights, "output.LayerNorm", eps)


_NAMES = ("query", "key", "value")


def _add_norm(
    x: tuple[Floats, Floats], dx: tuple[Floats, Floats], weights: Weights, name: str, eps: float
) -> tuple[Floats, Floats]:
    """The residual connection and layer norm, and their derivative."""
    total = x[0] + x[1]  # (T, D)
    change = layer_norm_derivative(total, dx[0] + dx[1], weights[f"{name}.weight"], eps)
    return layer_norm(total, weights, name, eps), change


def _split(x: Floats, heads: int) -> Floats:
    """(..., T, D) -> (..., H, T, K)."""
    return np.swapaxes(x.reshape(*x.shape[:-1], heads, -1), -3, -2)


def _joined(x: Floats) -> Floats:
    """(..., H, T, K) -> (..., T, D)."""
    turned = np.swapaxes(x, -3, -2)
    return turned.reshape(*turned.shape[:-2], -1)


def _turned(x: Floats) -> Floats:
    """(..., T, K) -> (..., K, T)."""
    return np.swapaxes(x, -1, -2)
