"""The cosine of two texts after every layer, in the model's own arithmetic and in another one."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np

from gte_np.bert_model import BertModel
from gte_np.encoder_interface import FloatArray
from gte_np.errors import InputError
from gte_np.explanation.contributions import Doubles, cosines_with
from gte_np.explanation.model import ExplainedModel
from gte_np.head import Finish, Head
from gte_np.pooling import pool
from gte_np.token_batch import TokenBatch

_twins: WeakKeyDictionary[BertModel, dict[str, BertModel]] = WeakKeyDictionary()


def layer_cosines(model: ExplainedModel, batch: TokenBatch, states: Sequence[FloatArray]) -> Doubles:
    """The cosines of two texts by the hidden states of each layer: L + 1 arrays (N, D) -> (L + 1,)."""
    pooled = [vectors_of(model, hidden, batch) for hidden in states]  # (2, D') each
    return np.array([cosines_with(vectors[0], vectors[1:])[0] for vectors in pooled])


def layer_states(bert: BertModel, batch: TokenBatch) -> list[FloatArray]:
    """The hidden states after the embeddings and each layer: L + 1 arrays (N, D)."""
    return bert.encode_batch(batch, keep_layers=True).hidden_states or []


def vectors_of(model: ExplainedModel, hidden: FloatArray, batch: TokenBatch) -> FloatArray:
    """The vectors that the model would make of hidden states: (N, D) -> (B, D')."""
    head = Head(model.bert, model.pooling_modes, model.modules)
    return head.finish(pool(hidden, batch.offsets, model.pooling_modes), Finish(False, model.truncate_dim))


def in_dtype(bert: BertModel, dtype: str) -> BertModel | None:
    """The encoder in a dtype, loaded once for each model; None if its files do not have that one."""
    if dtype == bert.dtype:
        return bert
    twins = _twins.setdefault(bert, {})
    if dtype not in twins and bert._files is not None:
        try:
            twins[dtype] = BertModel.from_source(bert._files.source, dtype=dtype)
        except InputError:  # they were saved in another one
            return None
    return twins.get(dtype)
