"""Whole encoders for every target: those that this processor runs are run, and all others are compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from gte_np import BertModel, TokenBatch
from gte_np.architectures.config import read_config
from gte_np.architectures.weights import read_weights, stored_precision
from gte_np.encoder_interface import EncoderInput
from gte_np.formats import choose_format
from gte_np.kernels.language.memory import load, store
from gte_np.kernels.language.types import LANES, Pointer
from gte_np.kernels.runtime.compile import Entry, compile_entry, entries
from gte_np.kernels.runtime.kernel_encoder import KernelEncoder
from gte_np.kernels.runtime.object_cache import function
from gte_np.kernels.targets import TARGETS, Target
from tests.compiled import FLOATS, RUNNABLE, assembly, same_bits
from tests.samples import TOLERANCES, write_odd_sizes

# The precision of the weights, and the dtype of the arithmetic.
KINDS = [
    ("float32", "float32"),
    ("float16", "float32"),
    ("bfloat16", "float32"),
    ("float16", "bfloat16"),
    ("float16", "int8"),
]
NAMES = [target.name for target in TARGETS]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def folder_and_dtype(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A checkpoint of odd sizes in each precision, and a dtype."""
    precision, dtype = request.param
    return write_odd_sizes(precision, tmp_path_factory.mktemp("checkpoint")), dtype


@pytest.fixture(scope="module")
def batch() -> TokenBatch:
    """So many tokens that 16-bit weights are widened first."""
    random = np.random.default_rng(0)
    return TokenBatch.from_ids([random.integers(0, 200, length).tolist() for length in (64, *range(1, 41))])


@pytest.fixture(scope="module")
def encoded(folder_and_dtype: tuple[Path, str], batch: TokenBatch) -> dict[str, Any]:
    """Target -> the last hidden states, by an encoder that is compiled for it."""
    folder, dtype = folder_and_dtype
    config = read_config(folder)
    weights = read_weights(folder, config)
    weight_format = choose_format(dtype, stored_precision(weights))
    encoders = {
        name: KernelEncoder(config, weights, weight_format, threads=2, target=target)
        for name, target in RUNNABLE.items()
    }
    inputs = EncoderInput(batch, config)
    return {name: encoder(inputs).last_hidden_state for name, encoder in encoders.items()}


def test_states_are_those_of_the_reference(
    encoded: dict[str, Any], folder_and_dtype: tuple[Path, str], batch: TokenBatch
) -> None:
    folder, dtype = folder_and_dtype
    reference = BertModel.from_folder(folder, backend="numpy", dtype=dtype)
    expected = reference.encode_batch(batch).last_hidden_state
    assert encoded.keys() == RUNNABLE.keys()
    for states in encoded.values():
        assert np.abs(states - expected).max() <= TOLERANCES[dtype]


def test_targets_of_the_same_arithmetic_give_the_same_bits(
    encoded: dict[str, Any], folder_and_dtype: tuple[Path, str]
) -> None:
    product = choose_format(folder_and_dtype[1], "float32").tile_product
    first: dict[str, Any] = {}
    for name, target in RUNNABLE.items():
        assert same_bits(encoded[name], first.setdefault(target.arithmetic(product), encoded[name]))


# --- code for any target ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "target"), [(name, target) for target in TARGETS for name in entries(target)])
def test_every_entry_compiles_for_every_target(name: str, target: Target) -> None:
    entry = entries(target)[name]
    if target.name in RUNNABLE:
        assert callable(function(name, target, len(entry.arguments)))
        return
    code = llvm.ObjectFileRef.from_data(compile_entry(name, entry, target))
    assert any(section.is_text() and section.size() > 0 for section in code.sections())


def _add(x: Pointer, y: Pointer) -> None:
    for index in range(0, 4 * LANES, LANES):
        store(x, index, load(x, index) + load(y, index))


# How the assembly language names the registers of so many float32 values.
REGISTERS = {("x86_64", 16): "%zmm", ("x86_64", 8): "%ymm", ("x86_64", 4): "%xmm", ("aarch64", 4): ".4s"}


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_vectors_are_as_wide_as_the_target_says(target: Target) -> None:
    text = assembly(Entry(_add, (FLOATS, FLOATS)), target)
    used = {width for (machine, width), name in REGISTERS.items() if machine == target.machine and name in text}
    assert used == {target.vector_width}
