"""benchmarks.limits and benchmarks.peaks: what is counted, and that the loops do what is counted."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numba import types

from benchmarks import limits, peaks
from benchmarks.limits import Limit, Rates, Work, limit_of, work_of
from gte_np.architectures.config import read_config
from gte_np.formats.bfloat16 import BFLOAT16
from gte_np.formats.float_formats import FLOAT16, FLOAT32
from gte_np.formats.int8 import INT8
from gte_np.formats.weight_format import WeightFormat
from gte_np.kernels.language.types import float32, panel_pointer, pointer_to
from gte_np.kernels.runtime.compile import Entry
from gte_np.kernels.targets import Target
from gte_np.kernels.targets.host import host_target
from gte_np.kernels.targets.x86 import AVX2, AVX512, AVX512_AMX
from tests.compiled import RUNNABLE, assembly

# One layer of D = 4 and F = 8 multiplies each token with 4 x 12, 4 x 4, 4 x 8 and 8 x 4 weights: 128.
LAYER = 4 * 12 + 4 * 4 + 4 * 8 + 8 * 4
KEYS_AND_VALUES = 4 * 8


def work(small_folder: Path, *, one_token: bool) -> Work:
    """Of texts of 3 and 2 tokens, in two layers of these sizes."""
    config = replace(read_config(small_folder), hidden_size=4, intermediate_size=8, num_hidden_layers=2)
    return work_of(config, [3, 2], one_token=one_token)


def test_multiply_adds_of_all_tokens(small_folder: Path) -> None:
    linears, attention = work(small_folder, one_token=False)
    assert sum(linear.multiply_adds for linear in linears) == 2 * 5 * LAYER
    assert attention == 2 * 2 * (3 * 3 + 2 * 2) * 4  # layers, products, pairs of tokens, features


def test_multiply_adds_of_one_token_in_the_last_layer(small_folder: Path) -> None:
    linears, attention = work(small_folder, one_token=True)
    last = 5 * KEYS_AND_VALUES + 2 * (LAYER - KEYS_AND_VALUES)
    assert sum(linear.multiply_adds for linear in linears) == 5 * LAYER + last
    assert attention == 2 * (3 * 3 + 2 * 2) * 4 + 2 * (3 + 2) * 4


@pytest.mark.parametrize(("weight_format", "size"), [(FLOAT32, 4), (FLOAT16, 2), (BFLOAT16, 2), (INT8, 1)])
def test_bytes_of_weights(weight_format: WeightFormat, size: int, small_folder: Path) -> None:
    linears, _ = work(small_folder, one_token=True)
    assert sum(linear.weight_bytes(weight_format) for linear in linears) == 2 * LAYER * size


def test_each_layer_has_its_own_bound(small_folder: Path) -> None:
    linears, attention = work(small_folder, one_token=True)
    # In 5 rows 5 multiply-adds for 4 bytes take longer than reading; in the 2 rows of the last layer they do not.
    rates = Rates(peak=1.0, attention_peak=8.0, bandwidth=1.0)
    arithmetic = 5 * (LAYER + KEYS_AND_VALUES) + attention / 8
    assert limit_of(Work(linears, attention), FLOAT32, rates) == Limit(arithmetic, 4 * (LAYER - KEYS_AND_VALUES))


@pytest.mark.parametrize("target", RUNNABLE.values(), ids=RUNNABLE)
def test_every_accumulator_has_every_multiply_add(target: Target) -> None:
    words, rounds = peaks.words().view(np.float32), 10
    before, counted = words.copy(), peaks.multiply_adds_of_a_round(FLOAT32, target)
    function = peaks.compiled(peaks.multiply_adds, panel_pointer(FLOAT32, target), types.int64, target=target)
    function(words.ctypes.data, rounds)
    sums = before[16 : 16 + counted].reshape(-1, 16) + rounds * before[0] * before[:16]
    np.testing.assert_allclose(words[16 : 16 + counted], sums.reshape(-1), rtol=1e-5, atol=1e-5)
    assert np.array_equal(words[16 + counted :], before[16 + counted :])


@pytest.mark.parametrize(
    ("target", "product"), [(AVX512, "vpmaddubsw"), (AVX2, "vpmaddubsw"), (AVX512_AMX, "tdpbusd")]
)
def test_no_product_is_computed_before_the_loop(target: Target, product: str) -> None:
    code = assembly(Entry(peaks.multiply_adds, (panel_pointer(INT8, target), types.int64)), target)
    multiply_adds_of_an_instruction = 16**3 * 4 if product == "tdpbusd" else 4 * target.vector_width
    assert code.count(product) * multiply_adds_of_an_instruction >= peaks.multiply_adds_of_a_round(INT8, target)


def test_every_byte_is_read() -> None:
    kinds = panel_pointer(INT8, host_target()), types.int64, types.int64, pointer_to(float32)
    function = peaks.compiled(peaks.read, *kinds, target=host_target())
    matrices = np.random.default_rng(0).integers(0, 2**32, (7 * peaks.STREAMS, 16), np.uint32)
    found = np.zeros(16, np.uint32)
    function(matrices.ctypes.data, matrices.nbytes, 1, found.ctypes.data)
    assert np.array_equal(found, np.bitwise_xor.reduce(matrices, axis=0))


def test_the_command(
    small_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limits, "MODELS", {"small": small_folder.name})
    monkeypatch.setattr(limits, "FOLDERS", small_folder.parent)
    monkeypatch.setattr(limits, "RESULTS", tmp_path)
    monkeypatch.setattr(limits, "LENGTHS", {"2 x 5": [5, 5]})
    monkeypatch.setattr(sys, "argv", ["limits", "--seconds", "0"])
    limits.main()
    header, *rows, last = capsys.readouterr().out.splitlines()
    assert [row.split()[:2] for row in rows] == [["small", dtype] for dtype in ("float32", "bfloat16", "int8")]
    assert {len(row) for row in rows} == {len(header)}
    results = json.loads(last)
    assert json.loads((tmp_path / "limits.json").read_text("utf-8")) == results
    figures = results["models"][small_folder.name]["int8"]["2 x 5"]
    assert figures["turns"] == limits.FEWEST_TURNS
    low, middle, high = figures["encoder_percent"]
    assert 0 < low <= middle <= high
