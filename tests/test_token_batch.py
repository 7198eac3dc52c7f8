"""TokenBatch: packing."""

from __future__ import annotations

import numpy as np

from gte_np import TokenBatch


def test_no_texts() -> None:
    batch = TokenBatch.from_ids([])
    assert len(batch) == 0
    assert batch.offsets.tolist() == [0]
    assert batch.input_ids.shape == (0,)


def test_texts_end_to_end() -> None:
    batch = TokenBatch.from_ids([[5, 6, 7], [], [8]], token_counts=[9, 0, 1])
    assert len(batch) == 3
    assert [batch[text].tolist() for text in range(3)] == [[5, 6, 7], [], [8]]
    assert batch.lengths.tolist() == [3, 0, 1]
    assert batch.token_counts.tolist() == [9, 0, 1]
    assert batch.token_type_ids.tolist() == [0, 0, 0, 0]
    assert {array.dtype for array in (batch.input_ids, batch.position_ids, batch.offsets)} == {np.dtype(np.int32)}


def test_a_position_is_the_column_wherever_the_padding_is() -> None:
    ids = np.array([[0, 0, 5, 6], [7, 0, 8, 0]])
    batch = TokenBatch.from_padded(ids, ids > 0, ids % 2)
    assert batch.input_ids.tolist() == [5, 6, 7, 8]
    assert batch.position_ids.tolist() == [2, 3, 0, 2]
    assert batch.token_type_ids.tolist() == [1, 0, 1, 0]
    assert batch.offsets.tolist() == [0, 2, 4]
