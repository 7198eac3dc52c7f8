"""TokenBatch: packing."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from gte_np import InputError, TokenBatch


def test_no_texts() -> None:
    batch = TokenBatch.from_ids([])
    assert len(batch) == 0
    assert batch.offsets.tolist() == [0]
    assert batch.input_ids.shape == (0,)


def test_texts_end_to_end() -> None:
    batch = TokenBatch.from_ids([[5, 6, 7], [8]], token_counts=[9, 1])
    assert len(batch) == 2
    assert [batch[text].tolist() for text in range(2)] == [[5, 6, 7], [8]]
    assert batch[-1].tolist() == [8]
    with pytest.raises(IndexError):
        batch[2]
    assert batch.lengths.tolist() == [3, 1]
    assert batch.token_counts.tolist() == [9, 1]
    assert batch.token_type_ids.tolist() == [0, 0, 0, 0]
    assert {array.dtype for array in (batch.input_ids, batch.columns, batch.offsets)} == {np.dtype(np.int32)}


def test_columns_count_wherever_the_padding_is() -> None:
    ids = np.array([[0, 0, 5, 6], [7, 0, 8, 0]])
    batch = TokenBatch.from_padded(ids, ids > 0, ids % 2)
    assert batch.input_ids.tolist() == [5, 6, 7, 8]
    assert batch.columns.tolist() == [2, 3, 0, 2]
    assert batch.token_type_ids.tolist() == [1, 0, 1, 0]
    assert batch.offsets.tolist() == [0, 2, 4]


PARTS: dict[str, Any] = {
    "input_ids": [5, 6, 7],
    "columns": [0, 1, 0],
    "token_type_ids": [0, 0, 1],
    "offsets": [0, 2, 3],
    "token_counts": [2, 1],
}


@pytest.mark.parametrize(
    ("part", "value", "error", "message"),
    [
        ("input_ids", [5, 6, -1], InputError, "input_ids from 0 to 2147483647, got -1 to 6"),
        ("input_ids", [5, 6, 2**32 + 1], InputError, "got 5 to 4294967297"),
        ("input_ids", [5, 6], InputError, "a column and a token type for each of 2"),
        ("input_ids", [[5, 6, 7]], InputError, r"one dimension, got shape \(1, 3\)"),
        ("input_ids", [5.0, 6.0, 7.0], TypeError, "integers, got float64"),
        ("input_ids", [[5], [6, 7]], InputError, "several lengths"),
        ("columns", [0, 1, -2], InputError, "columns from 0"),
        ("columns", [0, 1, 2**31], InputError, "columns from 0 to 2147483647"),
        ("columns", [0, 1], InputError, "got 2 and 3"),
        ("token_type_ids", [0], InputError, "got 3 and 1"),
        ("token_type_ids", [0, 0, -1], InputError, "token_type_ids from 0"),
        ("offsets", [0, 2, 2, 3], InputError, "a text has none"),
        ("offsets", [0, 3, 2], InputError, "offsets that rise from 0"),
        ("offsets", [0, 2, 4], InputError, "to the number of tokens, 3"),
        ("offsets", [0, 2], InputError, "to the number of tokens, 3"),
        ("offsets", [1, 2, 3], InputError, "offsets that rise from 0"),
        ("offsets", [], InputError, "offsets that rise from 0"),
        ("offsets", [0, 2**32, 3], InputError, "offsets from 0 to 2147483647"),
        ("token_counts", [2], InputError, "token_counts of 2 texts"),
        ("token_counts", [1, 1], InputError, "none below the number of its tokens"),
    ],
)
def test_arrays_that_contradict_each_other(part: str, value: Any, error: type[Exception], message: str) -> None:
    TokenBatch(**PARTS)
    with pytest.raises(error, match=message):
        TokenBatch(**(PARTS | {part: value}))


def test_what_was_checked_cannot_be_changed() -> None:
    ids = np.array([5, 6, 7], np.int32)
    batch = TokenBatch(**(PARTS | {"input_ids": ids}))
    ids[0] = -1
    assert batch.input_ids.tolist() == [5, 6, 7]
    with pytest.raises(ValueError, match="read-only"):
        batch.input_ids[0] = -1
    with pytest.raises(ValueError, match="WRITEABLE"):
        batch.offsets.flags.writeable = True


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda batch: pickle.loads(pickle.dumps(batch))])
def test_copies_are_checked_too(copied: Any) -> None:
    batch = copied(TokenBatch(**PARTS))
    assert {name: getattr(batch, name).tolist() for name in PARTS} == PARTS
    assert not batch.input_ids.flags.writeable


def test_strides_and_order_do_not_matter() -> None:
    ids = np.asfortranarray(np.array([[5, 0, 6, 0], [7, 0, 8, 0]]))[:, ::2]
    batch = TokenBatch.from_padded(ids, np.ones((2, 2), bool), np.zeros((2, 2), np.uint8))
    assert batch.input_ids.tolist() == [5, 6, 7, 8]


def test_taking_texts_keeps_all_that_is_known_of_them() -> None:
    mask = [[0, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 0]]
    padded = TokenBatch.from_padded([[0, 5, 6, 0], [7, 8, 9, 0], [4, 0, 0, 0]], mask, [[0, 0, 1, 0]] * 3)
    taken = padded.take([2, 0, 2])
    assert taken.input_ids.tolist() == [4, 5, 6, 4]
    assert taken.columns.tolist() == [0, 1, 2, 0]
    assert taken.token_type_ids.tolist() == [0, 0, 1, 0]
    assert taken.offsets.tolist() == [0, 1, 3, 4]
    cut = TokenBatch.from_ids([[1, 2], [3]], [9, 1]).take(np.array([1, 0]))
    assert cut.token_counts.tolist() == [1, 9]
    assert len(padded.take([])) == 0


def test_taking_a_text_that_is_not_there() -> None:
    batch = TokenBatch.from_ids([[1, 2], [3]])
    with pytest.raises(IndexError):
        batch.take([2])
    with pytest.raises(InputError, match="expected the numbers of texts from 0"):
        batch.take([-1])
