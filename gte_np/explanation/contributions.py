"""What each pair of tokens contributes to a cosine, where pooling is a sum over tokens.

A text's vector by mean pooling is the sum of one share for each token, h_i / n. So the cosine of two texts is a sum
over all pairs of tokens,

    cos = sum over i, j of  h_i . g_j / (n m |h| |g|)        h, g: the vectors, of n and m tokens

and its cells add up to it, but for rounding. Nothing is approximated. What a cell does not tell: h_i depends on all
tokens of its text, since attention has mixed them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gte_np.encoder_interface import FloatArray

Doubles = NDArray[np.float64]

# How much of the vector a token's state is, by the pooling mode: n -> (n,). Other modes are no sums of that kind.
_WEIGHTS: dict[str, Callable[[int], Doubles]] = {
    "mean": lambda n: np.full(n, 1 / n),
    "mean_sqrt_len_tokens": lambda n: np.full(n, n**-0.5),
    "weightedmean": lambda n: 2 * np.arange(1.0, n + 1) / (n * (n + 1)),
}


def is_sum(modes: Sequence[str]) -> bool:
    """Whether pooling in these modes is a sum over tokens, to which each gives its share."""
    return all(mode in _WEIGHTS for mode in modes)


def shares(hidden: FloatArray, modes: Sequence[str], dimension: int | None) -> Doubles:
    """The part of each token in the vector of its text: (T, D) -> (T, D'), which add up to the vector (D',).

    `dimension` None is for all of the vector, or it is cut to so many.
    """
    weights = [_WEIGHTS[mode](len(hidden))[:, None] for mode in modes]  # (T, 1) each
    return np.concatenate([weight * hidden for weight in weights], axis=1)[:, :dimension]  # (T, D')


def pair_contributions(first: Doubles, second: Doubles) -> Doubles:
    """Contributions to the cosine of all pairs of shares: (n, D'), (m, D') -> (n, m) float64."""
    lengths = np.linalg.norm(first.sum(axis=0)) * np.linalg.norm(second.sum(axis=0))
    return first @ second.T / max(lengths, 1e-12)  # (n, D') @ (D', m) -> (n, m)


def cosines_with(vector: FloatArray, others: FloatArray) -> Doubles:
    """The cosines of a vector (D',) with others (B, D'), in float64: (B,)."""
    one, many = vector.astype(np.float64), others.astype(np.float64)
    lengths = np.linalg.norm(one) * np.linalg.norm(many, axis=1)  # (B,)
    return many @ one / np.maximum(lengths, 1e-12)  # (B, D') @ (D',) -> (B,)
