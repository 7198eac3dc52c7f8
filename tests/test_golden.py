"""Against arrays that transformers and sentence-transformers made; see scripts/make_golden.py."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import KNOWN_MODELS, BertModel, EmbeddingModel, TokenBatch, Tokenizer
from tests import samples
from tests.checkpoints import CHINESE
from tests.layouts import LAYOUTS, write_layout
from tests.samples import GOLDEN, TOLERANCES, golden
from tests.texts import generated

BACKENDS = ("numpy", "numba")
# transformers does not fix the order of sums: against float64 it is itself off by up to 7e-6 in hidden states, and by
# 2e-7 in vectors, which have length 1.
STATES = TOLERANCES["float32"]
VECTORS = 2e-6


def assert_close(ours: Any, theirs: Any, tolerance: float) -> None:
    """Fail for another shape, or any difference over the tolerance; NaN is one."""
    assert ours.shape == theirs.shape
    assert float(np.abs(ours - theirs).max()) <= tolerance


def test_the_golden_files_are_those_of_the_manifest() -> None:
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in GOLDEN.iterdir()
        if path.name != "manifest.json"
    }
    assert found == manifest["sha256"]


def test_minilm_vectors(minilm: EmbeddingModel) -> None:
    expected = golden("minilm")["vectors"]
    assert_close(minilm.encode(samples.MINILM_TEXTS), expected, VECTORS)
    for text, vector in zip(samples.MINILM_TEXTS, expected, strict=True):
        assert_close(minilm.encode(text), vector, VECTORS)


def test_minilm_states_of_every_layer_in_one_mixed_batch(minilm: EmbeddingModel) -> None:
    arrays = golden("minilm")
    ids = [samples.ids_of_length(length, minilm.bert.config.vocab_size) for length in samples.MINILM_LENGTHS]
    batch = TokenBatch.from_ids(ids)
    layers = np.stack(minilm.bert.encode_batch(batch, keep_layers=True).hidden_states or [])
    for text, length in enumerate(samples.MINILM_LENGTHS):
        states = layers[:, batch.slice(text)][:, [0, length // 2, length - 1]]
        assert_close(states, arrays[f"states_{length}"], STATES)


@pytest.mark.parametrize("name", list(samples.SHAPES))
def test_vectors_of_the_exact_shapes_of_the_chinese_models(name: str, tmp_path: Path) -> None:
    texts = [samples.chinese_text(length) for length in samples.SHAPE_LENGTHS]
    folder = samples.write_shape(name, tmp_path)
    for backend in BACKENDS:
        model = EmbeddingModel(folder, backend=backend)
        assert model.tokenize(texts).lengths.tolist() == list(samples.SHAPE_LENGTHS)
        assert_close(model.encode(texts), golden("shapes")[name], 5e-6)


def test_every_known_model_has_a_layout() -> None:
    assert LAYOUTS.keys() == KNOWN_MODELS.keys()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", list(KNOWN_MODELS))
def test_vectors_of_each_known_layout(name: str, backend: str, tmp_path: Path) -> None:
    model = EmbeddingModel(write_layout(name, tmp_path), backend=backend)
    expected = golden("layouts")[name]
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)  # not all of them normalise
    assert_close(model.encode(samples.LAYOUT_TEXTS) / lengths, expected / lengths, VECTORS)
    known = KNOWN_MODELS[name]
    assert model.max_seq_length == known.max_tokens
    assert model.pooling_modes == (known.pooling,)
    assert model.bert.config.num_hidden_layers == known.layers


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "bert-base-chinese"])
def test_token_ids_of_generated_texts(name: str, minilm_folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(CHINESE if name == "bert-base-chinese" else minilm_folder)
    batch = tokenizer.tokenize(list(generated(samples.GENERATED_TEXTS)))
    expected = json.loads((GOLDEN / "token_ids.json").read_text())[name]
    assert samples.hashes([batch[text].tolist() for text in range(len(batch))]) == expected


@pytest.mark.parametrize("backend", BACKENDS)
def test_everything_that_bert_model_gives(backend: str, small_folder: Path) -> None:
    arrays = golden("bert_output")
    kept = arrays["attention_mask"] == 1
    output = BertModel.from_pretrained(small_folder, backend=backend)(
        arrays["input_ids"],
        arrays["attention_mask"],
        arrays["token_type_ids"],
        output_hidden_states=True,
        output_attentions=True,
    )
    assert output.hidden_states is not None
    assert output.attentions is not None
    assert output.pooler_output is not None
    assert_close(output.last_hidden_state, arrays["last_hidden_state"] * kept[..., None], STATES)
    assert_close(np.stack(output.hidden_states), arrays["hidden_states"] * kept[..., None], STATES)
    rows = kept[:, None, :, None]  # what a padded position looks at is not computed
    assert_close(np.stack(output.attentions), arrays["attentions"] * rows, VECTORS)
    begun = kept[:, 0]  # the pooler reads column 0
    assert_close(output.pooler_output[begun], arrays["pooler_output"][begun], VECTORS)
