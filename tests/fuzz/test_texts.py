"""Texts that Hypothesis makes: the tokenizer gives each the ids that it has alone, and `encode` the bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gte_np import EmbeddingModel
from gte_np.errors import InputError
from gte_np.tokenization.text_pieces import PIECE_CHARACTERS
from tests.fuzz.children import run
from tests.fuzz.kinds import TEXTS_OF_A_CALL, check_texts
from tests.fuzz.models import write_chinese, write_english

# Any characters, and pieces that the tokenizer treats in ways of their own.
PIECES = [
    "[CLS]",
    "[MASK]",
    "##",
    "happy ",
    "a" * 101,
    " " * 50,
    "中国",
    "é",
    "e\u0301",
    "İ",
    "\0",
    "\u00ad",
    "?!",
    "\u3000",
]
TEXT = st.text(max_size=40) | st.lists(st.sampled_from(PIECES) | st.characters(), max_size=8).map("".join)
LONG = st.tuples(TEXT, st.integers(1, 3 * PIECE_CHARACTERS // 8)).map(lambda part: part[0] * part[1])


@pytest.fixture(scope="module", params=["chinese", "english"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path
) -> EmbeddingModel:
    folder = tmp_path_factory.mktemp("model") / "model"
    place = write_chinese(folder) if request.param == "chinese" else write_english(folder, minilm_folder)
    return EmbeddingModel(place, backend="numba", threads=2)


@given(texts=st.lists(TEXT, max_size=6), batch_size=st.integers(1, 8))
@example(texts=["", "\0", " ", "\u00ad"], batch_size=3)
def test_vectors(model: EmbeddingModel, texts: list[str], batch_size: int) -> None:
    if texts:
        check_texts(model, texts, batch_size)
    else:
        assert model.encode(texts, batch_size=batch_size).shape == (0, 16)


@given(text=LONG, limit=st.integers(2, 3000))
@example(text=("a" * 101 + "\0") * 100, limit=100)
def test_long_texts(model: EmbeddingModel, text: str, limit: int) -> None:
    """Cut after all of a text was tokenized, or as soon as it is long enough: the same ids, those of the library."""
    whole, part = (model.tokenizer.tokenize([text], limit, count_all=count_all) for count_all in (True, False))
    expected = model.tokenizer._encoder.backend.encode(text).ids
    assert whole.token_counts[0] == len(expected)
    cut = expected if len(expected) <= limit else [*expected[: limit - 1], expected[-1]]
    assert whole[0].tolist() == part[0].tolist() == cut


@given(text=TEXT, place=st.integers(0, 40), surrogate=st.integers(0xD800, 0xDFFF))
def test_what_is_no_unicode(model: EmbeddingModel, text: str, place: int, surrogate: int) -> None:
    with pytest.raises(InputError, match="lone surrogate in text 1"):
        model.encode(["happy", text[:place] + chr(surrogate) + text[place:]])


def test_numbered_calls() -> None:
    result = run("texts", seed=0, calls=20)
    assert result.findings == []
    assert sum(result.counts.values()) == 20 * TEXTS_OF_A_CALL


def test_that_a_wrong_answer_is_found(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda texts, **_: encode(texts) * np.float32(1 if texts == "happy" else -1))
    with pytest.raises(AssertionError, match="another vector alone"):
        check_texts(model, ["happy", "person"], 32)
