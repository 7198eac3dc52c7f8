"""The contract of an encoder: what goes in, what comes out; every backend keeps it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gte_np.architectures.config import BertConfig
from gte_np.arguments import check_integers
from gte_np.errors import CheckpointError, InputError
from gte_np.token_batch import TokenArray, TokenBatch

FloatArray = NDArray[np.float32]


class EncoderInput:
    """A batch that fits an encoder of some sizes, and the rows of the result that are wanted.

    It is the one door to compiled code, which reads tables and writes buffers where these arrays say: every number in
    them has been checked here, and none of them can change.

    `batch` is the TokenBatch, and `config` has the sizes that it was checked against. `position_ids` is (N,) int32,
    and `rows` is None for all tokens, or (R,) int32: the tokens, ascending, whose last hidden states are wanted.

    Raises TypeError for anything but a TokenBatch and integers, and InputError for ids, token types and positions
    outside of the model's tables, and for rows that are not there, or not in ascending order without repetition.
    """

    def __init__(self, batch: TokenBatch, config: BertConfig, rows: ArrayLike | None = None) -> None:
        if not isinstance(batch, TokenBatch):
            raise TypeError(f"expected a TokenBatch, got {type(batch).__name__}: make one with TokenBatch.from_ids.")
        self.batch = batch
        self.config = config
        self.position_ids = config.architecture.position_ids(batch)
        for name, array, most in (
            ("input_ids", batch.input_ids, config.vocab_size),
            ("token_type_ids", batch.token_type_ids, config.type_vocab_size),
        ):
            if array.size and array.max() >= most:
                raise InputError(
                    f"expected {name} from 0 to {most - 1}, got {array.min()} to {array.max()}: are they from the "
                    "tokenizer of this model?"
                )
        longest = int(self.position_ids.max(initial=-1)) + 1
        if longest > config.max_position_embeddings:
            raise InputError(
                f"expected at most {config.max_position_embeddings} tokens, got {longest}: tokenize with "
                "truncation=True."
            )
        self.rows = None if rows is None else _check_rows(rows, len(batch.input_ids))


def _check_rows(rows: ArrayLike, tokens: int) -> TokenArray:
    array = check_integers("rows", rows, 0, tokens - 1, booleans=False).astype(np.int32)
    if array.ndim != 1 or (array[1:] <= array[:-1]).any():
        raise InputError("expected rows to be numbers of tokens in ascending order, each of them once, got others.")
    return np.frombuffer(array.tobytes(), np.int32)


def check_finite(values: FloatArray) -> FloatArray:
    """Return the values. Raise CheckpointError unless all of them are finite."""
    if not np.isfinite(values).all():
        raise CheckpointError("expected weights that give finite numbers, got an overflow: they are damaged.")
    return values


class EncoderOutput(NamedTuple):
    """What an encoder computed for a batch.

    `last_hidden_state` is (N, D), or (R, D) if only some rows were wanted. With `keep_layers`, `hidden_states`
    holds L + 1 arrays (N, D), the embeddings first.
    """

    last_hidden_state: FloatArray
    hidden_states: list[FloatArray] | None = None


class Encoder(Protocol):
    """A BERT encoder: packed token ids in, hidden states of packed tokens out. Only attention knows about texts."""

    def __call__(self, inputs: EncoderInput, *, keep_layers: bool = False) -> EncoderOutput:
        """Run the encoder. With `keep_layers`, all rows are computed, whatever rows are wanted."""

    def attention(self, layer: int, hidden: FloatArray, batch: TokenBatch) -> list[FloatArray]:
        """The attention probabilities of a layer, from the hidden states before it, (N, D): (H, T, T) for each text.

        They are large, (H, T, T) beside (T, D), so they are computed again where somebody looks at them.
        """
