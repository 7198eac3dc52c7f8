"""Texts as token ids, packed end to end without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TokenArray = NDArray[np.int32]
TokenRows = NDArray[np.integer]  # numbers of tokens among those of all texts, ascending


@dataclass(frozen=True)
class TokenBatch:
    """The token ids of B texts laid end to end, and where each text starts.

    `input_ids`, `position_ids` and `token_type_ids` are (N,) int32; `offsets` is (B + 1,) int32: text b has the
    tokens offsets[b] up to offsets[b + 1]. `token_counts` is (B,) int64: how many tokens each text had before
    truncation, so that text b was cut where token_counts[b] > lengths[b].
    """

    input_ids: TokenArray
    position_ids: TokenArray
    token_type_ids: TokenArray
    offsets: TokenArray
    token_counts: NDArray[np.int64]

    @classmethod
    def from_ids(
        cls, ids: Sequence[Sequence[int] | TokenArray], token_counts: Sequence[int] | None = None
    ) -> TokenBatch:
        """Pack one list of token ids a text; positions count from 0 in each text, token types are 0.

        >>> batch = TokenBatch.from_ids([[101, 7, 102], [101, 102]])
        >>> batch.input_ids.tolist(), batch.position_ids.tolist(), batch.offsets.tolist()
        ([101, 7, 102, 101, 102], [0, 1, 2, 0, 1], [0, 3, 5])
        """
        lengths = [len(text_ids) for text_ids in ids]
        arrays = [np.asarray(text_ids, np.int32) for text_ids in ids]
        positions = [np.arange(length, dtype=np.int32) for length in lengths]
        input_ids = np.concatenate([np.empty(0, np.int32), *arrays])
        return cls(
            input_ids=input_ids,
            position_ids=np.concatenate([np.empty(0, np.int32), *positions]),
            token_type_ids=np.zeros_like(input_ids),
            offsets=offsets_of(lengths),
            token_counts=np.asarray(lengths if token_counts is None else token_counts, np.int64),
        )

    @classmethod
    def from_padded(
        cls, input_ids: NDArray[np.integer], attention_mask: NDArray[np.bool_], token_type_ids: NDArray[np.integer]
    ) -> TokenBatch:
        """Pack the tokens of (B, T) arrays that the mask, True for a token, keeps.

        A position is the column, wherever the padding is: what transformers' BertModel computes.
        """
        lengths = attention_mask.sum(axis=1)  # (B, T) -> (B,)
        positions = np.broadcast_to(np.arange(input_ids.shape[1]), input_ids.shape)
        return cls(
            input_ids=input_ids[attention_mask].astype(np.int32),  # (B, T) -> (N,)
            position_ids=positions[attention_mask].astype(np.int32),  # (B, T) -> (N,)
            token_type_ids=token_type_ids[attention_mask].astype(np.int32),  # (B, T) -> (N,)
            offsets=offsets_of(lengths),
            token_counts=lengths.astype(np.int64),
        )

    def __len__(self) -> int:
        """B, the number of texts."""
        return len(self.offsets) - 1

    def __getitem__(self, text: int) -> TokenArray:
        """The token ids of one text."""
        return self.input_ids[self.slice(text)]

    def slice(self, text: int) -> slice:
        """Where the tokens of one text lie in the packed arrays."""
        return slice(int(self.offsets[text]), int(self.offsets[text + 1]))

    @property
    def lengths(self) -> TokenArray:
        """(B,) int32: how many tokens of each text are here."""
        return np.diff(self.offsets)


def offsets_of(lengths: Sequence[int] | NDArray[np.integer]) -> TokenArray:
    """(B,) lengths -> (B + 1,) offsets of texts laid end to end."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
