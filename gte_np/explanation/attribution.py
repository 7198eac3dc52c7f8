"""What each pair of tokens contributes to a cosine, approximately, where a model reads one token, such as [CLS].

The method is that of Moeller, Nikolaev and Pado, "Approximate Attributions for Off-the-Shelf Siamese Transformers"
(2024). Take the states x of a text before some layer, those r of a reference, and the line between them. The
vector f changes along it by the integral of its derivative, to which each token has a part of its own:

    f(x) - f(r) = sum over i of u_i        u_i = integral over s from 0 to 1 of  f'(r + s (x - r)) (x_i - r_i)

The reference tells the tokens of a text apart no more: in it all but [CLS] and its like have one state, the mean of
those of both texts, before that layer. With v_j for the other text, A_ij = u_i . v_j. The sum of all A_ij lacks the
products with the vectors of the references, so it is not the cosine: the rest is reported. Moeller et al. train
models whose reference vectors have no part in the cosine. In published models they have most of it, since two
references are nearly alike.

So the sum of a row of A is not what its token contributes. That is its product with the whole vector g of the other
text, the reference's part included,

    f(x) . g = f(r) . g + sum over i of u_i . g

Both were held against deletion by `python -m scripts.explain_evidence`, on all-MiniLM-L6-v2 with the pooling of
[CLS], for which it was not trained. Over 30 pairs of sentences, the median rank correlation of u_i . g with deletion
is 0.62 from the third of six layers on, and 0.48 for a reference of [PAD]s between [CLS] and [SEP], as Moeller et al.
have it; of the rows of A it is 0.27 and 0.01. An exact replacement of one token by [PAD] has 0.74. Hence the
reference, and the layer: one third of the layers is left out, or as many as it takes not to take too long.
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
from gte_np.explanation.model import ExplainedModel, weights_of
from gte_np.explanation.tokens import TextTokens
from gte_np.token_batch import TokenBatch

NODES = 8  # of the Gauss-Legendre rule, at which the derivative is computed
_NODES_OF_A_LAYER = 4  # through one layer the vector moves so evenly that it leaves 0.0003 out
MOST_PRODUCTS = 3e11  # multiply-adds of linear layers, of which NumPy does some 1e11 a second
_PLACES = {("cls",): 0, ("lasttoken",): -1}  # by pooling modes: the token that is read
_ROWS_AT_ONCE = 4096  # of tokens in all directions that are computed at once
_SCORES_AT_ONCE = 2**18  # of one row in all directions and a head


class Plan(NamedTuple):
    """Which token the model reads, and before which layer the states are taken, 0 for the first."""

    place: int
    layer: int


class Attribution(NamedTuple):
    """The approximation of contributions, (n, m), and the layer before which the states were taken, 0 for the first.

    `totals` are what the tokens of each text contribute with the other text's whole vector: (n,) and (m,).
    """

    values: Doubles
    totals: tuple[Doubles, Doubles]
    layer: int


class _Rest(NamedTuple):
    """The layers from the one on before which states are taken: what turns states into the vector."""

    layers: Sequence[Layer]
    place: int
    dimension: int | None


def plan_of(model: ExplainedModel, batch: TokenBatch) -> Plan | None:
    """From one third of the layers on, or later if that takes too long; None for a model that reads more tokens."""
    if model.pooling_modes not in _PLACES:
        return None
    layers = model.bert.config.num_hidden_layers
    lengths = batch.lengths.astype(np.int64)
    of_one = NODES * products_of_a_token(model) // layers  # of one token in one layer
    # For each direction the last layer is computed for one token, those before it for all.
    others = int((MOST_PRODUCTS / of_one - lengths.sum()) // np.square(lengths).sum())
    within = min(max(others, 0) + 1, layers - layers // 3)
    return Plan(_PLACES[model.pooling_modes], layers - within)


def attribute(
    model: ExplainedModel, texts: Sequence[TextTokens], plan: Plan, states: Sequence[FloatArray]
) -> Attribution | None:
    """The approximation for two texts; None if the model was not loaded from files, where the weights are.

    `states` are the hidden states after the embeddings and each layer, (N, D), of both texts, one behind the other.
    """
    weights = weights_of(model.bert)
    if weights is None:
        return None
    length = len(texts[0].ids)
    first, second = slice(0, length), slice(length, None)
    ordinary = np.array([*texts[0].ordinary, *(length + place for place in texts[1].ordinary)], np.intp)
    config = model.bert.config
    layers = [
        Layer(weights.layer(number), config.num_attention_heads, config.layer_norm_eps)
        for number in range(plan.layer, config.num_hidden_layers)
    ]
    rest = _Rest(layers, plan.place, model.truncate_dim)
    before = states[plan.layer]
    reference = _reference(before, ordinary)
    u, v = (_parts(before[text], reference[text], rest) for text in (first, second))  # (n, D'), (m, D')
    f, g = (_unit(states[-1][text][plan.place, : rest.dimension]) for text in (first, second))  # (D',) each
    return Attribution(u @ v.T, (u @ g, v @ f), plan.layer)


def _unit(vector: FloatArray) -> Doubles:
    exact = vector.astype(np.float64)
    return exact / np.linalg.norm(exact)


def _reference(states: FloatArray, ordinary: Places) -> FloatArray:
    """The states with the mean of all ordinary tokens for each of them, (N, D); the special ones keep theirs."""
    reference = states.copy()
    if len(ordinary):
        reference[ordinary] = states[ordinary].mean(axis=0)
    return reference


def _parts(states: FloatArray, reference: FloatArray, rest: _Rest) -> Doubles:
    """u_i for each token: (T, D), (T, D) -> (T, D')."""
    count = NODES if len(rest.layers) > 1 else _NODES_OF_A_LAYER
    nodes, weights = np.polynomial.legendre.leggauss(count)  # from -1 to 1
    step = states - reference
    parts = [
        weight / 2 * vector_derivative(reference + np.float32((node + 1) / 2) * step, step, rest)
        for node, weight in zip(nodes, weights, strict=True)
    ]
    total: Doubles = np.sum(parts, axis=0, dtype=np.float64)
    return total


def vector_derivative(x: Floats, step: Floats, rest: _Rest) -> Floats:
    """How the vector moves for the step of each token by itself: (T, D), (T, D) -> (T, D')."""
    at_once = max(1, (_SCORES_AT_ONCE if len(rest.layers) == 1 else _ROWS_AT_ONCE) // len(x))
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
