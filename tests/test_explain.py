"""Explanations: what their parts add up to, against the model itself and against finite differences."""

from __future__ import annotations

import importlib.metadata
from copy import copy
from importlib.metadata import PackageNotFoundError
from math import erf as exact_erf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import BertModel, EmbeddingModel, InputError, TokenBatch, __version__, cos_sim
from gte_np.cli import main
from gte_np.explanation import Explanation, attribution, deletion, derivative
from gte_np.explanation.attribution import plan_of
from gte_np.explanation.contributions import cosines_with
from gte_np.explanation.document import pool_blocks
from gte_np.explanation.layers import layer_states
from gte_np.explanation.page import page
from gte_np.reference.attention import softmax
from gte_np.reference.encoder import encoder_layer
from gte_np.reference.layer_norm import layer_norm
from scripts.explain_evidence import KNOWN_PAIRS, rank_correlations, sentences
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


def test_attention_is_computed_for_the_page_alone(published: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each layer, and not of the int8 twin."""
    calls = list[tuple[str, int]]()
    attention = BertModel.attention

    def counted(self: BertModel, layer: int, *rest: Any) -> Any:
        calls.append((self.dtype, layer))
        return attention(self, layer, *rest)

    monkeypatch.setattr(BertModel, "attention", counted)
    found = published.explain("a happy person", "that is very")
    assert found.layers["int8"] is not None
    assert found.contributions is not None
    assert not calls
    found.document()
    assert calls == [("float32", layer) for layer in range(6)]


def test_blocks_are_pooled_by_their_largest() -> None:
    values = np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    assert pool_blocks(values, 2).tolist() == [[[6, 9], [21, 24]]]


# --- tokens -----------------------------------------------------------------------------------------------------


def test_the_version_needs_no_metadata(published: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert published.explain("hello").document()["version"] == __version__


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


def test_tokens_of_a_cls_model_contribute_with_the_whole_other_text(first_token: EmbeddingModel) -> None:
    """They add up to what the cosine has more than that with a text of which all tokens are the same."""
    found = first_token.explain("a happy person", "that is very")
    assert found.attribution is not None
    assert found.token_contributions is not None
    assert found.attribution.layer == 0
    states = layer_states(first_token.bert, found.batch)[0].copy()
    ordinary = [1, 2, 3, 6, 7, 8]
    states[ordinary] = states[ordinary].mean(axis=0)
    for layer in range(2):
        weights = first_token.bert.weights.layer(layer)
        states, _ = encoder_layer(states, found.batch, weights, first_token.bert.config)
    references = states[[0, 5]]
    for total, reference, other in zip(found.token_contributions, references, found.vectors[::-1], strict=True):
        assert total.sum() == pytest.approx(found.cosine - cosines_with(reference, other[None])[0], abs=1e-4)
        assert total[[0, -1]] == pytest.approx(0, abs=1e-7)
    cells = found.contributions
    assert cells is not None
    assert np.abs(cells.sum(axis=1) - found.token_contributions[0]).max() > 1e-3  # what all texts share


def test_contributions_rank_tokens_as_deletions_do(published: EmbeddingModel) -> None:
    """On MiniLM with the pooling of [CLS]: 0.6 for most pairs. Sums of cells have 0.2, or less."""
    model = EmbeddingModel(published.name_or_path, pooling="cls")
    texts = sentences(12)
    rows = [rank_correlations(model.explain(*texts[n : n + 2])) for n in range(0, 12, 2)]
    assert np.mean([row.totals for row in rows]) > 0.5


def test_exact_contributions_of_tokens_are_sums_of_cells(pair: Explanation) -> None:
    assert pair.contributions is not None
    assert pair.token_contributions is not None
    first, second = pair.token_contributions
    assert first == pytest.approx(pair.contributions.sum(axis=1))
    assert second == pytest.approx(pair.contributions.sum(axis=0))
    assert pair.document()["contributions"]["totals"] == [first.tolist(), second.tolist()]


def test_the_attributed_layers(published: EmbeddingModel) -> None:
    """From one third of the layers on, and the longer the texts, the fewer of them; at least the last one."""
    model = EmbeddingModel(published.name_or_path, pooling="cls")
    layers = [plan.layer for n in (5, 60, 256) if (plan := plan_of(model, TokenBatch.from_ids([[1] * n] * 2)))]
    assert (layers[0], layers[-1]) == (2, 5)
    assert layers == sorted(layers)
    found = model.explain("a happy person", "that is very")
    assert "of layers 3 to 6," in found.document()["contributions"]["name"]


def test_the_longest_texts_of_a_cls_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where deletions would take long, a note says so, and contributions are of the last layer."""
    model = EmbeddingModel(small_model(tmp_path, pooling="cls"))
    monkeypatch.setattr(deletion, "MOST_PRODUCTS", 1)
    monkeypatch.setattr(attribution, "MOST_PRODUCTS", 1)
    found = model.explain("happy person " * 100, "that is very " * 100)
    assert [len(tokens) for tokens in found.tokens] == [64, 64]
    assert found.attribution is not None
    assert found.attribution.layer == 1
    assert found.deletions is None
    assert [note.split()[0] for note in found.notes] == ["Text", "Text", "The"]
    assert "of layers 2 to 2," in found.document()["contributions"]["name"]


def test_other_poolings_and_modules_have_no_contributions(tmp_path: Path) -> None:
    folders = small_model(tmp_path / "max", pooling="max"), dense_model(tmp_path / "dense")
    for folder, why in zip(folders, ("behind max pooling", "a dense layer"), strict=True):
        found = EmbeddingModel(folder).explain("a happy person", "that")
        assert found.contributions is None
        assert found.deletions is not None
        assert found.notes[0].startswith(f"Contributions of pairs are not shown: {why}")


def test_a_model_without_files_has_no_contributions_of_cls(first_token: EmbeddingModel) -> None:
    model = copy(first_token)
    vars(model)["bert"] = copy(first_token.bert)
    vars(model.bert)["_files"] = None
    found = model.explain("a happy person", "that")
    assert found.contributions is None
    assert "was not loaded from files" in found.notes[0]


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
