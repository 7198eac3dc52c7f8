"""How a cosine changes without a token: each text is computed again without each of its tokens."""

from __future__ import annotations

import numpy as np

from gte_np.encoder_interface import FloatArray
from gte_np.explanation.contributions import Doubles, cosines_with
from gte_np.explanation.model import ExplainedModel
from gte_np.explanation.tokens import TextTokens
from gte_np.token_batch import TokenBatch

MOST_PRODUCTS = 5e11  # multiply-adds of linear layers: a few seconds on two processors


def deletion_effects(
    model: ExplainedModel, texts: tuple[TextTokens, ...], vectors: FloatArray
) -> tuple[Doubles, ...] | None:
    """The change for each token of two texts, (n,) and (m,), NaN for [CLS] and its like; None if it takes long."""
    tokens = sum(len(text.ordinary) * (len(text.ids) - 1) for text in texts)
    if tokens * products_of_a_token(model) > MOST_PRODUCTS:
        return None
    cosine = cosines_with(vectors[0], vectors[1:])[0]
    others = vectors[1], vectors[0]
    return tuple(_effects(model, text, other, cosine) for text, other in zip(texts, others, strict=True))


def products_of_a_token(model: ExplainedModel) -> int:
    """How many multiply-adds the linear layers take for one token."""
    config = model.bert.config
    of_a_layer = config.hidden_size * (4 * config.hidden_size + 2 * config.intermediate_size)
    return config.num_hidden_layers * of_a_layer


def _effects(model: ExplainedModel, text: TextTokens, other: FloatArray, cosine: float) -> Doubles:
    effects = np.full(len(text.ids), np.nan)
    if text.ordinary:
        shorter = [[*text.ids[:place], *text.ids[place + 1 :]] for place in text.ordinary]
        vectors = model.encode_tokens(TokenBatch.from_ids(shorter))
        effects[text.ordinary] = cosines_with(other, vectors) - cosine
    return effects
