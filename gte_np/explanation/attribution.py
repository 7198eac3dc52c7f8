"""What each pair of tokens contributes to a cosine, approximately, where a model reads one token, such as [CLS].

The method is that of Moeller, Nikolaev and Pado, "Approximate Attributions for Off-the-Shelf Siamese Transformers"
(2024). Take the states x of a text before some layer, those r of a reference text, and the line between them. The
vector f changes along it by the integral of its derivative, to which each token has a part of its own:

    f(x) - f(r) = sum over i of u_i        u_i = integral over s from 0 to 1 of  f'(r + s (x - r)) (x_i - r_i)

The reference text has as many tokens: [CLS] and [SEP] where they are, and [PAD] between them. So u_i of a special
token is what it has gathered below that layer, nothing if the layer is the first. With v_j for the other text,
A_ij = u_i . v_j. The sum of all A_ij lacks the products with f(r), so it is not the cosine: the rest is reported.

It is no more than an approximation. Where f(r) is near f(x), the rest is large, and sums of A_ij need not rank tokens
as their deletion does: on all-MiniLM-L6-v2 with the pooling of [CLS], for which it was not trained, they do not.
Eight nodes leave some of the integral out there, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gte_np.encoder_interface import FloatArray
from gte_np.explanation.contributions import Doubles
from gte_np.explanation.deletion import products_of_a_token
from gte_np.explanation.derivative import (
    Floats,
    Layer,
    Places,
    layer_derivative,
    normalize_derivative,
    step_derivative,
)
from gte_np.explanation.layers import layer_states
from gte_np.explanation.model import ExplainedModel, weights_of
from gte_np.reference.linear import Weights
from gte_np.token_batch import TokenBatch

NODES = 8  # of the Gauss-Legendre rule, at which the derivative is computed
MOST_PRODUCTS = 3e11  # multiply-adds of linear layers, of which NumPy does some 1e11 a second
_PLACES = {("cls",): 0, ("lasttoken",): -1}  # by pooling modes: the token that is read
_ROWS_AT_ONCE = 4096  # of tokens in all directions that are computed at once


class Plan(NamedTuple):
    """Which token the model reads, and before which layer the states are taken, 0 for the first."""

    place: int
    layer: int


class Attribution(NamedTuple):
    """The approximation of contributions, (n, m), and the layer before which the states were taken."""

    values: Doubles
    layer: int


class _Rest(NamedTuple):
    """The layers from the one on before which states are taken: what turns states into the vector."""

    layers: Sequence[Layer]
    place: int
    dimension: int | None


def plan_of(model: ExplainedModel, batch: TokenBatch) -> Plan | None:
    """The earliest layer that does not take too long; None if none does, or the model reads more than one token."""
    if model.pooling_modes not in _PLACES:
        return None
    layers = model.bert.config.num_hidden_layers
    rows = 2 * NODES * int(np.square(batch.lengths.astype(np.int64)).sum())  # the value is computed beside it
    of_a_layer = rows * products_of_a_token(model) // layers
    within = min(layers, int(MOST_PRODUCTS // of_a_layer))
    return Plan(_PLACES[model.pooling_modes], layers - within) if within else None


def attribute(model: ExplainedModel, batch: TokenBatch, plan: Plan) -> Attribution | None:
    """The approximation for two texts; None if the model was not loaded from files, where the weights are."""
    weights = weights_of(model.bert)
    if weights is None:
        return None
    config = model.bert.config
    layers = [
        Layer(weights.layer(number), config.num_attention_heads, config.layer_norm_eps)
        for number in range(plan.layer, config.num_hidden_layers)
    ]
    rest = _Rest(layers, plan.place, model.truncate_dim)
    states = layer_states(model.bert, batch)[plan.layer]  # (N, D)
    reference = layer_states(model.bert, _reference(model, batch))[plan.layer]  # (N, D)
    texts = (batch.slice(0), batch.slice(1))
    first, second = (_parts(states[text], reference[text], rest) for text in texts)  # (n, D'), (m, D')
    return Attribution(first @ second.T, plan.layer)


def _reference(model: ExplainedModel, batch: TokenBatch) -> TokenBatch:
    """The same texts with [PAD] for every token but the first and the last."""
    pad = model.tokenizer.pad_token_id
    texts = [batch[number] for number in range(len(batch))]
    return TokenBatch.from_ids([[ids[0], *[pad] * (len(ids) - 2), ids[-1]] for ids in texts])


def _parts(states: FloatArray, reference: FloatArray, rest: _Rest) -> Doubles:
    """u_i for each token: (T, D), (T, D) -> (T, D')."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)  # from -1 to 1
    step = states - reference
    parts = [
        weight / 2 * vector_derivative(reference + np.float32((node + 1) / 2) * step, step, rest)
        for node, weight in zip(nodes, weights, strict=True)
    ]
    total: Doubles = np.sum(parts, axis=0, dtype=np.float64)
    return total


def vector_derivative(x: Floats, step: Floats, rest: _Rest) -> Floats:
    """How the vector moves for the step of each token by itself: (T, D), (T, D) -> (T, D')."""
    at_once = len(x) if len(rest.layers) == 1 else max(1, _ROWS_AT_ONCE // len(x))
    places = np.arange(len(x))
    starts = range(0, len(x), at_once)
    return np.concatenate([_derivative(x, step, places[start : start + at_once], rest) for start in starts])


def _derivative(x: Floats, step: Floats, places: Places, rest: _Rest) -> Floats:
    """The rows of `vector_derivative` for the tokens at some places."""
    every, read = np.arange(len(x)), np.array([rest.place % len(x)])  # the last layer is computed for one token
    first, *others = rest.layers
    x, dx = step_derivative(x, step[places], places, first, every if others else read)
    for layer in others:
        x, dx = layer_derivative(x, dx, layer, read if layer is others[-1] else every)
    return normalize_derivative(x[0, : rest.dimension], dx[:, 0, : rest.dimension])
