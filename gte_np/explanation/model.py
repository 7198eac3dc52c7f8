"""What an explanation reads of an `EmbeddingModel`."""

from __future__ import annotations

from typing import Any, Protocol

from gte_np.architectures.named_weights import NamedWeights
from gte_np.bert_model import BertModel
from gte_np.modules import Module
from gte_np.token_batch import TokenBatch
from gte_np.tokenization.tokenizer import Texts, Tokenizer


class ExplainedModel(Protocol):
    """The parts of a model, and how it goes from texts to vectors."""

    tokenizer: Tokenizer
    bert: BertModel
    pooling_modes: tuple[str, ...]
    modules: tuple[Module, ...]

    @property
    def name_or_path(self) -> str:
        """Its name on the hub, or its folder."""

    @property
    def truncate_dim(self) -> int | None:
        """How many dimensions of a vector are kept."""

    def tokenize(self, texts: Texts) -> TokenBatch:
        """Texts to tokens."""

    def encode_tokens(self, tokens: TokenBatch) -> Any:
        """Tokens to vectors."""

    def resolve_prompt(self, prompt_name: str | None, prompt: str | None) -> str:
        """What goes before each text."""


def weights_of(bert: BertModel) -> NamedWeights | None:
    """The weights by name; None for a model that was not loaded from files."""
    return None if bert._files is None else bert.weights
