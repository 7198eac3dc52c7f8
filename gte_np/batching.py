"""Which texts go through the encoder together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# The most tokens in one batch, unless a single text has more: a limit on the number of texts alone would let memory
# grow with their lengths. Matrix products of 4096 rows run at full speed.
TOKEN_BUDGET = 4096


def make_batches(
    lengths: NDArray[np.integer], batch_size: int, token_budget: int = TOKEN_BUDGET
) -> Iterator[NDArray[np.int64]]:
    """Yield the indexes of the texts of each batch, longest texts first.

    `lengths` is (B,), in tokens. A batch has at most `batch_size` texts and at most `token_budget` tokens, but always
    at least one text, however long.

    >>> [batch.tolist() for batch in make_batches(np.array([3, 9, 4]), batch_size=2, token_budget=10)]
    [[1], [2, 0]]
    """
    order = np.argsort(-lengths, kind="stable")
    start, tokens = 0, 0
    for end, text in enumerate(order):
        if end > start and (end - start == batch_size or tokens + lengths[text] > token_budget):
            yield order[start:end]
            start, tokens = end, 0
        tokens += int(lengths[text])
    if len(order):
        yield order[start:]
