"""The parts can be exchanged: a weight format and a target that are not the package's own, each in one module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import BertModel, EmbeddingModel, InputError, TokenBatch
from gte_np.architectures.config import read_config
from gte_np.architectures.weights import read_weights
from gte_np.encoder_interface import EncoderInput
from gte_np.formats import FORMATS, choose_format
from gte_np.kernels.runtime.kernel_encoder import KernelEncoder
from gte_np.kernels.targets import TARGETS
from gte_np.kernels.targets.host import host_features, this_machine
from gte_np.kernels.targets.x86 import AVX2
from tests.checkpoints import small_model, write_config, write_weights
from tests.compiled import same_bits
from tests.examples.int4 import INT4
from tests.examples.odd_target import ODD
from tests.texts import ORDINARY


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled kernels are not kept: their names do not tell of the sources in tests/examples."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def _int4() -> Iterator[None]:
    FORMATS.append(INT4)  # the one line
    yield
    FORMATS.remove(INT4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose sizes are whole groups."""
    sizes: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96}
    return small_model(tmp_path / "model", **sizes)


@pytest.mark.usefixtures("_int4")
def test_a_weight_format(folder: Path, tmp_path: Path) -> None:
    kernels = EmbeddingModel(folder, backend="numba", dtype="int4")
    reference = EmbeddingModel(folder, backend="numpy", dtype="int4")
    expected = reference.encode(ORDINARY)
    assert np.abs(kernels.encode(ORDINARY) - expected).max() < 2e-6
    assert np.abs(EmbeddingModel(folder, backend="numpy").encode(ORDINARY) - expected).max() > 1e-3  # 4 bits differ
    attentions = kernels.bert([[2, 9, 17, 3]], output_attentions=True).attentions or ()
    for attention, other in zip(
        attentions, reference.bert([[2, 9, 17, 3]], output_attentions=True).attentions or (), strict=True
    ):
        assert np.abs(attention - other).max() < 1e-5

    kernels.save_pretrained(tmp_path / "saved")
    saved = EmbeddingModel(tmp_path / "saved", backend="numba")
    assert saved.bert.dtype == "int4"
    assert same_bits(saved.encode(ORDINARY), kernels.encode(ORDINARY))
    weights = read_weights(folder, read_config(folder))
    matrices = [tensor.shape for layer in weights.layers for tensor in layer.values() if len(tensor.shape) == 2]
    saved_bytes = sum(3 * np.prod(shape) for shape in matrices)  # of four bytes a value, and more
    size = (folder / "model.safetensors").stat().st_size - (tmp_path / "saved" / INT4.file).stat().st_size
    assert size > saved_bytes


@pytest.mark.usefixtures("_int4")
def test_a_format_says_what_it_cannot_do(tmp_path: Path) -> None:
    write_config(tmp_path, hidden_size=52, num_attention_heads=2, intermediate_size=40)
    write_weights(tmp_path)
    with pytest.raises(InputError, match="multiples of 32 for int4"):
        BertModel.from_pretrained(tmp_path, dtype="int4")


def test_a_format_that_is_not_registered(folder: Path) -> None:
    with pytest.raises(InputError, match="dtype to be one of float32, bfloat16, int8, got 'int4'"):
        BertModel.from_pretrained(folder, dtype="int4")


@pytest.mark.skipif(not ODD.runs_on(this_machine(), host_features()), reason="the made-up target is AVX2's")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_target(dtype: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TARGETS.insert(0, ODD)  # the one line
    try:
        config = read_config(folder)
        weights = read_weights(folder, config)
        batch = TokenBatch.from_ids([[2, *range(5, length), 3] for length in (6, 9, 40, 17)])
        target = next(target for target in TARGETS if target.runs_on(this_machine(), host_features()))
        assert target is ODD
        inputs = EncoderInput(batch, config)
        odd = KernelEncoder(config, weights, choose_format(dtype, "float32"), target=target)(inputs)
        usual = KernelEncoder(config, weights, choose_format(dtype, "float32"), target=AVX2)(inputs)
        assert same_bits(odd.last_hidden_state, usual.last_hidden_state)
    finally:
        TARGETS.remove(ODD)
