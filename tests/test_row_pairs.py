"""Products in pairs of rows, whose instructions ARM has, with some that are made of others on every processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llvmlite import ir

from gte_np.formats import WeightFormat
from gte_np.formats.bfloat16 import BFLOAT16
from gte_np.formats.int8 import INT8
from gte_np.kernels.language.types import LANES, WORDS
from gte_np.kernels.targets import Target
from gte_np.kernels.targets.dot_products import DotProduct, PlainInt8, Value, WidenedBfloat16
from tests.compiled import RUNNABLE, WIDTHS, same_bits
from tests.emulation.amx_arithmetic import widened
from tests.emulation.matrix_units import SHORT, states_of
from tests.samples import write_odd_sizes
from tests.test_low_precision import bfloat16_inputs, exact_int8, int8_inputs, product, unused_scratch

INPUTS: dict[WeightFormat, Callable[..., Any]] = {INT8: int8_inputs, BFLOAT16: bfloat16_inputs}
FORMATS = pytest.mark.parametrize("weight_format", INPUTS, ids=lambda each: each.name)


@dataclass(frozen=True)
class PlainPairs(DotProduct):
    """Each of the four sums of a register gets the products of one word, by a dot product, then of the other."""

    of_words: DotProduct = field(default=PlainInt8())

    def add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """The first two sums are of the first row; the first and the third are of the first output feature."""
        for word in (0, 1):
            of_row = self.of_words.x(emit, picked(emit, x, [word, word, 2 + word, 2 + word]))
            of_feature = self.of_words.weights(emit, picked(emit, weights, [word, 2 + word, word, 2 + word]))
            accumulator = self.of_words.add(emit, of_row, of_feature, accumulator)
        return accumulator


def picked(emit: Any, words: Value, lanes: list[int]) -> Value:
    """These lanes of every four."""
    picks = [first + lane for first in range(0, LANES, 4) for lane in lanes]
    return emit.builder.shuffle_vector(words, words, ir.Constant(WORDS, picks))


def plain_of(target: Target) -> Target:
    """A target with the dot products that all can have, which keep rows of int8 in bytes, and nothing else."""
    changes: dict[str, Any] = {"int8_dot_product": PlainInt8(), "bfloat16_dot_product": WidenedBfloat16()}
    changes |= dict.fromkeys(("matrix_unit", "int8_pair_product", "bfloat16_pair_product"))
    return replace(target, name=f"{target.name}-plain", **changes)


def paired_of(plain: Target) -> Target:
    """The same with pair products."""
    in_int8, in_bfloat16 = PlainPairs(), PlainPairs(of_words=WidenedBfloat16())
    return replace(plain, name=f"{plain.name}-pairs", int8_pair_product=in_int8, bfloat16_pair_product=in_bfloat16)


@pytest.fixture(scope="module", params=WIDTHS.values(), ids=list(WIDTHS))
def plain(request: pytest.FixtureRequest) -> Target:
    """A target of each width of vectors, without pair products."""
    return plain_of(request.param)


@FORMATS
@pytest.mark.parametrize("depth", [1, 8, 12, 64, 1032])
def test_products_in_pairs(depth: int, weight_format: WeightFormat, plain: Target) -> None:
    for rows in (1, *range(plain.tile_rows, 2 * plain.tile_rows + 2), 100):
        inputs = INPUTS[weight_format](rows, depth, plain)
        found = product(weight_format, paired_of(plain), inputs)
        assert same_bits(found, product(weight_format, plain, inputs))
        if weight_format is INT8 and depth < 256:  # sums are whole numbers that float32 holds
            assert np.array_equal(found, exact_int8(*inputs).astype(np.float32))


@pytest.mark.parametrize(
    ("weight_format", "tiles", "steps", "used"), [(INT8, 1, 16, 0), (INT8, 2, 16, 16), (BFLOAT16, 2, 5, 0)]
)
def test_weights_are_arranged_for_several_tiles_of_even_depth(
    weight_format: WeightFormat, tiles: int, steps: int, used: int, plain: Target
) -> None:
    values, width = weight_format.values_of_word, plain.panel
    inputs = INPUTS[weight_format](tiles * plain.tile_rows, values * steps, plain)
    scratch = unused_scratch(values * steps, plain)
    product(weight_format, paired_of(plain), inputs, scratch)
    arranged = inputs[1][: values * used].reshape(-1, 2, values, width).transpose(0, 3, 1, 2)
    assert np.array_equal(scratch[:used].view(inputs[1].dtype).reshape(-1), arranged.reshape(-1))
    assert np.isnan(scratch[used:]).all()


@FORMATS
def test_an_encoder_with_pairs(weight_format: WeightFormat, tmp_path: Path) -> None:
    plain = plain_of(next(iter(WIDTHS.values())))
    folder = write_odd_sizes("float16", tmp_path)
    paired = states_of(folder, weight_format.dtype, paired_of(plain), SHORT)
    assert same_bits(paired, states_of(folder, weight_format.dtype, plain, SHORT))


# --- sums that are rounded to odd ---------------------------------------------------------------------------------

ROUNDED = [target for target in RUNNABLE.values() if target.bfloat16_dot_product.rounding]


@pytest.mark.parametrize("target", ROUNDED, ids=lambda target: target.name)
@pytest.mark.parametrize("depth", [1, 8, 64, 1032])
def test_sums_that_are_rounded_to_odd(depth: int, target: Target) -> None:
    for rows in (1, target.tile_rows, target.tile_rows + 1, 100):
        x, weights, bias, *others = bfloat16_inputs(rows, depth, target)
        assert same_bits(product(BFLOAT16, target, (x, weights, bias, *others)), odd_sums(x, weights, bias))


def odd_sums(x: Any, weights: Any, bias: Any) -> Any:
    """What ARM's instructions make of bfloat16 x, (rows, depth), weights, (depth, panel), and a float32 bias."""
    x, weights = (np.pad(values, [(0, 0), (0, values.shape[1] % 2)]) for values in (x, weights.T))
    products = widened(x)[:, None].astype(np.float64) * widened(weights)  # (rows, panel, depth), exact
    sums = np.tile(bias, (len(x), 1))
    for step in range(0, products.shape[2], 2):
        sums = odd_sum(sums, odd_sum(products[:, :, step], products[:, :, step + 1]))
    return sums


def odd_sum(x: Any, y: Any) -> Any:
    """x + y in float32, rounded to odd."""
    x, y = np.float64(x), np.float64(y)
    total = x + y
    part = total - x
    error = (x - (total - part)) + (y - part)  # what float64 does not hold of the sum (Knuth)
    is_even = total.view(np.int64) & 1 == 0
    total = np.where((error != 0) & is_even, np.nextafter(total, np.copysign(np.inf, error)), total)
    bits = total.view(np.int64)
    kept = bits & -(1 << 29)  # of 52 bits of the fraction, float32 has 23
    return (kept | ((bits != kept).astype(np.int64) << 29)).view(np.float64).astype(np.float32)


@pytest.mark.parametrize(("x", "y", "expected"), [
    (1, 2, 3),
    (1, 2**-23, 1 + 2**-23),
    (1, 2**-24, 1 + 2**-23),
    (1, 2**-80, 1 + 2**-23),
    (1, -(2.0**-80), 1 - 2**-24),
    (1 + 2**-23, 2**-24, 1 + 2**-23),
    (1 + 2**-22, -(2.0**-60), 1 + 2**-23),
    (-1, -(2.0**-60), -1 - 2**-23),
])  # fmt: skip
def test_rounding_to_odd(x: float, y: float, expected: float) -> None:
    assert odd_sum(np.array([x]), np.array([y])) == np.float32(expected)
