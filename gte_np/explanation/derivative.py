"""Forward-mode derivatives of the encoder: how the pooled vector moves when one token's state does.

The value and the derivative go through the same steps side by side. `x` is the value, (T, D); `dx` holds n
directions at once, (n, T, D). Where a function ends in `_derivative`, it takes what the step was computed from, and
gives the derivative of its result alone. The steps are those of `gte_np.reference`, for one text.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.reference.attention import softmax
from gte_np.reference.erf import erf
from gte_np.reference.feed_forward import gelu
from gte_np.reference.layer_norm import layer_norm
from gte_np.reference.linear import Weights, linear

Floats = NDArray[Any]  # float32, or float64, in which the tests compare with differences
Places = NDArray[np.intp]  # of tokens in their text


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


class Layer(NamedTuple):
    """The weights of one layer, and the numbers of the config that it needs."""

    weights: Weights
    heads: int
    eps: float


class _Attention(NamedTuple):
    """Attention of one text, for the R rows that are wanted."""

    query: Floats  # (H, R, K)
    key: Floats  # (H, T, K)
    value: Floats  # (H, T, K)
    probabilities: Floats  # (H, R, T)


def layer_derivative(x: Floats, dx: Floats, layer: Layer, rows: Places) -> tuple[Floats, Floats]:
    """Wanted rows of `encoder_layer` for one text, and their derivative: (T, D), (n, T, D) -> (R, D), (n, R, D)."""
    attention = _attend(x, layer, rows)
    dcontext = _context_derivative(attention, dx, layer, rows)
    return _after_attention(attention, dcontext, (x[rows], dx[:, rows]), layer)


def step_derivative(x: Floats, step: Floats, places: Places, layer: Layer, rows: Places) -> tuple[Floats, Floats]:
    """`layer_derivative` in n directions, in each of which one token moves, and the others cost nothing.

    `step` is how the tokens at the (n,) places move: (T, D), (n, D) -> (R, D), (n, R, D).
    """
    attention = _attend(x, layer, rows)
    dcontext = _context_step_derivative(attention, step, places, layer, rows)
    dx = np.zeros((len(places), len(rows), x.shape[-1]), x.dtype)
    moved, row = _own_rows(places, rows)
    dx[moved, row] = step[moved]
    return _after_attention(attention, dcontext, (x[rows], dx), layer)


def _attend(x: Floats, layer: Layer, rows: Places) -> _Attention:
    query, key, value = (
        _split(linear(states, layer.weights, f"attention.self.{name}"), layer.heads)
        for name, states in (("query", x[rows]), ("key", x), ("value", x))
    )
    scores: Floats = query @ _turned(key) / _root(query)
    return _Attention(query, key, value, softmax(scores))


def _context_derivative(attention: _Attention, dx: Floats, layer: Layer, rows: Places) -> Floats:
    """Of what the rows gather: (n, T, D) -> (n, H, R, K)."""
    dquery, dkey, dvalue = (
        _split(linear_derivative(change, layer.weights, f"attention.self.{name}"), layer.heads)
        for name, change in (("query", dx[:, rows]), ("key", dx), ("value", dx))
    )
    query, key, value, probabilities = attention
    dscores = (dquery @ _turned(key) + query @ _turned(dkey)) / _root(query)  # (n, H, R, T)
    return softmax_derivative(probabilities, dscores) @ value + probabilities @ dvalue


def _context_step_derivative(
    attention: _Attention, step: Floats, places: Places, layer: Layer, rows: Places
) -> Floats:
    """Of what the rows gather, if one token moves in each direction: (n, D) -> (n, H, R, K)."""
    moved, row = _own_rows(places, rows)
    dquery, dkey, dvalue = (
        linear_derivative(change, layer.weights, f"attention.self.{name}").reshape(len(change), layer.heads, -1)
        for name, change in (("query", step[moved]), ("key", step), ("value", step))
    )  # (n, H, K), and as many queries as there are rows that move
    query, key, value, probabilities = attention
    dscores = np.zeros((len(step), *probabilities.shape), step.dtype)  # (n, H, R, T)
    dscores[np.arange(len(step)), :, :, places] = np.einsum("hrk,nhk->nhr", query, dkey)  # every row looks at it
    dscores[moved, :, row] += np.einsum("nhk,htk->nht", dquery, key)  # and its own looks at every token
    passed_on = probabilities.transpose(2, 0, 1)[places][..., None] * dvalue[:, :, None]  # (n, H, R, K)
    return softmax_derivative(probabilities, dscores / _root(query)) @ value + passed_on


def _own_rows(places: Places, rows: Places) -> tuple[Places, ...]:
    """The directions whose token is a wanted row, and which row that is."""
    return np.nonzero(places[:, None] == rows)


def _after_attention(
    attention: _Attention, dcontext: Floats, x: tuple[Floats, Floats], layer: Layer
) -> tuple[Floats, Floats]:
    """The rest of a layer for some rows, whose states and derivatives are `x`: (R, D), (n, R, D), and both again."""
    weights = layer.weights
    context = _joined(attention.probabilities @ attention.value)  # (H, R, K) -> (R, D)
    output = "attention.output.dense"
    attended = linear(context, weights, output), linear_derivative(_joined(dcontext), weights, output)
    states, change = _add_norm(x, attended, layer, "attention.output.LayerNorm")
    expanded = linear(states, weights, "intermediate.dense")  # (R, F)
    dexpanded = linear_derivative(change, weights, "intermediate.dense") * gelu_derivative(expanded)  # (n, R, F)
    processed = linear(gelu(expanded), weights, "output.dense"), linear_derivative(dexpanded, weights, "output.dense")
    return _add_norm((states, change), processed, layer, "output.LayerNorm")


def _add_norm(
    x: tuple[Floats, Floats], correction: tuple[Floats, Floats], layer: Layer, name: str
) -> tuple[Floats, Floats]:
    """The residual connection and layer norm, and their derivative: of each pair the first is a value."""
    total = x[0] + correction[0]  # (R, D)
    change = layer_norm_derivative(total, x[1] + correction[1], layer.weights[f"{name}.weight"], layer.eps)
    return layer_norm(total, layer.weights, name, layer.eps), change


def _root(query: Floats) -> float:
    """What attention divides scores by."""
    return float(query.shape[-1] ** 0.5)


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
