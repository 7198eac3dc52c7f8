"""The weights of a loaded encoder by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import BertModel, CheckpointError, EmbeddingModel, InputError, TokenBatch
from gte_np.architectures.config import read_config
from gte_np.architectures.tensors import LAYER
from gte_np.architectures.weights import read_weights
from gte_np.formats import FORMATS
from gte_np.reference.encoder import encoder_layer
from tests.checkpoints import random_tensors, small_model, write_weights

QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_every_tensor_is_there_by_its_name(tmp_path: Path, precision: str, backend: str, file: str) -> None:
    folder = small_model(tmp_path)
    (folder / "model.safetensors").unlink()
    write_weights(folder, dtype=precision, files=(file,))
    weights = BertModel.from_pretrained(folder, backend=backend).weights
    stored = random_tensors(folder, precision)
    assert set(weights) == weights.keys() == stored.keys()
    assert len(weights) == len(stored)
    for name, array in weights.items():
        assert array.dtype == np.float32
        assert array.shape == weights.shapes[name]
        assert np.array_equal(array, stored[name].to_float32())


def test_a_layer_by_its_names_is_what_the_reference_takes(small_folder: Path) -> None:
    bert = BertModel.from_pretrained(small_folder)
    batch = TokenBatch.from_ids([[2, 9, 17, 3], [2, 11, 3]])
    states = bert.encode_batch(batch, keep_layers=True).hidden_states or []
    for number in range(2):
        weights = bert.weights.layer(number)
        assert list(weights) == list(LAYER)
        x, _ = encoder_layer(states[number], batch, weights, bert.config)
        assert np.abs(x - states[number + 1]).max() < 2e-6


def test_weights_cannot_be_written_to(small_folder: Path) -> None:
    weights = BertModel.from_pretrained(small_folder).weights
    for array in (weights[QUERY], *weights.layer(0).values()):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
    with pytest.raises(TypeError):
        weights[QUERY] = 0  # type: ignore[index]


def test_names_that_are_not_there(small_folder: Path) -> None:
    weights = BertModel.from_pretrained(small_folder).weights
    assert QUERY in weights
    assert "bert." + QUERY not in weights
    with pytest.raises(KeyError, match="pooler"):
        weights["pooler"]
    cases: list[tuple[Any, type[Exception]]] = [(-1, InputError), (2, InputError), ("0", TypeError)]
    for number, error in cases:
        with pytest.raises(error, match="the number of a layer"):
            weights.layer(number)


def test_without_a_pooler(folder: Path) -> None:
    write_weights(folder, pooler=False)
    assert not any("pooler" in name for name in BertModel.from_pretrained(folder).weights)


def test_a_dtype_does_not_round_them_but_a_saved_one_has(small_folder: Path, tmp_path: Path) -> None:
    published = BertModel.from_pretrained(small_folder).weights[QUERY]
    model = EmbeddingModel(small_folder, dtype="int8")
    assert np.array_equal(model.bert.weights[QUERY], published)
    model.save_pretrained(tmp_path)
    saved = BertModel.from_pretrained(tmp_path).weights[QUERY]
    [int8] = [weight_format for weight_format in FORMATS if weight_format.dtype == "int8"]
    original = read_weights(small_folder, model.bert.config).layers[1]["attention.self.query.weight"]
    assert np.array_equal(saved, int8.of(original).to_float32())
    assert not np.array_equal(saved, published)


def test_other_files_in_their_place(folder: Path) -> None:
    bert = BertModel.from_pretrained(folder)
    weights = bert.weights
    assert weights[QUERY].any()
    write_weights(folder, seed=1)
    with pytest.raises(CheckpointError, match="changed after the model was loaded"):
        weights[QUERY]


def test_a_model_that_was_not_loaded_has_none(small_folder: Path) -> None:
    config = read_config(small_folder)
    with pytest.raises(InputError, match="expected a model that was loaded from files"):
        _ = BertModel(config, read_weights(small_folder, config)).weights
