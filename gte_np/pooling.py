"""The hidden states of packed texts -> one vector for each text: sentence-transformers' Pooling.

    tokens     [CLS]  hello  world  [SEP]  |  [CLS]  hi  [SEP]
    hidden     h0     h1     h2     h3     |  h4     h5  h6        (N, D)
    offsets    0                              4               7    (B + 1,)

    cls        h0                             h4                   (B, D)
    mean       (h0 + h1 + h2 + h3) / 4        (h4 + h5 + h6) / 3   (B, D)

Why [CLS]: it is no word, so its vector has no meaning of its own to keep. Attention lets it gather from all tokens,
and a model that is pooled by "cls" was trained to gather the meaning of the text there. Others were trained so that
the mean of their tokens has that meaning: a model gives good vectors only in the mode that it was trained with.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gte_np.encoder_interface import FloatArray, check_finite
from gte_np.token_batch import lengths_of

Offsets = NDArray[np.integer]


def pool(hidden: FloatArray, offsets: Offsets, modes: Sequence[str]) -> FloatArray:
    """Pool each text in each mode (keys of `POOLING_MODES`), side by side: (N, D) -> (B, D * number of modes).

    `offsets` is (B + 1,), from 0 to N; no text may be empty. Sums are in float64; the result is float32. Raises
    CheckpointError for hidden states that are too large for that.

    >>> hidden = np.array([[1, 2], [3, 6], [5, 5]], np.float32)
    >>> pool(hidden, np.array([0, 2, 3]), ["mean"])
    array([[2., 4.],
           [5., 5.]], dtype=float32)
    """
    vectors = [POOLING_MODES[mode](hidden, offsets) for mode in modes]  # (N, D) -> (B, D) each
    with np.errstate(over="ignore"):  # it is seen below
        pooled = np.concatenate(vectors, axis=1).astype(np.float32, copy=False)  # (B, D * number of modes)
    return check_finite(pooled)


def _cls(hidden: FloatArray, offsets: Offsets) -> FloatArray:
    return hidden[offsets[:-1]]  # (N, D) -> (B, D)


def _last_token(hidden: FloatArray, offsets: Offsets) -> FloatArray:
    return hidden[offsets[1:] - 1]  # (N, D) -> (B, D)


def _max(hidden: FloatArray, offsets: Offsets) -> NDArray[np.float64]:
    return _reduce(np.maximum, hidden, offsets)


def _sum(hidden: NDArray[np.floating], offsets: Offsets) -> NDArray[np.float64]:
    return _reduce(np.add, hidden, offsets)


def _reduce(function: np.ufunc, hidden: NDArray[np.floating], offsets: Offsets) -> NDArray[np.float64]:
    """The rows of each text, reduced to one in float64, text by text: `reduceat` goes down column after column."""
    reduced = np.empty((len(offsets) - 1, hidden.shape[1]))
    for row, (first, last) in zip(reduced, itertools.pairwise(offsets.tolist()), strict=True):
        function.reduce(hidden[first:last], axis=0, dtype=np.float64, out=row)  # (T, D) -> (D,)
    return reduced  # (B, D)


def _mean(hidden: FloatArray, offsets: Offsets) -> NDArray[np.float64]:
    return _sum(hidden, offsets) / lengths_of(offsets)[:, None]  # (B, D) / (B, 1) -> (B, D)


def _mean_sqrt_len_tokens(hidden: FloatArray, offsets: Offsets) -> NDArray[np.float64]:
    return _sum(hidden, offsets) / np.sqrt(lengths_of(offsets))[:, None]  # (B, D) / (B, 1) -> (B, D)


def _weighted_mean(hidden: FloatArray, offsets: Offsets) -> NDArray[np.float64]:
    lengths = lengths_of(offsets)  # (B + 1,) -> (B,)
    places = np.arange(len(hidden)) - np.repeat(offsets[:-1], lengths) + 1  # (N,): 1, 2, 3, ... in each text
    sum_of_places = lengths * (lengths + 1) / 2  # (B,)
    return _sum(hidden * places[:, None], offsets) / sum_of_places[:, None]  # (B, D) / (B, 1) -> (B, D)


# The names are sentence-transformers'.
POOLING_MODES: dict[str, Callable[[FloatArray, Offsets], NDArray[np.floating]]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len_tokens,
    "weightedmean": _weighted_mean,
    "lasttoken": _last_token,
}


def rows_read(offsets: Offsets, modes: Sequence[str]) -> NDArray[np.integer] | None:
    """The rows of the hidden states that pooling reads, (B,), if it reads one of each text; None if it reads all.

    The encoder need not finish the others.

    >>> rows_read(np.array([0, 2, 3]), ["cls"])
    array([0, 2])
    """
    if set(modes) == {"cls"}:
        return offsets[:-1]
    if set(modes) == {"lasttoken"}:
        return offsets[1:] - 1
    return None
