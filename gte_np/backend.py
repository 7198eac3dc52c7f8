"""The contract of the two backends, and the choice between them.

`gte_np.reference` (backend="numpy") is the encoder to read, in pure NumPy. A backend takes a TokenBatch, whose ids
are known to be in range, and gives hidden states of packed tokens: (N, D) float32. Only attention knows about texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gte_np.arguments import check_choice
from gte_np.checkpoint.config import BertConfig
from gte_np.checkpoint.weights import BertWeights
from gte_np.errors import MissingDependencyError
from gte_np.token_batch import TokenBatch

FloatArray = NDArray[np.float32]
BACKENDS = ("auto", "numpy", "numba")


@dataclass(frozen=True)
class EncoderOutput:
    """What an encoder computed for a batch.

    `last_hidden_state` is (N, D). With `keep_layers`, `hidden_states` holds L + 1 arrays (N, D), the embeddings
    first, and `attentions` holds, for each of L layers, one array (H, T, T) for each text.
    """

    last_hidden_state: FloatArray
    hidden_states: list[FloatArray] | None = None
    attentions: list[list[FloatArray]] | None = None


class Encoder(Protocol):
    """A BERT encoder: token ids in, hidden states out."""

    config: BertConfig

    def __call__(self, batch: TokenBatch, *, keep_layers: bool = False) -> EncoderOutput:
        """Run the encoder on packed texts."""


def make_encoder(backend: str, config: BertConfig, weights: BertWeights) -> Encoder:
    """Return the encoder of the backend "auto", "numpy" or "numba".

    Raises InputError for another name, and MissingDependencyError for a backend that is not there.
    """
    if check_choice("backend", backend, BACKENDS) == "numba":
        raise MissingDependencyError("backend 'numba' is not part of this version; use 'numpy' or 'auto'.")
    from gte_np.reference import ReferenceEncoder

    return ReferenceEncoder(config, weights)
