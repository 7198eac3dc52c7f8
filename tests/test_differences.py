"""DIFFERENCES.md, against what gte_np does now; `make differences` asks sentence-transformers, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import EmbeddingModel, InputError, util
from scripts import compare_calls
from scripts.compare_calls import Model, cell, comparison, describe, difference
from scripts.fetch_minilm import FOLDER


def test_the_page_has_what_gte_np_does(minilm_folder: Path) -> None:
    assert minilm_folder == FOLDER
    rows = compare_calls.read_page()
    found = compare_calls.outcomes(EmbeddingModel, util)
    assert list(rows) == list(found)
    for call, value in found.items():
        assert rows[call].ours == cell(describe(value)), call
        assert ("raise" in rows[call].comparison) == isinstance(value, Exception), call
        assert rows[call].comparison, f"{call} has other values here, and no remark says why"


ZEROS = np.zeros(2, np.float32)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (ZEROS, ZEROS + np.float32(0.5), 0.5),
        (ZEROS, np.zeros(3), np.inf),
        (Model(ZEROS), Model(ZEROS + 1), 1),
        ({"a": 1, "b": 2}, {"a": 4, "c": 0}, 3),
        ([(1.0, 2)], [[1.5, 2]], 0.5),
        ([1], [1, 2], np.inf),
        ("cpu", "cuda", np.inf),
        ("cpu", "cpu", 0),
        (None, None, 0),
    ],
)
def test_differences_are_seen(ours: Any, theirs: Any, expected: float) -> None:
    assert difference(ours, theirs) == expected


def test_comparisons() -> None:
    assert comparison(ZEROS, ZEROS, "") == "equal"
    assert comparison(ZEROS, ZEROS + 9e-6, "") == "within 1e-5"
    assert comparison(ZEROS, ZEROS + 1, "") == ""
    assert comparison(ZEROS, ZEROS + 1, "why") == "up to 1 apart; why"
    assert comparison(InputError("no"), ZEROS, "") == "raises"
    assert comparison(InputError("no"), ValueError(), "") == "both raise"
    assert comparison(ZEROS, ValueError(), "") == ""
