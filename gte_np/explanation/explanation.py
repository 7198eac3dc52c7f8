"""`Explanation`: what a cosine is made of, each part computed when it is first asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gte_np.encoder_interface import FloatArray
from gte_np.errors import InputError
from gte_np.explanation.attribution import Attribution, attribute, plan_of
from gte_np.explanation.contributions import Doubles, cosines_with, is_sum, pair_contributions, shares
from gte_np.explanation.deletion import deletion_effects
from gte_np.explanation.document import attention_entries, packed_array
from gte_np.explanation.layers import in_dtype, layer_cosines, layer_states, vectors_of
from gte_np.explanation.model import ExplainedModel
from gte_np.explanation.page import page
from gte_np.explanation.tokens import TextTokens, read_tokens
from gte_np.explanation.walk import Results, walk
from gte_np.files import whole_file
from gte_np.modules import Normalize
from gte_np.token_batch import TokenBatch
from gte_np.version import __version__

_METHODS = {
    "exact": "What each pair of tokens contributes to the cosine; the cells add up to it.",
    "approximate": "An approximation of what each pair of tokens contributes, by integrated derivatives of layers "
    "{first} to {last}, from the hidden states before them.",
}


class TokenPair(NamedTuple):
    """A pair of tokens, and what it contributes to the cosine."""

    first: str
    second: str
    contribution: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why two texts have the cosine that they have, or what became of one text: see `EmbeddingModel.explain`.

    `texts` are the tokens of each text, and `batch` is what the encoder reads. In a notebook, it shows its page.
    """

    model: ExplainedModel
    texts: tuple[TextTokens, ...]
    batch: TokenBatch

    @property
    def tokens(self) -> tuple[tuple[str, ...], ...]:
        """The names of the tokens of each text, n and m of them."""
        return tuple(text.tokens for text in self.texts)

    @cached_property
    def vectors(self) -> FloatArray:
        """The vectors of the texts, as `encode` gives them: (B, D')."""
        return vectors_of(self.model, self._states[-1], self.batch)

    @cached_property
    def cosine(self) -> float | None:
        """The cosine of the two vectors; None for one text."""
        return float(cosines_with(self.vectors[0], self.vectors[1:])[0]) if self._is_pair else None

    @property
    def is_exact(self) -> bool:
        """Whether contributions add up to the cosine by themselves: pooling is a sum, and no module follows it."""
        return is_sum(self.model.pooling_modes) and self._only_normalizes

    @cached_property
    def contributions(self) -> Doubles | None:
        """What each pair of tokens contributes to the cosine: (n, m) float64.

        Exact for mean pooling. For [CLS] it is an approximation, see `gte_np.explanation.attribution`. None for one
        text, for other poolings and modules, and for a model that was not loaded from files; `notes` says which.
        """
        if not self._is_pair:
            return None
        if self.is_exact:
            last = (self._states[-1][self.batch.slice(number)] for number in range(2))
            first, second = (shares(x, self.model.pooling_modes, self.model.truncate_dim) for x in last)
            return pair_contributions(first, second)
        return None if self.attribution is None else self.attribution.values

    @property
    def unexplained(self) -> float | None:
        """The part of the cosine that the contributions do not add up to."""
        if self.cosine is None or self.contributions is None:
            return None
        return self.cosine - float(self.contributions.sum())

    @cached_property
    def attribution(self) -> Attribution | None:
        """The approximation of contributions for models that read one token, or None where it is not made."""
        plan = plan_of(self.model, self.batch) if self._is_pair and self._only_normalizes else None
        return None if plan is None else attribute(self.model, self.texts, plan, self._states)

    @property
    def token_contributions(self) -> tuple[Doubles, ...] | None:
        """What each token contributes to the cosine, with the other text as a whole: (n,) and (m,) float64.

        Of exact contributions they are the sums of rows and columns. Approximations lack the part that a token has
        with what the other text shares with all texts, which is here. None where `contributions` is.
        """
        if self.contributions is None:
            return None
        cells = self.contributions
        return (cells.sum(axis=1), cells.sum(axis=0)) if self.attribution is None else self.attribution.totals

    @cached_property
    def deletions(self) -> tuple[Doubles, ...] | None:
        """How the cosine changes without each token, NaN for [CLS] and its like: (n,) and (m,) float64.

        The tokens behind it move up. None for one text, and where it would take too long.
        """
        return deletion_effects(self.model, self.texts, self.vectors) if self._is_pair else None

    @cached_property
    def layers(self) -> dict[str, Doubles | None]:
        """The cosine after the embeddings and after each layer, pooled as the model pools: (L + 1,) float64.

        By dtype, "float32" and "int8". None is for one text, and for what the files of the model do not have.
        """
        return {dtype: self._layers_in(dtype) if self._is_pair else None for dtype in ("float32", "int8")}

    @cached_property
    def attentions(self) -> tuple[FloatArray, ...]:
        """The attention of each head and layer, by text: (L, H, T, T). It is computed by `gte_np.reference`."""
        return tuple(np.stack(layers) for layers in zip(*self._attention_of_layers(), strict=True))

    @property
    def notes(self) -> list[str]:
        """What was left out, and why; a sentence each."""
        cut = [
            f"Text {number} was cut: the last {text.cut_tokens} of its tokens are not read."
            for number, text in enumerate(self.texts, 1)
            if text.cut_tokens
        ]
        slow = self._is_pair and self.deletions is None
        return [
            *cut,
            *self._missing_contributions(),
            *["The deletion of each token was left out, since it would take long for texts of this length."] * slow,
        ]

    def _missing_contributions(self) -> list[str]:
        if not self._is_pair or self.contributions is not None:
            return []
        return [f"Contributions of pairs are not shown: {self._why_not()}."]

    def _why_not(self) -> str:
        if not self._only_normalizes:
            return "a dense layer behind the pooling mixes what the tokens give"
        if plan_of(self.model, self.batch) is None:
            pooling = "+".join(self.model.pooling_modes)
            return f"behind {pooling} pooling there is no sum over tokens, nor one token"
        return "they need the files of the weights, and the model was not loaded from files"

    def strongest_pairs(self, count: int = 10) -> list[TokenPair]:
        """The pairs of tokens that contribute most, in size, the largest first."""
        if self.contributions is None:
            return []
        order = np.argsort(-np.abs(self.contributions), axis=None, kind="stable")[:count]
        rows, columns = np.unravel_index(order, self.contributions.shape)
        return [
            TokenPair(self.tokens[0][i], self.tokens[1][j], float(self.contributions[i, j]))
            for i, j in zip(rows, columns, strict=True)
        ]

    def document(self) -> dict[str, Any]:
        """All of it as JSON has it, for the page."""
        layers = {dtype: None if cosines is None else cosines.tolist() for dtype, cosines in self.layers.items()}
        deletions = self.deletions and [[None if x != x else x for x in row.tolist()] for row in self.deletions]
        return {
            "version": __version__,
            "model": Path(self.model.name_or_path).name,  # the page may go to others
            "pooling": "+".join(self.model.pooling_modes),
            "dtype": self.model.bert.dtype,
            "cosine": self.cosine,
            "texts": [text.entry() for text in self.texts],
            "contributions": self._contributions_entry(),
            "deletions": deletions,
            "layers": layers if self._is_pair and None not in layers.values() else None,
            "attentions": attention_entries(self._attention_of_layers(), self.model.bert.config.num_hidden_layers),
            "walk": walk(self.model, self.batch.take([0]), self.texts[0], self._first_results),
            "notes": self.notes,
        }

    def _contributions_entry(self) -> dict[str, Any] | None:
        if self.contributions is None:
            return None
        first, last = self.attribution.layer + 1 if self.attribution else 1, self.model.bert.config.num_hidden_layers
        method = "exact" if self.is_exact else "approximate"
        return {
            "method": method,
            "name": _METHODS[method].format(first=first, last=last),
            "values": packed_array(self.contributions, "f4"),
            "totals": [total.tolist() for total in self.token_contributions or ()],
            "unexplained": self.unexplained,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, one file of HTML, whole or not at all. Raises InputError for a folder, and OSError."""
        with whole_file(Path(path)) as part:
            part.write_text(page(self.document()), encoding="utf-8")

    def _repr_html_(self) -> str:
        """The page in a frame, for notebooks."""
        from html import escape

        frame = 'style="width: 100%; height: 800px; border: 0" title="explanation"'
        return f'<iframe {frame} srcdoc="{escape(page(self.document()))}"></iframe>'

    @cached_property
    def _states(self) -> list[FloatArray]:
        """The hidden states after the embeddings and each layer: L + 1 arrays (N, D)."""
        return layer_states(self.model.bert, self.batch)

    @property
    def _first_results(self) -> Results:
        return Results([hidden[self.batch.slice(0)] for hidden in self._states], self.vectors[:1])

    def _attention_of_layers(self) -> Iterator[list[FloatArray]]:
        """For each layer, the attention of each text: (H, T, T)."""
        return (self.model.bert.attention(n, hidden, self.batch) for n, hidden in enumerate(self._states[:-1]))

    def _layers_in(self, dtype: str) -> Doubles | None:
        bert = in_dtype(self.model.bert, dtype)
        if bert is None:
            return None
        states = self._states if bert is self.model.bert else layer_states(bert, self.batch)
        return layer_cosines(self.model, self.batch, states)

    @property
    def _is_pair(self) -> bool:
        return len(self.texts) == 2

    @property
    def _only_normalizes(self) -> bool:
        return all(isinstance(module, Normalize) for module in self.model.modules)


def explain(model: ExplainedModel, texts: list[str]) -> Explanation:
    """The explanation of one text or two. Errors are those of `EmbeddingModel.explain`."""
    if not all(texts):
        raise InputError("expected texts with characters in them, got an empty one, which has no tokens to explain.")
    prompted = [model.resolve_prompt(None, None) + text for text in texts]
    batch = model.tokenize(prompted)
    pairs = enumerate(prompted)
    return Explanation(
        model, tuple(read_tokens(model.tokenizer, text, batch[number]) for number, text in pairs), batch
    )
