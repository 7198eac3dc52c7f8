"""One token of a text on its way from its id to the vector: the functions of the reference, with real numbers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.architectures.named_weights import NamedWeights
from gte_np.encoder_interface import FloatArray
from gte_np.explanation.model import ExplainedModel, weights_of
from gte_np.explanation.tokens import TextTokens
from gte_np.pooling import pool
from gte_np.reference.attention import self_attention
from gte_np.reference.embeddings import embed
from gte_np.reference.encoder import encoder_layer
from gte_np.reference.feed_forward import feed_forward
from gte_np.reference.layer_norm import layer_norm
from gte_np.token_batch import TokenBatch
from gte_np.tokenization.tokenizer import Tokenizer

_NUMBERS = 8  # of each array


class _Step(NamedTuple):
    """A step of the walk: its name, the function that computes it, and its result with the letters of its axes."""

    name: str
    function: Callable[..., Any]
    axes: str
    output: NDArray[Any]
    note: str


class Results(NamedTuple):
    """What the model has computed for one text: its states after the embeddings and each layer, and its embedding."""

    states: list[FloatArray]  # (T, D) each
    embedding: FloatArray  # (1, D')


def walk(model: ExplainedModel, batch: TokenBatch, text: TextTokens, results: Results) -> list[dict[str, Any]]:
    """The steps of one text, each with what it gives for one token; empty if there is no weights file."""
    weights = weights_of(model.bert)
    if weights is None:
        return []
    place = text.ordinary[0] if text.ordinary else 0
    steps = _steps(model, batch, weights, results)
    return [_entry(step, place, text) for step in steps]


def _steps(model: ExplainedModel, batch: TokenBatch, weights: NamedWeights, results: Results) -> list[_Step]:
    states = results.states
    config, first, last = model.bert.config, states[0], states[-1]
    layer = weights.layer(0)
    attended, _ = self_attention(first, batch, layer, config.num_attention_heads)
    normal = layer_norm(first + attended, layer, "attention.output.LayerNorm", config.layer_norm_eps)
    pooled = pool(last, batch.offsets, model.pooling_modes)
    count = config.num_hidden_layers
    return [
        _Step("Tokens", Tokenizer.tokenize, "T,", batch.input_ids, "The text becomes ids, a row of a table each."),
        _Step("Embeddings", embed, "T, D", first, "The vectors of word, type and position are added and normalised."),
        _Step("Self-attention", self_attention, "T, D", attended, "In layer 1, the token gathers from the others."),
        _Step("Layer norm", layer_norm, "T, D", normal, "What it gathered is added to it, and the sum normalised."),
        _Step("Feed-forward", feed_forward, "T, D", feed_forward(normal, layer), "The token is processed by itself."),
        _Step("Layer 1", encoder_layer, "T, D", states[1], "The whole layer: the sum is normalised again."),
        _Step(f"Layer {count}", encoder_layer, "T, D", last, "The last of the layers, which are all alike."),
        _Step("Pooling", pool, "B, D", pooled, "One vector for the text."),
        _Step("Embedding", type(model).encode_tokens, "B, D", results.embedding, "What encode gives."),
    ]


def _entry(step: _Step, place: int, text: TextTokens) -> dict[str, Any]:
    is_of_tokens = step.axes.startswith("T")
    row = np.atleast_1d(step.output[place if is_of_tokens else 0])
    function = step.function
    module = function.__module__
    return {
        "step": step.name,
        "function": f"{module}.{function.__qualname__}",
        "href": f"{module.replace('.', '/')}.py",
        "source": _source_of(function),
        "shapes": {"output": f"({step.axes}) = {step.output.shape}"},
        "token": text.tokens[place] if is_of_tokens else "the whole text",
        "numbers": {"output": [round(float(x), 6) for x in row[:_NUMBERS]]},
        "note": step.note,
    }


def _source_of(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except OSError:  # the package was shipped as bytecode
        return ""
