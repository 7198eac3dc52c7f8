"""bfloat16 and int8: numbers in fewer bits, sums of their products, and whole models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from gte_np.formats import WeightFormat, choose_format
from gte_np.formats.bfloat16 import BFLOAT16, round_to_bfloat16
from gte_np.formats.int8 import FACTORS, INT8, SCALE, quantize_tokens
from gte_np.kernels.language.types import LANES, Pointer, panel_pointer
from gte_np.kernels.operations.activations import write_operand
from gte_np.kernels.operations.linear import linear_panel
from gte_np.kernels.operations.matmul import Linear, Matrix, Operand
from gte_np.kernels.runtime.compile import entries
from gte_np.kernels.runtime.feature_order import natural_order, order_panels, order_rows
from gte_np.kernels.targets import Target
from gte_np.kernels.targets.arm import NEON, NEON_BF16, NEON_DOTPROD, NEON_I8MM
from gte_np.kernels.targets.dot_products import (
    DotInt8,
    DotProduct,
    PairsOfBytes,
    PlainInt8,
    SignedDotInt8,
    WidenedBfloat16,
)
from gte_np.kernels.targets.host import host_target
from gte_np.kernels.targets.matrix_units import TILE, UNIT_ROWS
from tests.checkpoints import to_stored
from tests.compiled import FLOATS, INTEGER, assembly, compiled, same_bits
from tests.test_kernels import gelu_in_place

random = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    """Normally distributed float32."""
    return random.standard_normal(shape, dtype=np.float32)


# --- numbers ------------------------------------------------------------------------------------------------------


def test_every_bfloat16_is_itself_and_halves_go_to_even() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = (bits.astype(np.uint32) << 16).view(np.float32)
    finite = np.isfinite(values)
    assert np.array_equal(round_to_bfloat16(values[finite]), bits[finite])
    halves = ((bits[finite].astype(np.uint32) << 16) + 0x8000).view(np.float32)
    assert np.array_equal(round_to_bfloat16(halves), bits[finite] + (bits[finite] & 1))


def test_quantised_rows_are_within_half_a_step() -> None:
    values = normal(50, 33) * random.lognormal(0, 3, (50, 1)).astype(np.float32)
    values[7] = 0
    encoded = INT8.encode_rows(values)
    integers, scale = encoded[""], encoded[SCALE]
    assert integers.dtype == np.int8
    assert np.abs(integers).max(axis=1).tolist() == [0 if row == 7 else 127 for row in range(50)]
    # Half a step, and roundings of values of 127 steps.
    assert (np.abs(integers * scale[:, None] - values) <= (0.5 + 127 * 2.0**-22) * scale[:, None]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_a_matrix_is_converted_in_parts_as_a_whole(stored: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor, weight_format = to_stored(normal(37, 20), stored), choose_format(dtype, stored)
    whole = weight_format.of(tensor)
    monkeypatch.setattr("gte_np.formats.weight_format.ELEMENTS_AT_ONCE", 60)
    parts = weight_format.of(tensor)
    assert whole.parts.keys() == parts.parts.keys() == weight_format.part_dtypes.keys()
    for suffix, part in whole.parts.items():
        assert part.dtype == parts.parts[suffix].dtype == weight_format.part_dtypes[suffix]
        assert np.array_equal(part.data, parts.parts[suffix].data)
    assert weight_format.of(whole) is whole
    error = np.abs(whole.to_float32() - tensor.to_float32()).max()
    assert error <= (0 if stored == dtype else 4 * 2.0**-9 if dtype == "bfloat16" else 4 / 127)


# --- rows of x ----------------------------------------------------------------------------------------------------


def _write(weights: Pointer, row: Pointer, width: int, words: Pointer, factors: Pointer) -> None:
    write_operand(weights, row, width, Operand(Matrix(words, width), factors), 0)


@cache
def _write_of(weight_format: WeightFormat, target: Target) -> Callable[..., None]:
    return compiled(_write, panel_pointer(weight_format, target), FLOATS, INTEGER, FLOATS, FLOATS, target=target)


def written(weight_format: WeightFormat, row: Any, target: Target) -> tuple[Any, Any]:
    """What the kernel makes of a row: its values in fewer bits, and their factors."""
    width = -(-row.size // LANES) * LANES
    source = np.zeros(width, np.float32)
    source[: row.size] = row
    words = width // weight_format.values_of_word
    found, factors = np.full(words + 1, np.nan, np.float32), np.full(FACTORS, np.nan, np.float32)
    _write_of(weight_format, target)(0, source, row.size, found, factors)
    assert np.isnan(found[-1])
    return found[:-1].view({2: np.uint16, 4: np.uint8}[weight_format.values_of_word])[: row.size], factors


@pytest.mark.parametrize("size", [1, 15, 16, 33, 312])
def test_rows_are_rounded_to_bfloat16(size: int, target_of_width: Target) -> None:
    row = normal(size) * random.lognormal(0, 9, size).astype(np.float32)
    assert np.array_equal(written(BFLOAT16, row, target_of_width)[0], round_to_bfloat16(row))


def rows_to_quantise() -> list[Any]:
    """Ordinary rows, and those that are awkward to quantise."""
    rows = [normal(size) for size in (1, 15, 16, 17, 312, 1024)]
    rows += [np.abs(normal(40)), -np.abs(normal(40)), np.zeros(20), np.full(40, 3.0), np.full(40, -3.0)]
    one, two, both = normal(50), normal(50), normal(50)
    one[17] = 40  # an outlier, two of them in the same lane and in different ones, and two of opposite signs
    two[[3, 3 + LANES]] = -40
    both[[5, 22]] = 40, -40
    tied = normal(50)
    tied[[5, 22]] = 40
    lonely = np.zeros(33)
    lonely[32] = -1e-3
    return [np.float32(row) for row in (*rows, one, two, both, tied, lonely, normal(64) * 1e-38, normal(64) * 1e30)]


@pytest.mark.parametrize("number", range(len(rows_to_quantise())))
def test_rows_are_quantised_to_within_half_a_step_but_for_one_value(number: int, target_of_width: Target) -> None:
    row = rows_to_quantise()[number]
    integers, (scale, zero, rest, place) = written(INT8, row, target_of_width)
    values = scale.astype(np.float64) * (integers.astype(np.float64) - zero)
    values[int(place)] += np.float64(scale) * rest
    # Half a step, and roundings of values of up to 255 steps.
    assert np.abs(values - row).max() <= (0.5 + 255 * 2.0**-22) * scale + 2.0**-22 * np.abs(row).max()
    others = np.delete(row, int(place))
    spread = max(others.max(initial=0), 0) - min(others.min(initial=0), 0)
    assert scale == pytest.approx(spread / 255 if spread / 255 >= 1e-30 else 1, rel=1e-6)


def test_the_reference_quantises_as_the_kernel_does(target_of_width: Target) -> None:
    for row in rows_to_quantise():
        integers, factors = written(INT8, row, target_of_width)
        tokens = quantize_tokens(row[None])
        if abs(row).max() < 1e-30 or np.sum(abs(row) == abs(row).max()) > 1:  # any of the largest may be the outlier
            continue
        assert factors[3] == tokens.outlier[0]
        assert factors[:2] == pytest.approx([tokens.scale[0, 0], tokens.zero[0, 0]], rel=1e-6)
        assert np.abs(integers - tokens.integers[0]).max() <= 1  # where a half is rounded
        assert factors[2] + integers[tokens.outlier[0]] == pytest.approx(
            tokens.rest[0, 0] + tokens.integers[0, tokens.outlier[0]], rel=1e-5
        )


def test_nan_stays_nan(target_of_width: Target) -> None:
    for place in (0, 20, 39):
        row = normal(40)
        row[place] = np.nan
        assert np.isnan(written(INT8, row, target_of_width)[1][0])
        bits = written(BFLOAT16, row, target_of_width)[0].astype(np.uint32) << 16
        assert np.isnan(bits.view(np.float32)[place])


# --- products -----------------------------------------------------------------------------------------------------


def row_counts(target: Target) -> list[int]:
    """Numbers of rows: all up to a tile and one, those around a matrix unit's tiles, and many."""
    return [*range(1, target.tile_rows + 2), TILE, TILE + 1, UNIT_ROWS, UNIT_ROWS + 1, 100]


def _linear(
    rows: int,
    x: Pointer,
    stride: int,
    factors: Pointer,
    panel: Pointer,
    bias: Pointer,
    constants: Pointer,
    constant_rows: int,
    steps: int,
    gelu: int,
    out: Pointer,
    out_stride: int,
    scratch: Pointer,
) -> None:
    operand = Operand(Matrix(x, stride), factors)
    linear = Linear(panel, bias, constants, constant_rows, steps, gelu)
    linear_panel(rows, operand, linear, Matrix(out, out_stride), scratch)


@cache
def linear_of(weight_format: WeightFormat, target: Target) -> Callable[..., None]:
    """`linear_panel` for packed weights."""
    operand = INTEGER, FLOATS, INTEGER, FLOATS
    linear = panel_pointer(weight_format, target), FLOATS, FLOATS, INTEGER, INTEGER, INTEGER
    return compiled(_linear, *operand, *linear, FLOATS, INTEGER, FLOATS, target=target)


def unused_scratch(depth: int, target: Target) -> Any:
    """Memory for a widened panel, and a row behind it; that of an encoder is at least a panel deep."""
    return np.full((max(depth, target.panel, 2 * UNIT_ROWS + 1) + 1, target.panel), np.nan, np.float32)


def product(
    weight_format: WeightFormat, target: Target, inputs: tuple[Any, ...], scratch: Any = None, gelu: bool = False
) -> Any:
    """What the kernel computes of rows and a panel, (rows, depth) and (depth, panel), both in few bits."""
    x, weights, bias, factors, constants = inputs
    (rows, depth), width = x.shape, target.panel
    values, steps = weight_format.values_of_word, weight_format.steps(depth)
    source = np.zeros((rows + TILE, (steps + 3) * values), x.dtype)  # a matrix unit reads rows behind the last one
    source[:rows, :depth] = x
    source = source.view(np.uint32)
    panel = np.zeros((steps * values, width), weights.dtype)
    panel[:depth] = weights
    panel = np.ascontiguousarray(panel.reshape(steps, values, width).transpose(0, 2, 1))
    out = np.full((rows + 1, width), np.nan, np.float32)
    scratch = unused_scratch(depth, target) if scratch is None else scratch
    rows_of_constants = weight_format.constant_rows(depth)
    if weight_format.orders_features(target):
        panel, order = in_order(np.ascontiguousarray(panel).view(np.uint32).reshape(1, -1, target.panel), target)
        constants = np.concatenate([constants, order[0]])
        rows_of_constants = len(constants)
    run = linear_of(weight_format, target)
    operand, layer = (rows, source, source.shape[1], factors), (bias, constants, rows_of_constants, steps, gelu)
    run(*operand, panel, *layer, out, width, scratch)
    assert np.isnan(out[-1]).all()
    assert np.isnan(scratch[-1]).all()
    return out[:rows]


@cache
def order_of(target: Target) -> Callable[..., None]:
    entry = entries(target)["order_features"]
    return compiled(entry.function, *entry.arguments, target=target)


def in_order(words: Any, target: Target) -> tuple[Any, Any]:
    """(panels, steps, width) words in their orders, and those. Fail unless the inverse gives the words."""
    panels, steps, width = words.shape
    found, orders = np.zeros_like(words), np.full((panels, order_rows(steps, width), width), np.nan, np.float32)
    order_panels(order_of(target), words, found, orders)
    assert np.array_equal(natural_order(found, orders), words)
    return found, orders


def int8_inputs(rows: int, depth: int, target: Target, extreme: bool = False) -> tuple[Any, ...]:
    """x, weights, bias, factors and constants, with sums of products that are whole numbers."""
    width = target.panel
    if extreme:  # a pair of products is 2 * 255 * 127, which 16 bits do not hold
        x, weights = np.full((rows, depth), 255, np.uint8), np.full((depth, width), -127, np.int8)
        weights[:, ::2] = 127
    else:
        x = random.integers(0, 256, (rows, depth), np.uint8)
        weights = random.integers(-127, 128, (depth, width)).astype(np.int8)
    zero, rest, place = (random.integers(0, end, rows) for end in (256, 9, depth))
    factors = np.stack([np.exp2(random.integers(-4, 4, rows)), zero, rest, place], axis=1).astype(np.float32)
    constants = np.stack([np.exp2(random.integers(-4, 4, width)), weights.sum(axis=0, dtype=np.int64)])
    return x, weights, random.integers(-9, 9, width).astype(np.float32), factors, constants.astype(np.float32)


def exact_int8(x: Any, weights: Any, bias: Any, factors: Any, constants: Any) -> Any:
    """The same in float64."""
    scale, zero, rest, place = factors.astype(np.float64).T[..., None]
    w = weights.astype(np.float64)
    sums = x.astype(np.float64) @ w - zero * w.sum(axis=0) + rest * w[place[:, 0].astype(int)]
    return sums * scale * constants[0] + bias


@pytest.mark.parametrize("depth", [1, 3, 4, 7, 64, 312, 4096])
@pytest.mark.parametrize("extreme", [False, True])
def test_int8_products(depth: int, extreme: bool, target: Target) -> None:
    for rows in row_counts(target):
        inputs = int8_inputs(rows, depth, target, extreme)
        found = product(INT8, target, inputs)
        exact = exact_int8(*inputs)
        if depth < 256:  # whole numbers below 2^24 times powers of two: only adding the bias rounds
            assert np.array_equal(found, exact.astype(np.float32))
        # Else there is a rounding of a sum, of 4 bytes a product at most, and of it minus zero's part.
        bound = 2.0**-22 * 256 * 127 * depth * inputs[3][:, :1] * inputs[4][0]
        assert (np.abs(found - exact) <= bound).all()


@pytest.mark.parametrize("weight_format", [INT8, BFLOAT16], ids=lambda each: each.name)
@pytest.mark.parametrize("depth", [64, 312, 4096])
def test_gelu_after_a_product(depth: int, weight_format: WeightFormat, target: Target) -> None:
    """Whatever computes it, and for however many rows: the same bits as of each value by itself."""
    inputs_of = int8_inputs if weight_format is INT8 else bfloat16_inputs
    for rows in row_counts(target):
        inputs = inputs_of(rows, depth, target)
        inputs[-1][0] *= 2.0**-18  # the scales of weights in int8, so that results are small
        expected = product(weight_format, target, inputs)
        gelu_in_place(target)(0, rows, expected, expected.shape[1])
        assert same_bits(product(weight_format, target, inputs, gelu=True), expected)


def int8_dot_products() -> dict[str, DotProduct]:
    """All ways to multiply bytes that this processor has."""
    here = host_target()
    ways: dict[str, DotProduct] = {"plain": PlainInt8()}
    widths = [lanes for lanes in (4, 8, 16) if lanes <= here.vector_width]
    if here.machine == "x86_64":
        ways |= {f"pairs of bytes, {lanes} lanes": PairsOfBytes(lanes, 2) for lanes in widths}
    if isinstance(here.int8_dot_product, DotInt8):
        ways |= {f"dot, {lanes} lanes": DotInt8(lanes) for lanes in widths}
    if "dotprod" in here.features:
        ways["signed dot"] = SignedDotInt8()
    return ways


@pytest.mark.parametrize("name", int8_dot_products())
def test_all_dot_products_of_int8_give_the_same_bits(name: str) -> None:
    best = replace(host_target(), name="with dot products alone", matrix_unit=None, int8_pair_product=None)
    other = replace(best, name=f"with {name}", int8_dot_product=int8_dot_products()[name])
    for rows, depth in ((1, 7), (best.tile_rows, 384), (100, 1030)):
        for extreme in (False, True):
            inputs = int8_inputs(rows, depth, best, extreme)
            assert same_bits(product(INT8, other, inputs), product(INT8, best, inputs))


# In the loop for each number of rows, four for each row; in that for each number of pairs, eight for each pair.
IN_LOOPS = 4 * (1 + 2 + 3 + 4 + 5 + 6)
IN_LOOPS_OF_PAIRS = 8 * (1 + 2 + 3)


@pytest.mark.parametrize(("target_of_arm", "weight_format", "instructions"), [
    (NEON_BF16, BFLOAT16, {"bfdot", "bfmmla"}),
    (NEON_I8MM, BFLOAT16, set()),
    (NEON_I8MM, INT8, {"sdot", "usmmla"}),
    (NEON_DOTPROD, INT8, {"sdot"}),
    (NEON, INT8, set()),
])  # fmt: skip
def test_arm_gets_its_instructions(
    target_of_arm: Target, weight_format: WeightFormat, instructions: set[str]
) -> None:
    text = assembly(entries(target_of_arm)[f"encode_{weight_format.name}"], target_of_arm)
    counts = {name: text.count(f"\t{name}\t") for name in ("bfdot", "bfmmla", "sdot", "usmmla")}
    assert {name for name, count in counts.items() if count} == instructions
    for name in instructions:
        assert counts[name] >= (IN_LOOPS_OF_PAIRS if name.endswith("mmla") else IN_LOOPS)


def bfloat16_inputs(rows: int, depth: int, target: Target) -> tuple[Any, ...]:
    """x, weights, bias; there are no factors and no constants."""
    x, weights = (round_to_bfloat16(normal(*shape)) for shape in ((rows, depth), (depth, target.panel)))
    return x, weights, normal(target.panel), np.zeros(1, np.float32), np.zeros(1, np.float32)


@pytest.mark.parametrize("depth", [1, 2, 7, 64, 312, 4096])
def test_bfloat16_products(depth: int, target: Target) -> None:
    for rows in row_counts(target):
        inputs = bfloat16_inputs(rows, depth, target)
        x, weights = ((values.astype(np.uint32) << 16).view(np.float32).astype(np.float64) for values in inputs[:2])
        bias = inputs[2]
        # As in test_kernels: roundings add up at random.
        bound = 2 * 2.0**-24 * (depth**0.5 + 1) * (np.abs(x) @ np.abs(weights) + np.abs(bias))
        assert (np.abs(product(BFLOAT16, target, inputs) - (x @ weights + bias)) <= bound).all()


def test_both_dot_products_of_bfloat16_give_the_same_bits() -> None:
    here = host_target()
    best = replace(here, name="with dot products alone", matrix_unit=None, bfloat16_pair_product=None)
    other = replace(best, name="with widened bfloat16", bfloat16_dot_product=WidenedBfloat16())
    if best.bfloat16_dot_product.rounding:
        other = here
    for rows, depth in ((1, 7), (best.tile_rows, 384), (100, 1030)):
        inputs = bfloat16_inputs(rows, depth, best)
        assert same_bits(product(BFLOAT16, other, inputs), product(BFLOAT16, best, inputs))


@pytest.mark.parametrize("weight_format", [BFLOAT16, INT8], ids=lambda weight_format: weight_format.name)
def test_a_row_does_not_depend_on_the_others(weight_format: WeightFormat, target: Target) -> None:
    inputs_of = int8_inputs if weight_format is INT8 else bfloat16_inputs
    x, weights, bias, factors, constants = inputs_of(100, 312, target)
    factors = np.resize(factors, (100, FACTORS))
    whole = product(weight_format, target, (x, weights, bias, factors, constants))
    for rows in row_counts(target):
        some = slice(100 - rows, 100)
        part = product(weight_format, target, (x[some], weights, bias, factors[some].copy(), constants))
        assert same_bits(part, whole[some])
