"""Texts as token ids, packed end to end without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gte_np.arguments import as_integer, check_integers
from gte_np.errors import InputError

TokenArray = NDArray[np.int32]

LARGEST_INT32 = 2**31 - 1


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """The token ids of B texts laid end to end, and where each text starts.

        texts       [CLS] the sea [SEP]   [CLS] hello [SEP]
        input_ids    101  1996 2712 102    101  7592  102      (N,) = (7,)
        columns        0    1    2   3       0    1     2      (N,)
        offsets        0                     4              7  (B + 1,) = (3,)

    `input_ids`, `columns` and `token_type_ids` are (N,) int32; `offsets` is (B + 1,) int32: text b has the tokens
    offsets[b] up to offsets[b + 1], at least one. A token's column is its place in its text, or in its row of padded
    ids. `token_counts` is (B,) int64: how many tokens each text had before truncation, so that text b was cut where
    token_counts[b] > lengths[b].

    The arrays are copies that nothing can change, so what was checked here stays true. Raises TypeError for anything
    but integers, and InputError for arrays whose lengths or values contradict each other.
    """

    input_ids: TokenArray
    columns: TokenArray
    token_type_ids: TokenArray
    offsets: TokenArray
    token_counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("input_ids", "columns", "token_type_ids", "offsets"):
            self._keep(name, np.int32, LARGEST_INT32)
        self._keep("token_counts", np.int64, 2**63 - 1)
        tokens, texts, lengths = len(self.input_ids), len(self.offsets) - 1, self.lengths
        if len(self.columns) != tokens or len(self.token_type_ids) != tokens:
            raise InputError(
                f"expected a column and a token type for each of {tokens} input_ids, got {len(self.columns)} and "
                f"{len(self.token_type_ids)}."
            )
        if texts < 0 or self.offsets[0] != 0 or self.offsets[-1] != tokens or (lengths < 1).any():
            raise InputError(
                f"expected offsets that rise from 0 to the number of tokens, {tokens}, with a token in each text, "
                f"got {_brief(self.offsets)}: a text has none, or only padding, or these are of another batch."
            )
        if self.token_counts.shape != (texts,) or (self.token_counts < lengths).any():
            raise InputError(
                f"expected token_counts of {texts} texts, none below the number of its tokens here, "
                f"got {_brief(self.token_counts)}."
            )

    def _keep(self, name: str, dtype: type[np.signedinteger[Any]], most: int) -> None:
        """Replace a field by a copy of the (n,) integers in it that nobody can write to."""
        array = getattr(self, name)
        if type(array) is not np.ndarray or array.dtype != dtype:
            array = check_integers(name, array, 0, most).astype(dtype)
        if array.ndim != 1:
            raise InputError(f"expected {name} of one dimension, got shape {array.shape}.")
        # An array on top of bytes cannot be made writable again, not even by its flags.
        kept = np.frombuffer(array.tobytes(), dtype)
        if np.minimum.reduce(kept, initial=0) < 0:
            check_integers(name, kept, 0, most)
        object.__setattr__(self, name, kept)

    def __reduce__(self) -> tuple[type[TokenBatch], tuple[Any, ...]]:
        """Pickle and copy through the constructor, so that what arrives is checked."""
        return TokenBatch, (self.input_ids, self.columns, self.token_type_ids, self.offsets, self.token_counts)

    @classmethod
    def from_ids(cls, ids: Sequence[ArrayLike], token_counts: ArrayLike | None = None) -> TokenBatch:
        """Pack one list of token ids a text; columns count from 0 in each text, token types are 0.

        >>> batch = TokenBatch.from_ids([[101, 7, 102], [101, 102]])
        >>> batch.input_ids.tolist(), batch.columns.tolist(), batch.offsets.tolist()
        ([101, 7, 102, 101, 102], [0, 1, 2, 0, 1], [0, 3, 5])
        """
        try:
            texts = enumerate(ids)
        except TypeError as error:
            raise TypeError(f"expected a list of token ids for each text, got {type(ids).__name__}.") from error
        arrays = [_check_ids(text, text_ids) for text, text_ids in texts]
        if any(array.ndim != 1 for array in arrays):
            raise InputError("expected one list of token ids for each text.")
        lengths = np.array([len(array) for array in arrays], np.int64)
        offsets = offsets_of(lengths)
        fields: dict[str, Any] = {
            "input_ids": np.concatenate([np.empty(0, np.int32), *arrays]),
            "columns": (np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)).astype(np.int32),
            "token_type_ids": np.zeros(offsets[-1], np.int32),
            "offsets": offsets.astype(np.int32),
            "token_counts": lengths if token_counts is None else token_counts,
        }
        return cls(**fields)

    @classmethod
    def from_padded(cls, input_ids: ArrayLike, attention_mask: ArrayLike, token_type_ids: ArrayLike) -> TokenBatch:
        """Pack the tokens of (B, T) arrays that the mask, True or 1 for a token, keeps, wherever the padding is."""
        ids, types = check_integers("input_ids", input_ids), check_integers("token_type_ids", token_type_ids)
        kept = check_integers("attention_mask", attention_mask, 0, 1) == 1
        shapes = ids.shape, kept.shape, types.shape
        if len(set(shapes)) != 1 or ids.ndim != 2:
            raise InputError(f"expected (B, T) ids, a mask and token types, got shapes {shapes}.")
        lengths = kept.sum(axis=1)  # (B, T) -> (B,)
        fields: dict[str, Any] = {
            "input_ids": ids[kept],  # (B, T) -> (N,)
            "columns": kept.nonzero()[1],  # (B, T) -> (N,)
            "token_type_ids": types[kept],  # (B, T) -> (N,)
            "offsets": offsets_of(lengths),
            "token_counts": lengths,
        }
        return cls(**fields)

    def __len__(self) -> int:
        """B, the number of texts."""
        return len(self.offsets) - 1

    def __getitem__(self, text: int) -> TokenArray:
        """The token ids of one text."""
        return self.input_ids[self.slice(text)]

    def take(self, texts: ArrayLike) -> TokenBatch:
        """A batch of the texts with these numbers, (B',), in their order.

        Raises IndexError for a text that is not there, TypeError for anything but integers, and InputError for
        numbers below 0.

        >>> TokenBatch.from_ids([[101, 7, 102], [101, 102], [101, 8, 9, 102]]).take([2, 1]).input_ids.tolist()
        [101, 8, 9, 102, 101, 102]
        """
        numbers = check_integers("the numbers of texts", texts, 0, LARGEST_INT32)
        lengths = self.lengths[numbers]
        offsets = offsets_of(lengths)
        tokens = np.arange(offsets[-1]) + np.repeat(self.offsets[numbers] - offsets[:-1], lengths)  # (B',) -> (N',)
        fields = self.input_ids[tokens], self.columns[tokens], self.token_type_ids[tokens]
        return TokenBatch(*fields, offsets.astype(np.int32), self.token_counts[numbers])

    def slice(self, text: int) -> slice:
        """Where the tokens of one text lie in the packed arrays. A negative number counts from the last text.

        Raises IndexError for a text that is not there, and TypeError for anything but an int.
        """
        text = range(len(self))[as_integer("the number of a text", text)]
        return slice(int(self.offsets[text]), int(self.offsets[text + 1]))

    @property
    def lengths(self) -> TokenArray:
        """(B,) int32: how many tokens of each text are here."""
        return lengths_of(self.offsets)

    @property
    def attention_mask(self) -> NDArray[np.int64]:
        """(B, T) int64: 1 for a token and 0 for padding, where each text is padded at its end to the longest one.

        >>> TokenBatch.from_ids([[101, 7, 102], [101, 102]]).attention_mask.tolist()
        [[1, 1, 1], [1, 1, 0]]
        """
        longest = self.lengths.max(initial=0)
        return (np.arange(longest) < self.lengths[:, None]).astype(np.int64)  # (T,) < (B, 1) -> (B, T)


def offsets_of(lengths: Sequence[int] | NDArray[np.integer]) -> NDArray[np.integer]:
    """(B,) lengths -> (B + 1,) offsets of texts laid end to end."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def lengths_of(offsets: NDArray[Any]) -> NDArray[Any]:
    """(B + 1,) offsets of texts laid end to end -> (B,) lengths, of the same type."""
    return offsets[1:] - offsets[:-1]


def _check_ids(text: int, ids: ArrayLike) -> TokenArray:
    """The token ids of a text. An array of the right type needs no check of its own: the batch will have one."""
    if type(ids) is np.ndarray and ids.dtype == np.int32:
        return ids
    return check_integers(f"token ids of text {text}", ids, 0, LARGEST_INT32).astype(np.int32)


def _brief(array: NDArray[Any]) -> str:
    return np.array2string(array, threshold=8, edgeitems=3, max_line_width=10**6)
