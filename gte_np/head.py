"""From batches of tokens to vectors: the encoder, the pooling and what follows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.bert_model import BertModel
from gte_np.encoder_interface import FloatArray
from gte_np.modules import Module
from gte_np.pooling import pool, rows_read
from gte_np.similarity import normalize
from gte_np.token_batch import TokenBatch


class Finish(NamedTuple):
    """What is wanted of vectors after pooling: see `EmbeddingModel.encode`; `dimension` None is for all of it."""

    normalized: bool
    dimension: int | None


class Head(NamedTuple):
    """The parts of a model that make vectors."""

    bert: BertModel
    pooling_modes: tuple[str, ...]
    modules: tuple[Module, ...]

    def vectors(self, batch: TokenBatch, finish: Finish) -> FloatArray:
        """The vectors of a batch: (B, D')."""
        return self.finish(self.pool(batch), finish)

    def features(self, batch: TokenBatch, finish: Finish) -> Iterator[dict[str, NDArray[Any]]]:
        """All that there is of each text: see `EmbeddingModel.encode` with `output_value` None."""
        hidden = self.bert.encode_batch(batch).last_hidden_state  # (N, D)
        vectors = self.finish(pool(hidden, batch.offsets, self.pooling_modes), finish)  # (B, D')
        for text, vector in enumerate(vectors):
            yield {
                "input_ids": batch[text],
                "attention_mask": np.ones(len(batch[text]), np.int64),
                "token_embeddings": hidden[batch.slice(text)],
                "sentence_embedding": vector,
            }

    def pool(self, batch: TokenBatch) -> FloatArray:
        """One vector for each text of a batch: (B, D)."""
        rows = rows_read(batch.offsets, self.pooling_modes)
        hidden = self.bert.encode_batch(batch, rows=rows).last_hidden_state
        # If one token of each text is read, the others are not there.
        return pool(hidden, batch.offsets if rows is None else np.arange(len(batch) + 1), self.pooling_modes)

    def finish(self, vectors: FloatArray, finish: Finish) -> FloatArray:
        """From pooling to the result: (B, D) -> (B, D'), in sentence-transformers' order."""
        for module in self.modules:
            vectors = module(vectors)
        vectors = vectors[:, : finish.dimension]
        return normalize(vectors) if finish.normalized else vectors
