"""The contract of an encoder: every backend gives one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gte_np.token_batch import TokenBatch, TokenRows

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class EncoderOutput:
    """What an encoder computed for a batch.

    `last_hidden_state` is (N, D), or (rows, D) if only some rows were wanted. With `keep_layers`, `hidden_states`
    holds L + 1 arrays (N, D), the embeddings first, and `attentions` holds, for each of L layers, one array (H, T, T)
    for each text.
    """

    last_hidden_state: FloatArray
    hidden_states: list[FloatArray] | None = None
    attentions: list[list[FloatArray]] | None = None


class Encoder(Protocol):
    """A BERT encoder: packed token ids in, hidden states of packed tokens out.

    The ids are in range and no text is empty. Only attention knows about texts.
    """

    def __call__(
        self, batch: TokenBatch, *, rows: TokenRows | None = None, keep_layers: bool = False
    ) -> EncoderOutput:
        """Run the encoder. `rows` are the tokens, ascending, whose last hidden states are wanted: by default all.

        Of `rows` and `keep_layers` only one can be given.
        """
