"""bfloat16 and int8: numbers in fewer bits, sums of their products, and whole models."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from gte_np.kernels.narrow import narrow_row
from gte_np.kernels.processor import LANES, processor
from gte_np.kernels.simd import MATRIX_TYPES, Pointer, offset, pointer_to, smaller, values_of_word
from gte_np.low_precision import quantize_rows, round_to_bfloat16, to_dtype
from gte_np.reference.low_precision import quantize_tokens
from llvmlite import ir

from gte_np.kernels import arithmetic, matmul
from gte_np.kernels.operations.matmul import (
    PANEL,
    TILE_ROWS,
    Linear,
    Matrix,
    Operand,
    int8_product,
    linear_panel,
    operand_at,
    tile_product,
)
from tests.checkpoints import to_stored
from tests.compiled import FLOATS, INTEGER, compiled, same_bits

random = np.random.default_rng(0)
FACTORS = 4
VALUES = {"bfloat16x2": 2, "int8x4": 4}
ROWS = (*range(1, TILE_ROWS + 2), 100)


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
    integers, scale = quantize_rows(values)
    assert integers.dtype == np.int8
    assert np.abs(integers).max(axis=1).tolist() == [0 if row == 7 else 127 for row in range(50)]
    # Half a step, and roundings of values of 127 steps.
    assert (np.abs(integers * scale[:, None] - values) <= (0.5 + 127 * 2.0**-22) * scale[:, None]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_a_matrix_is_converted_in_parts_as_a_whole(stored: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = to_stored(normal(37, 20), stored)
    whole = to_dtype(tensor, dtype)
    monkeypatch.setattr("gte_np.low_precision._ELEMENTS_AT_ONCE", 60)
    parts = to_dtype(tensor, dtype)
    assert np.array_equal(whole.data, parts.data)
    assert to_dtype(whole, dtype) is whole
    error = np.abs(whole.to_float32() - tensor.to_float32()).max()
    assert error <= (0 if stored == dtype else 4 * 2.0**-9 if dtype == "bfloat16" else 4 / 127)


# --- rows of x ----------------------------------------------------------------------------------------------------


def _narrow(matrices: Pointer, row: Pointer, width: int, words: Pointer, factors: Pointer) -> None:
    narrow_row(matrices, row, width, Operand(Matrix(words, width), factors), 0)


@cache
def _narrow_of(kind: str) -> Callable[..., None]:
    return compiled(_narrow, pointer_to(MATRIX_TYPES[kind]), FLOATS, INTEGER, FLOATS, FLOATS)


def narrowed(kind: str, row: Any) -> tuple[Any, Any]:
    """What the kernel makes of a row: its values in fewer bits, and their factors."""
    width = -(-row.size // LANES) * LANES
    source = np.zeros(width, np.float32)
    source[: row.size] = row
    values = VALUES[kind]
    words, factors = np.full(width // values + 1, np.nan, np.float32), np.full(FACTORS, np.nan, np.float32)
    _narrow_of(kind)(words, source, row.size, words, factors)
    assert np.isnan(words[-1])
    return words[:-1].view({2: np.uint16, 4: np.uint8}[values])[: row.size], factors


@pytest.mark.parametrize("size", [1, 15, 16, 33, 312])
def test_rows_are_rounded_to_bfloat16(size: int) -> None:
    row = normal(size) * random.lognormal(0, 9, size).astype(np.float32)
    assert np.array_equal(narrowed("bfloat16x2", row)[0], round_to_bfloat16(row))


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
def test_rows_are_quantised_to_within_half_a_step_but_for_one_value(number: int) -> None:
    row = rows_to_quantise()[number]
    integers, (scale, zero, rest, place) = narrowed("int8x4", row)
    values = scale.astype(np.float64) * (integers.astype(np.float64) - zero)
    values[int(place)] += np.float64(scale) * rest
    # Half a step, and roundings of values of up to 255 steps.
    assert np.abs(values - row).max() <= (0.5 + 255 * 2.0**-22) * scale + 2.0**-22 * np.abs(row).max()
    others = np.delete(row, int(place))
    spread = max(others.max(initial=0), 0) - min(others.min(initial=0), 0)
    assert scale == pytest.approx(spread / 255 if spread / 255 >= 1e-30 else 1, rel=1e-6)


def test_the_reference_quantises_as_the_kernel_does() -> None:
    for row in rows_to_quantise():
        integers, factors = narrowed("int8x4", row)
        tokens = quantize_tokens(row[None])
        if abs(row).max() < 1e-30 or np.sum(abs(row) == abs(row).max()) > 1:  # any of the largest may be the outlier
            continue
        assert factors[3] == tokens.outlier[0]
        assert factors[:2] == pytest.approx([tokens.scale[0, 0], tokens.zero[0, 0]], rel=1e-6)
        assert np.abs(integers - tokens.integers[0]).max() <= 1  # where a half is rounded
        assert factors[2] + integers[tokens.outlier[0]] == pytest.approx(
            tokens.rest[0, 0] + tokens.integers[0, tokens.outlier[0]], rel=1e-5
        )


def test_nan_stays_nan() -> None:
    for place in (0, 20, 39):
        row = normal(40)
        row[place] = np.nan
        assert np.isnan(narrowed("int8x4", row)[1][0])
        assert np.isnan((narrowed("bfloat16x2", row)[0].astype(np.uint32) << 16).view(np.float32)[place])


# --- products -----------------------------------------------------------------------------------------------------


def tiles_of(kind: str) -> Callable[..., None]:
    """`linear_panel` for packed weights, as a new function: those of the package are compiled once in a process."""

    def tiles(
        rows: int,
        x: Pointer,
        stride: int,
        factors: Pointer,
        panel: Pointer,
        bias: Pointer,
        scales: Pointer,
        steps: int,
        out: Pointer,
    ) -> None:
        operand, linear = Operand(Matrix(x, stride), factors), Linear(panel, bias, scales, steps, 1)
        for row in range(0, rows, TILE_ROWS):
            height, source = smaller(TILE_ROWS, rows - row), operand_at(operand, row)
            target = Matrix(offset(out, row * PANEL), PANEL)
            if values_of_word(panel) == 4:
                int8_product(height, source, linear, target)
            else:
                tile_product(height, source.words, Matrix(panel, PANEL), steps, bias, target, None)

    return compiled(tiles, *types_of(kind))


def _linear(
    rows: int,
    x: Pointer,
    stride: int,
    factors: Pointer,
    panel: Pointer,
    bias: Pointer,
    scales: Pointer,
    steps: int,
    out: Pointer,
) -> None:
    operand = Operand(Matrix(x, stride), factors)
    linear_panel(rows, operand, Linear(panel, bias, scales, steps, 1), Matrix(out, PANEL), out)


def types_of(kind: str) -> tuple[Any, ...]:
    """Those of the arguments of these functions."""
    matrices = pointer_to(MATRIX_TYPES[kind])
    return INTEGER, FLOATS, INTEGER, FLOATS, matrices, FLOATS, FLOATS, INTEGER, FLOATS


@cache
def compiled_linear(kind: str) -> Callable[..., None]:
    """`linear_panel` for packed weights."""
    return compiled(_linear, *types_of(kind))


def product(run: Callable[..., None], x: Any, weights: Any, bias: Any, factors: Any, scales: Any) -> Any:
    """What the kernel computes of rows and a panel, (rows, depth) and (depth, PANEL), both in few bits."""
    rows, depth = x.shape
    values = 4 // x.itemsize
    steps = -(-depth // values)
    source = np.zeros((rows, (steps + 3) * values), x.dtype)
    source[:, :depth] = x
    panel = np.zeros((steps * values, PANEL), weights.dtype)
    panel[:depth] = weights
    panel = np.ascontiguousarray(panel.reshape(steps, values, PANEL).transpose(0, 2, 1))
    out = np.full((rows + 1, PANEL), np.nan, np.float32)
    run(rows, source, steps + 3, factors, panel, bias, scales, steps, out)
    assert np.isnan(out[-1]).all()
    return out[:rows]


def int8_inputs(rows: int, depth: int, extreme: bool = False) -> tuple[Any, ...]:
    """x, weights, bias, factors and scales, with sums of products that are whole numbers."""
    if extreme:  # a pair of products is 2 * 255 * 127, which 16 bits do not hold
        x, weights = np.full((rows, depth), 255, np.uint8), np.full((depth, PANEL), -127, np.int8)
        weights[:, ::2] = 127
    else:
        x = random.integers(0, 256, (rows, depth), np.uint8)
        weights = random.integers(-127, 128, (depth, PANEL)).astype(np.int8)
    zero, rest, place = (random.integers(0, end, rows) for end in (256, 9, depth))
    factors = np.stack([np.exp2(random.integers(-4, 4, rows)), zero, rest, place], axis=1).astype(np.float32)
    scales = np.stack([np.exp2(random.integers(-4, 4, PANEL)), weights.sum(axis=0, dtype=np.int64)])
    return x, weights, random.integers(-9, 9, PANEL).astype(np.float32), factors, scales.astype(np.float32)


def exact_int8(x: Any, weights: Any, bias: Any, factors: Any, scales: Any) -> Any:
    """The same in float64."""
    scale, zero, rest, place = factors.astype(np.float64).T[..., None]
    w = weights.astype(np.float64)
    sums = x.astype(np.float64) @ w - zero * w.sum(axis=0) + rest * w[place[:, 0].astype(int)]
    return sums * scale * scales[0] + bias


@pytest.mark.parametrize("depth", [1, 3, 4, 7, 64, 312, 4096])
@pytest.mark.parametrize("extreme", [False, True])
def test_int8_products(depth: int, extreme: bool) -> None:
    for rows in ROWS:
        inputs = int8_inputs(rows, depth, extreme)
        found = product(compiled_linear("int8x4"), *inputs)
        exact = exact_int8(*inputs)
        if depth < 256:  # whole numbers below 2^24 times powers of two: only adding the bias rounds
            assert np.array_equal(found, exact.astype(np.float32))
        # Else there is a rounding of a sum, of 4 bytes a product at most, and of it minus zero's part.
        bound = 2.0**-22 * 256 * 127 * depth * inputs[3][:, :1] * inputs[4][0]
        assert (np.abs(found - exact) <= bound).all()


def int8_paths() -> dict[str, arithmetic.Arithmetic]:
    """All ways to multiply bytes that this processor has."""
    here = processor()
    paths: dict[str, arithmetic.Arithmetic] = {"plain": arithmetic.PlainInt8()}
    widths = [lanes for lanes in (4, 8, 16) if lanes <= here.vector_width]
    if here.is_x86:
        paths |= {f"pairs of 16 bits, {lanes} lanes": arithmetic.PairsOfInt16(lanes) for lanes in widths}
    if here.has_dot_int8:
        paths |= {f"dot, {lanes} lanes": arithmetic.DotInt8(lanes) for lanes in widths}
    return paths


@pytest.mark.parametrize("path", int8_paths().values(), ids=int8_paths())
def test_all_paths_of_int8_give_the_same_bits(path: arithmetic.Arithmetic, monkeypatch: pytest.MonkeyPatch) -> None:
    best = compiled_linear("int8x4")  # compiled before another path is put in its place
    monkeypatch.setattr(arithmetic, "_int8_arithmetic", lambda _: path)
    run = tiles_of("int8x4")
    for rows, depth in ((1, 7), (TILE_ROWS, 384), (100, 1030)):
        for extreme in (False, True):
            inputs = int8_inputs(rows, depth, extreme)
            assert same_bits(product(run, *inputs), product(best, *inputs))


def test_arm_gets_its_instruction() -> None:
    words = ir.VectorType(ir.IntType(32), LANES)
    function = ir.Function(ir.Module(), ir.FunctionType(words, [words] * 3), "add")
    builder = ir.IRBuilder(function.append_basic_block())
    value, weights, total = function.args
    builder.ret(arithmetic.SignedDotInt8().add(builder, value, weights, total))
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple("aarch64-unknown-linux-gnu")
    machine = target.create_target_machine(cpu="neoverse-n1", features="+dotprod", opt=2)
    assembly = machine.emit_assembly(llvm.parse_assembly(str(function.module)))
    assert assembly.count("\tsdot\t") == LANES // 4


def bfloat16_inputs(rows: int, depth: int) -> tuple[Any, ...]:
    """x, weights, bias; there are no factors and no scales."""
    x, weights = (round_to_bfloat16(normal(*shape)) for shape in ((rows, depth), (depth, PANEL)))
    return x, weights, normal(PANEL), np.zeros(1, np.float32), np.zeros(1, np.float32)


@pytest.mark.parametrize("depth", [1, 2, 7, 64, 312, 4096])
def test_bfloat16_products(depth: int) -> None:
    for rows in ROWS:
        x, weights, bias, *rest = bfloat16_inputs(rows, depth)
        found = product(compiled_linear("bfloat16x2"), x, weights, bias, *rest)
        wide = [(values.astype(np.uint32) << 16).view(np.float32).astype(np.float64) for values in (x, weights)]
        # As in test_kernels: roundings add up at random.
        bound = 2 * 2.0**-24 * (depth**0.5 + 1) * (np.abs(wide[0]) @ np.abs(wide[1]) + np.abs(bias))
        assert (np.abs(found - (wide[0] @ wide[1] + bias)) <= bound).all()


def test_both_paths_of_bfloat16_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    best = compiled_linear("bfloat16x2")  # compiled before the other path is put in its place
    monkeypatch.setattr(matmul, "arithmetic_of", lambda _: arithmetic.WidenedBfloat16())
    run = tiles_of("bfloat16x2")
    for rows, depth in ((1, 7), (TILE_ROWS, 384), (100, 1030)):
        inputs = bfloat16_inputs(rows, depth)
        assert same_bits(product(run, *inputs), product(best, *inputs))


@pytest.mark.parametrize("kind", VALUES)
def test_a_row_does_not_depend_on_the_others(kind: str) -> None:
    x, weights, bias, factors, scales = (int8_inputs if kind == "int8x4" else bfloat16_inputs)(100, 312)
    factors = np.resize(factors, (100, FACTORS))
    whole = product(compiled_linear(kind), x, weights, bias, factors, scales)
    for rows in ROWS:
        some = slice(100 - rows, 100)
        part = product(compiled_linear(kind), x[some], weights, bias, factors[some].copy(), scales)
        assert same_bits(part, whole[some])
