"""Explanations: what their parts add up to, against the model itself and against finite differences."""

from __future__ import annotations

from math import erf as exact_erf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import EmbeddingModel, InputError, cos_sim
from gte_np.cli import main
from gte_np.explanation import Explanation, derivative
from gte_np.explanation.document import pool_blocks
from gte_np.explanation.page import page
from gte_np.reference.attention import softmax
from gte_np.reference.layer_norm import layer_norm
from scripts.explain_evidence import KNOWN_PAIRS, sentences
from tests.checkpoints import dense_model, small_model

random = np.random.default_rng(0)
STEP = 1e-5  # of central differences in float64, whose error is then about STEP squared


@pytest.fixture(scope="module")
def published(minilm_folder: Path) -> EmbeddingModel:
    return EmbeddingModel(minilm_folder)


@pytest.fixture(scope="module")
def pair(published: EmbeddingModel) -> Explanation:
    return published.explain("How many people live in London?", "London has nine million inhabitants.")


@pytest.fixture(scope="module")
def first_token(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingModel:
    return EmbeddingModel(small_model(tmp_path_factory.mktemp("cls"), pooling="cls"))


def difference(function: Any, x: Any, dx: Any) -> Any:
    return np.stack([(function(x + STEP * d) - function(x - STEP * d)) / (2 * STEP) for d in dx])


def layer_weights(size: int, inner: int) -> dict[str, Any]:
    shapes = {"intermediate.dense": (inner, size), "output.dense": (size, inner)}
    shapes |= {f"attention.self.{name}": (size, size) for name in ("query", "key", "value")}
    shapes |= {"attention.output.dense": (size, size)}
    weights = {f"{name}.weight": random.standard_normal(shape) / 2 for name, shape in shapes.items()}
    weights |= {f"{name}.bias": random.standard_normal(shape[0]) for name, shape in shapes.items()}
    for name in ("attention.output.LayerNorm", "output.LayerNorm"):
        weights |= {f"{name}.weight": random.uniform(0.5, 2, size), f"{name}.bias": random.standard_normal(size)}
    return weights


# --- derivatives ------------------------------------------------------------------------------------------------


def test_derivative_of_layer_norm_softmax_and_normalise() -> None:
    x: Any = random.standard_normal((5, 6))
    dx = random.standard_normal((3, 5, 6))
    weights = {"n.weight": random.uniform(0.5, 2, 6), "n.bias": random.standard_normal(6)}
    expected = difference(lambda x: layer_norm(x, weights, "n", 1e-12), x, dx)
    assert derivative.layer_norm_derivative(x, dx, weights["n.weight"], 1e-12) == pytest.approx(expected, abs=1e-7)
    assert derivative.softmax_derivative(softmax(x), dx) == pytest.approx(difference(softmax, x, dx), abs=1e-8)
    vector, change = x[0], dx[:, 0]
    expected = difference(lambda x: x / np.linalg.norm(x), vector, change)
    assert derivative.normalize_derivative(vector, change) == pytest.approx(expected, abs=1e-8)


def test_derivative_of_gelu() -> None:
    """The exact function's; the reference's erf is within 3e-7 of it."""
    x = np.linspace(-6, 6, 101)
    expected = difference(lambda x: x * np.array([(exact_erf(v / 2**0.5) + 1) / 2 for v in x]), x, [np.ones(101)])[0]
    assert derivative.gelu_derivative(x) == pytest.approx(expected, abs=1e-6)


def test_derivative_of_a_layer() -> None:
    """The polynomial in GELU wiggles by 3e-7 around erf, and its own slope by some 1e-5."""
    layer = derivative.Layer(layer_weights(8, 12), heads=2, eps=1e-12)
    x, dx = random.standard_normal((5, 8)), random.standard_normal((4, 5, 8))
    every = np.arange(5)
    expected = difference(lambda x: derivative.layer_derivative(x, dx, layer, every)[0], x, dx)
    assert derivative.layer_derivative(x, dx, layer, every)[1] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [0], [4], [3, 1]])
def test_derivative_of_some_rows_and_of_one_token_that_moves(rows: list[int]) -> None:
    layer = derivative.Layer(layer_weights(8, 12), heads=2, eps=1e-12)
    x, places, wanted = random.standard_normal((5, 8)), np.array([0, 1, 3, 4]), np.array(rows)
    step = random.standard_normal((4, 8))
    dx = np.zeros((4, 5, 8))
    dx[np.arange(4), places] = step
    values, changes = derivative.layer_derivative(x, dx, layer, np.arange(5))
    for found in (
        derivative.layer_derivative(x, dx, layer, wanted),
        derivative.step_derivative(x, step, places, layer, wanted),
    ):
        assert found[0] == pytest.approx(values[rows], abs=1e-9)
        assert found[1] == pytest.approx(changes[:, rows], abs=1e-9)


# --- pairs ------------------------------------------------------------------------------------------------------


def test_cells_add_up_to_the_cosine(published: EmbeddingModel) -> None:
    texts = sentences(100)
    vectors = published.encode(texts).astype(np.float64)
    for number in range(0, 100, 2):
        found = published.explain(texts[number], texts[number + 1])
        cells = found.contributions
        assert cells is not None
        assert cells.shape == tuple(map(len, found.tokens))
        printed = vectors[number] @ vectors[number + 1]
        assert cells.sum() == pytest.approx(printed, abs=1e-6)
        assert found.cosine == pytest.approx(printed, abs=1e-6)


def test_known_pairs_point_at_the_words(published: EmbeddingModel) -> None:
    for first, second, words in KNOWN_PAIRS:
        found = published.explain(first, second)
        assert found.deletions is not None
        for tokens, effects, word in zip(found.tokens, found.deletions, words, strict=True):
            assert word in (None, tokens[int(np.nanargmax(effects))])


def test_deletions_are_texts_without_the_token(published: EmbeddingModel, pair: Explanation) -> None:
    place = pair.tokens[0].index("people")
    assert pair.deletions is not None
    shorter = published.encode(["How many live in London?", pair.texts[1].text])
    expected = cos_sim(shorter[:1], shorter[1:])[0, 0] - pair.cosine
    assert pair.deletions[0][place] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(pair.deletions[0][[0, -1]]).all()


def test_the_last_layer_has_the_cosine(pair: Explanation) -> None:
    exact, rounded = pair.layers["float32"], pair.layers["int8"]
    assert exact is not None
    assert rounded is not None
    assert exact.shape == rounded.shape == (7,)
    assert exact[-1] == pytest.approx(pair.cosine, abs=1e-6)
    assert rounded == pytest.approx(exact, abs=0.02)  # int8 on MiniLM keeps cosines to some 0.005
    assert (rounded != exact).any()


def test_attentions_are_of_each_text(pair: Explanation) -> None:
    for tokens, attention in zip(pair.tokens, pair.attentions, strict=True):
        assert attention.shape == (6, 12, len(tokens), len(tokens))
        assert attention.sum(axis=-1) == pytest.approx(1, abs=1e-5)


def test_blocks_are_pooled_by_their_largest() -> None:
    values = np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    assert pool_blocks(values, 2).tolist() == [[[6, 9], [21, 24]]]


# --- tokens -----------------------------------------------------------------------------------------------------


def test_one_text(published: EmbeddingModel, tmp_path: Path) -> None:
    found = published.explain("hello world")
    assert found.tokens == (("[CLS]", "hello", "world", "[SEP]"),)
    assert (found.cosine, found.contributions, found.unexplained, found.deletions) == (None,) * 4
    found.save(tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text("utf-8")
    assert html == page(found.document())


def test_spans_unknown_words_and_cuts(published: EmbeddingModel) -> None:
    text = "Londoners \U000130b8 " + "word " * 400
    [tokens] = published.explain(text).texts
    assert tokens.tokens[:5] == ("[CLS]", "london", "##ers", "[UNK]", "word")
    assert [text[slice(*span)] for span in tokens.spans[1:5]] == ["London", "ers", "\U000130b8", "word"]
    assert tokens.unknown == (3,)
    assert (len(tokens.ids), tokens.cut_tokens) == (256, 405 - 256)
    assert text[: tokens.kept].endswith("word")
    assert tokens.kept == tokens.spans[-2][1]


@pytest.mark.parametrize("texts", [("",), ("a", ""), ("", "a")])
def test_empty_texts(published: EmbeddingModel, texts: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="got an empty one"):
        published.explain(*texts)


def test_texts_that_are_none(published: EmbeddingModel) -> None:
    with pytest.raises(TypeError):
        published.explain(["a"])  # type: ignore[arg-type]


# --- models that read one token -----------------------------------------------------------------------------------


def test_cls(first_token: EmbeddingModel) -> None:
    found = first_token.explain("a happy person", "that is very")
    assert found.contributions is not None
    assert found.unexplained is not None
    assert not found.is_exact
    assert found.contributions.sum() + found.unexplained == pytest.approx(found.cosine, abs=1e-9)
    special = found.contributions[[0, 0, -1, -1], [1, -1, 1, -1]]
    assert special == pytest.approx(0, abs=1e-6)  # they are in the reference text, too
    assert found.document()["contributions"]["method"] == "approximate"


def test_other_poolings_and_modules_have_no_contributions(tmp_path: Path) -> None:
    for folder in (small_model(tmp_path / "max", pooling="max"), dense_model(tmp_path / "dense")):
        found = EmbeddingModel(folder).explain("a happy person", "that")
        assert found.contributions is None
        assert found.deletions is not None
        assert "Contributions" in found.notes[0]


# --- the command ------------------------------------------------------------------------------------------------


def test_command(small_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(small_folder), "happy person", "that is"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 tokens: [CLS] happy person [SEP]"
    assert lines[2].startswith("cosine ")
    assert "exact" in lines[3]
    target = tmp_path / "page.html"
    assert main(["explain", str(small_folder), "happy person", "-o", str(target)]) == 0
    assert "happy person" in target.read_text("utf-8")
    assert main(["explain", str(small_folder), ""]) == 2
