"""Packed weights beside a saved model are mapped: they give the same bits, and are never those of other weights."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import CheckpointError, EmbeddingModel, TokenBatch
from gte_np.architectures.config import read_config
from gte_np.architectures.weights import read_weights
from gte_np.encoder_interface import EncoderInput
from gte_np.formats import FORMATS, choose_format
from gte_np.formats.int8 import INT8
from gte_np.kernels.runtime.kernel_encoder import KernelEncoder
from gte_np.kernels.runtime.packed_weights import PackedWeights
from gte_np.kernels.runtime.saved_panels import PANELS_FILES, write_panels
from gte_np.kernels.targets import Target
from tests.checkpoints import small_model, write_weights
from tests.programs import run_program
from tests.test_feature_pairs import ORDERING

TEXTS = ["happy person", "that is a b c", "北京"]
SAVED = [weight_format.dtype for weight_format in FORMATS if weight_format.saves_panels]
SIZES: dict[str, dict[str, Any]] = {
    "small": {},
    # Padded heads, and rows that do not end with a whole word of 32 bits.
    "odd": {"hidden_size": 33, "num_attention_heads": 3, "intermediate_size": 17, "vocab_size": 203},
}


def saved(source: Path, target: Path, dtype: str) -> Path:
    """A model's folder, saved in a dtype, and checked to have packed weights."""
    EmbeddingModel(source, dtype=dtype).save_pretrained(target)
    assert len(list(target.glob(PANELS_FILES))) == 1
    return target


def panels_of(folder: Path) -> Path:
    """The file with packed weights."""
    [path] = folder.glob(PANELS_FILES)
    return path


def weights_of(model: EmbeddingModel) -> PackedWeights:
    """The packed weights of a loaded model."""
    encoder = model.bert._encoder
    assert isinstance(encoder, KernelEncoder)
    return encoder.weights


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", SAVED)
def test_mapped_weights_give_the_same_bits(dtype: str, sizes: str, tmp_path: Path) -> None:
    source = small_model(tmp_path / "model", **SIZES[sizes])
    write_weights(source, dtype="float16")
    packed = EmbeddingModel(source, dtype=dtype)
    mapped = EmbeddingModel(saved(source, tmp_path / "saved", dtype))
    assert isinstance(weights_of(mapped).matrices.base, np.memmap)
    assert not isinstance(weights_of(packed).matrices.base, np.memmap)
    assert np.array_equal(mapped.encode(TEXTS), packed.encode(TEXTS))
    tokens = mapped.bert([[2, 9, 17, 3]], output_attentions=True).attentions  # from weights that are unpacked
    assert tokens is not None
    assert np.array_equal(tokens, packed.bert([[2, 9, 17, 3]], output_attentions=True).attentions or ())


@pytest.mark.parametrize("dtype", SAVED)
def test_every_target_reads_the_folder(dtype: str, folder: Path, tmp_path: Path, target: Target) -> None:
    """A target with panels of another width packs the weights itself."""
    states = []
    for place in (folder, saved(folder, tmp_path / "saved", dtype)):
        config = read_config(place)
        weight_format = choose_format(dtype, "float32")
        encoder = KernelEncoder(config, read_weights(place, config), weight_format, target=target)
        states.append(encoder(EncoderInput(TokenBatch.from_ids([[2, 9, 17, 3]]), config)).last_hidden_state)
    assert np.array_equal(states[0], states[1])


@pytest.mark.parametrize("name", ORDERING)
def test_orders_of_features_are_mapped_and_checked(name: str, folder: Path, tmp_path: Path) -> None:
    """Kernels index memory by them, so a file must have nothing else in their place."""
    place = saved(folder, tmp_path / "saved", "int8")
    for panels in place.glob(PANELS_FILES):  # on some processors they have the name of those below
        panels.unlink()
    config = read_config(place)
    weights = read_weights(place, config)

    def encoder() -> KernelEncoder:
        return KernelEncoder(config, weights, INT8, target=ORDERING[name])

    text = EncoderInput(TokenBatch.from_ids([[2, 9, 17, 3]]), config)
    packed = encoder()
    path = place / packed.weights.panels_file
    write_panels(path, packed.weights.saved_parts(), weights.fingerprint())
    mapped = encoder()
    assert isinstance(mapped.weights.matrices.base, np.memmap)
    assert np.array_equal(mapped(text).last_hidden_state, packed(text).last_hidden_state)
    packed.weights.layers[0].linears["qkv"].constants.view(np.int32)[-1, 2, 0] = -1
    write_panels(path, packed.weights.saved_parts(), weights.fingerprint())
    with pytest.raises(CheckpointError, match=r"got input features in no order\. Delete this file"):
        encoder()


def test_float32_and_the_reference_save_no_panels(folder: Path, tmp_path: Path) -> None:
    EmbeddingModel(folder).save_pretrained(tmp_path / "float32")
    EmbeddingModel(folder, dtype="int8", backend="numpy").save_pretrained(tmp_path / "numpy")
    assert not list(tmp_path.glob(f"*/{PANELS_FILES}"))


def test_panels_go_with_the_model_that_is_replaced(folder: Path, tmp_path: Path) -> None:
    target = saved(folder, tmp_path / "saved", "int8")
    EmbeddingModel(folder).save_pretrained(target)
    assert not list(target.glob(PANELS_FILES))


@pytest.mark.parametrize("dtype", SAVED)
def test_panels_of_other_weights_are_refused(dtype: str, folder: Path, tmp_path: Path) -> None:
    other = small_model(tmp_path / "other")
    write_weights(other, seed=1)
    ours, theirs = saved(folder, tmp_path / "ours", dtype), saved(other, tmp_path / "theirs", dtype)
    panels_of(ours).write_bytes(panels_of(theirs).read_bytes())
    with pytest.raises(CheckpointError, match=r"got those of other weights\. Delete this file"):
        EmbeddingModel(ours)
    panels_of(ours).unlink()
    assert EmbeddingModel(ours).encode("happy").any()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "no array": lambda content: b"x" * len(content),
    "cut in the header": lambda content: content[:40],
    "cut": lambda content: content[:-4],
    "longer": lambda content: content.replace(b"(", b"(1", 1),
    "another dtype": lambda content: content.replace(b"<u4", b"<f4"),
    "objects": lambda content: content.replace(b"'<u4'", b"'|O' "),
    "a header that does not end": lambda content: content[:20].ljust(len(content), b"("),
    "an archive": lambda content: b"PK\x03\x04" + content[4:],
    "another end": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_panels_are_refused(damage: str, folder: Path, tmp_path: Path) -> None:
    path = panels_of(saved(folder, tmp_path / "saved", "int8"))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(CheckpointError, match=f"{path.name}: expected the packed weights of the model beside them"):
        EmbeddingModel(path.parent)


MAPPED = [PANELS_FILES, INT8.file]  # the word table stays in the latter


@pytest.mark.parametrize("name", MAPPED)
def test_what_is_written_in_place_is_noticed(name: str, folder: Path, tmp_path: Path) -> None:
    [path] = saved(folder, tmp_path / "saved", "int8").glob(name)
    model = EmbeddingModel(path.parent)
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.write(content[:10])
    os.utime(path, ns=(0, 0))
    with pytest.raises(CheckpointError, match="expected a file that nobody writes to"):
        model.encode(TEXTS)


# In a process of its own, which a page that is no longer there would end.
CUT = """
import sys
from pathlib import Path
from gte_np import CheckpointError, EmbeddingModel

model = EmbeddingModel(sys.argv[1])
[path] = Path(sys.argv[1]).glob(sys.argv[2])
with path.open("r+b") as file:
    file.truncate(0)
try:
    model.encode("happy person")
except CheckpointError as error:
    sys.exit(0)
raise AssertionError("it was not noticed")
"""


@pytest.mark.parametrize("name", MAPPED)
def test_a_cut_is_noticed(name: str, folder: Path, tmp_path: Path) -> None:
    run_program(CUT, saved(folder, tmp_path / "saved", "int8"), name)


@pytest.mark.parametrize("name", MAPPED)
def test_a_file_that_is_replaced_changes_nothing(name: str, folder: Path, tmp_path: Path) -> None:
    [path] = saved(folder, tmp_path / "saved", "int8").glob(name)
    model = EmbeddingModel(path.parent)
    before = model.encode(TEXTS)
    new = path.with_name("new")
    new.write_bytes(bytes(100))
    new.replace(path)
    assert np.array_equal(model.encode(TEXTS), before)


def test_a_pickle_names_the_panels(folder: Path, tmp_path: Path) -> None:
    path = panels_of(saved(folder, tmp_path / "saved", "int8"))
    model = EmbeddingModel(path.parent)
    content = pickle.dumps(model)
    assert np.array_equal(pickle.loads(content).encode(TEXTS), model.encode(TEXTS))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=path.name):
        pickle.loads(content)
