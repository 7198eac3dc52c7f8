"""The parts of the compiled encoder, each against float64 or the reference.

Each is compiled by itself, see `tests.compiled`, for every target that this processor runs. Memory that must not be
written, or have an influence, holds NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from math import erf as exact_erf
from math import erfc
from typing import Any

import numpy as np
import pytest
from llvmlite import ir
from numba.extending import intrinsic

from gte_np.formats import FORMATS, WeightFormat, choose_format
from gte_np.formats.float_formats import FLOAT32
from gte_np.formats.stored_tensor import StoredTensor
from gte_np.kernels.language.emitter import Emitter
from gte_np.kernels.language.memory import load, offset, store
from gte_np.kernels.language.types import LANES, Pointer, float_vector, panel_pointer
from gte_np.kernels.operations.attention import attend
from gte_np.kernels.operations.attention_head import Head
from gte_np.kernels.operations.functions import EXP2_HIGHEST, EXP2_LOWEST, emit_erf, emit_gelu, exp2
from gte_np.kernels.operations.layer_norm import Norm, add_embeddings, add_row, normalize_row
from gte_np.kernels.operations.linear import gelu_block, linear_panel
from gte_np.kernels.operations.matmul import Linear, Matrix, Operand
from gte_np.kernels.operations.records import LAYOUT
from gte_np.kernels.runtime.compile import entries
from gte_np.kernels.runtime.packed_weights import Sizes, padded
from gte_np.kernels.runtime.workspace import attention_scratch, scratch_size
from gte_np.kernels.targets import TARGETS, Target
from gte_np.reference.attention import attend as attend_by_reference
from gte_np.reference.layer_norm import layer_norm
from tests.checkpoints import to_stored
from tests.compiled import FLOATS, INTEGER, compiled, framed, inside, same_bits

PRECISIONS = ("float32", "float16", "bfloat16")
ROUNDING = 2.0**-24  # of one float32 operation, relative to its result

random = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    """Random float32."""
    return random.standard_normal(shape, dtype=np.float32)


def widths_padded(x: Any, multiple: int) -> Any:
    """The rows of x, padded with zeros to a multiple of so many values."""
    return np.pad(x, ((0, 0), (0, -x.shape[1] % multiple)))


# --- functions of vectors -----------------------------------------------------------------------------------------


@cache
def lanewise(function: Callable[..., Any], target: Target) -> Callable[[Any], Any]:
    """A function of vectors as a function of arrays."""

    def apply(x: Pointer, out: Pointer, count: int) -> None:
        for index in range(0, count, LANES):
            store(out, index, function(load(x, index)))

    run = compiled(apply, FLOATS, FLOATS, INTEGER, target=target)

    def of_array(x: Any) -> Any:
        x = np.asarray(x, np.float32)
        source = np.resize(x, padded(x.size, LANES))
        out = np.empty_like(source)
        run(source, out, source.size)
        return out[: x.size]

    return of_array


def emitted(emit: Callable[[Emitter, list[ir.Value]], list[ir.Value]]) -> Any:
    """What is emitted for several vectors, as a function of one."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return emit(Emitter(builder), list(arguments))[0]

    return intrinsic(lambda typing, x: (float_vector(float_vector), codegen))


ERF, GELU = emitted(emit_erf), emitted(emit_gelu)


def floats(first: float, last: float, every: int = 1) -> Any:
    """Every so-manieth float32 from `first` to `last`, which have the same sign."""
    low, high = sorted(int(np.float32(end).view(np.uint32)) for end in (first, last))
    return np.arange(low, high + 1, every, dtype=np.uint32).view(np.float32)


@pytest.mark.parametrize(
    ("first", "last", "every"),
    [(-126, -64, 1), (-1, -0.25, 1), (0.25, 1, 1), (64, 127, 1), (-126, -0.0, 499), (0, 127, 499)],
)
def test_exp2_within_2e_7(first: float, last: float, every: int, target_of_width: Target) -> None:
    x = floats(first, last, every)
    assert np.abs(lanewise(exp2, target_of_width)(x) / np.exp2(x.astype(np.float64)) - 1).max() < 2e-7


def test_exp2_at_and_beyond_the_ends_of_its_range(target_of_width: Target) -> None:
    at_end, *below = lanewise(exp2, target_of_width)([EXP2_LOWEST, -126.5, -127.8, -1e30, -np.inf])
    assert at_end == 2.0**-126
    assert below == [at_end] * 4
    assert lanewise(exp2, target_of_width)([EXP2_HIGHEST])[0] == 2.0**127
    assert lanewise(exp2, target_of_width)([0.0, -0.0]).tolist() == [1, 1]
    assert np.isnan(lanewise(exp2, target_of_width)([np.nan, -np.nan])).all()


def test_erf_within_3e_7(target_of_width: Target) -> None:
    largest = np.finfo(np.float32).max
    sides = [floats(0, largest, 1999), floats(-0.0, -largest, 1999)]
    x = np.concatenate([*sides, np.linspace(-6, 6, 1_000_001, dtype=np.float32)])
    exact = np.array([exact_erf(value) for value in x.tolist()])
    assert np.abs(lanewise(ERF, target_of_width)(x) - exact).max() < 3e-7
    assert lanewise(ERF, target_of_width)([np.inf, -np.inf]) == pytest.approx([1, -1], abs=3e-7)
    assert np.isnan(lanewise(ERF, target_of_width)([np.nan])).all()


def test_gelu_within_3e_7_of_x(target_of_width: Target) -> None:
    # x / 2 times the errors of erf, 3e-7, of its argument, 2^-24 at most, and of erf + 1, 2^-24; then 2^-24 x of the
    # product: in all 2.7e-7 x. Twice the largest x must be finite, as in the reference.
    largest = np.finfo(np.float32).max / 2
    sides = [floats(0, largest, 1999), floats(-0.0, -largest, 1999)]
    x = np.concatenate([*sides, np.linspace(-9, 9, 1_000_001, dtype=np.float32)])
    exact = np.array([value * 0.5 * erfc(-value / 2**0.5) for value in x.tolist()])
    bound = 3e-7 * np.abs(x.astype(np.float64)) + np.finfo(np.float32).smallest_subnormal
    assert (np.abs(lanewise(GELU, target_of_width)(x) - exact) <= bound).all()
    assert np.isnan(lanewise(GELU, target_of_width)([np.nan])).all()


def _gelu(weights: Pointer, rows: int, x: Pointer, stride: int) -> None:
    gelu_block(weights, rows, Matrix(x, stride))


@cache
def gelu_in_place(target: Target) -> Callable[..., None]:
    """Gelu of rows as wide as a panel."""
    return compiled(_gelu, panel_pointer(FLOAT32, target), INTEGER, FLOATS, INTEGER, target=target)


@pytest.mark.parametrize("rows", [1, 2, 3, 14])
def test_gelu_of_the_rows_of_a_panel(rows: int, target_of_width: Target) -> None:
    """A few rows at a time, the last one again where there are fewer; each value once, and nothing beside them."""

    x = 3 * normal(rows, target_of_width.panel)
    frame = framed(x)
    gelu_in_place(target_of_width)(0, rows, frame, frame.shape[1])
    assert same_bits(inside(frame, *x.shape), lanewise(GELU, target_of_width)(x.ravel()).reshape(x.shape))


# --- weights in memory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [np.int32, np.int16])
def test_words_are_packed_in_panels_and_nothing_else_is_written(word: type[Any], target: Target) -> None:
    panel, kind = target.panel, np.dtype(word)
    pack, arguments = entries(target)[f"pack_{kind.itemsize}_bytes"]
    run = compiled(pack, *arguments, target=target)
    sizes = (1, 3, LANES - 1, LANES, LANES + 1, panel, panel + 5, 2 * panel + LANES)
    for outputs, steps in [(outputs, steps) for outputs in sizes for steps in sizes]:
        source = np.arange(1, 1 + (outputs + 1) * (steps + 2), dtype=kind).reshape(outputs + 1, steps + 2)
        expected = np.zeros((padded(outputs, panel), steps + 1), kind)  # with room behind each panel
        expected[:outputs, :steps] = source[:outputs, :steps]
        panels = np.zeros((padded(outputs, panel) // panel, steps + 1, panel), kind)
        run(source, panels, np.array([(outputs, steps, steps + 2, panels[0].size, panel)], LAYOUT))
        assert np.array_equal(panels.transpose(0, 2, 1).reshape(expected.shape), expected)


# --- the matrix product -------------------------------------------------------------------------------------------

MANY_ROWS = 100  # of several tiles, the first of which widens 16-bit weights for the others


def row_counts(target: Target) -> list[int]:
    """Numbers of rows: all up to two tiles and one, and many."""
    return [*range(1, 2 * target.tile_rows + 2), MANY_ROWS]


def _linear(
    rows: int,
    x: Pointer,
    x_stride: int,
    panel: Pointer,
    depth: int,
    bias: Pointer,
    out: Pointer,
    out_stride: int,
    scratch: Pointer,
) -> None:
    operand = Operand(Matrix(x, x_stride), bias)  # float32 has no factors, and no constants
    linear_panel(rows, operand, Linear(panel, bias, bias, 0, depth, 0), Matrix(out, out_stride), scratch)


@cache
def linear_of(weight_format: WeightFormat, target: Target) -> Callable[..., None]:
    """`linear_panel` for weights in a format."""
    weights = panel_pointer(weight_format, target)
    return compiled(_linear, *_types("i p i"), weights, *_types("i p p i p"), target=target)


def _types(letters: str) -> Iterator[Any]:
    return ({"i": INTEGER, "p": FLOATS}[letter] for letter in letters.split())


class Layer:
    """A panel of a linear layer, with weights (depth, panel) that are rounded to a precision."""

    def __init__(self, weights: Any, bias: Any, precision: str, target: Target) -> None:
        self.weights, self.bias = to_stored(weights, precision), bias
        self.run = linear_of(choose_format("float32", precision), target)

    def __call__(self, x: Any, scratch: Any = None) -> Any:
        """x weights + bias, by the kernel."""
        (rows, _), (depth, panel) = x.shape, self.weights.shape
        source, out = framed(x), framed(np.full((rows, panel), np.nan))
        if scratch is None:
            scratch = np.full((depth, panel), np.nan, np.float32)
        self.run(rows, source, source.shape[1], self.weights.data, depth, self.bias, out, out.shape[1], scratch)
        return inside(out, rows, panel)


def random_layer(depth: int, precision: str, target: Target) -> Layer:
    """Normally distributed weights."""
    return Layer(normal(depth, target.panel), normal(target.panel), precision, target)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_every_finite_weight_of_16_bits_is_widened_exactly(precision: str, target: Target) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):  # some processors warn of NaN
        exact = bits.view(np.float16).astype(np.float32)
    if precision == "bfloat16":
        exact = (bits.astype(np.uint32) << 16).view(np.float32)
    layer = random_layer(bits.size // target.panel, precision, target)
    layer.weights = StoredTensor(precision, bits.view(layer.weights.data.dtype).reshape(layer.weights.shape))
    widened = np.full(bits.size, np.nan, np.float32)
    layer(np.zeros((MANY_ROWS, layer.weights.shape[0]), np.float32), widened)
    finite = np.isfinite(exact)
    assert same_bits(widened[finite], exact[finite])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("depth", [1, 7, 16, 33, 312, 1024])
def test_products_of_whole_numbers_are_exact(precision: str, depth: int, target: Target) -> None:
    for rows in row_counts(target):  # 1024 products of up to 64: all sums are whole numbers that float32 has
        shapes = (rows, depth), (depth, target.panel), (target.panel,)
        x, weights, bias = (random.integers(-8, 9, shape).astype(np.float32) for shape in shapes)
        assert np.array_equal(Layer(weights, bias, precision, target)(x), x.astype(int) @ weights.astype(int) + bias)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("depth", [1, 7, 16, 33, 312, 1024])
def test_products_against_float64(precision: str, depth: int, target: Target) -> None:
    for rows in (1, target.tile_rows + 1, MANY_ROWS):
        x, layer = normal(rows, depth), random_layer(depth, precision, target)
        rounded = layer.weights.to_float32()
        exact = x.astype(np.float64) @ rounded + layer.bias
        # Twice what is likely: roundings add up at random, to the square root of their number. There are two for each
        # product where the processor has no FMA.
        bound = 2 * ROUNDING * (depth**0.5 + 1) * (np.abs(x) @ np.abs(rounded) + np.abs(layer.bias))
        assert (np.abs(layer(x) - exact) <= bound).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_of_a_product_does_not_depend_on_the_others(precision: str, target: Target) -> None:
    for depth in (7, 312):
        x, layer = normal(MANY_ROWS, depth), random_layer(depth, precision, target)
        whole = layer(x)
        alone = np.concatenate([layer(row[None]) for row in x])
        assert same_bits(alone, whole)
        for rows in row_counts(target):
            first = int(random.integers(MANY_ROWS - rows + 1))
            some = slice(first, first + rows)
            assert same_bits(layer(x[some]), whole[some])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_16_bit_weights_are_widened_for_many_rows_and_the_product_is_the_same(precision: str, target: Target) -> None:
    for depth in (7, 312):
        x, layer = normal(MANY_ROWS, depth), random_layer(depth, precision, target)
        wide = layer.weights.to_float32()
        few, many = (framed(np.full(wide.shape, np.nan), 3, 0) for _ in range(2))
        some, every = layer(x[: target.tile_rows], few), layer(x, many)
        assert np.isnan(few).all()
        if precision == "float32":
            assert np.isnan(many).all()
        else:
            assert same_bits(inside(many, *wide.shape), wide)
        assert same_bits(some, every[: target.tile_rows])
        assert same_bits(every, Layer(wide, layer.bias, "float32", target)(x))


# --- attention ----------------------------------------------------------------------------------------------------

HEAD_SIZES = (26, 32, 64, 80)
TEXT_LENGTHS = (1, 2, 15, 16, 17, 31, 32, 33, 100)
# Values of normal size, averaged with weights whose scores are sums of up to 80 products: roundings of those, of exp
# and of two sums, each below 1e-6 and most far below.
ATTENTION = 3e-6


def _attend(
    weights: Pointer,
    queries: int,
    query: Pointer,
    keys: int,
    key: Pointer,
    value: Pointer,
    stride: int,
    head_size: int,
    head_width: int,
    out: Pointer,
    out_stride: int,
    scratch: Pointer,
) -> None:
    q, k, v = Matrix(query, stride), Matrix(key, stride), Matrix(value, stride)
    attend(weights, Head(queries, keys, q, k, v, Matrix(out, out_stride), head_size, head_width), scratch)


@cache
def attend_of(target: Target, weight_format: WeightFormat) -> Callable[..., None]:
    """`attend`, compiled."""
    return compiled(_attend, panel_pointer(weight_format, target), *_types("i p i p p i i i p i p"), target=target)


def attention(query: Any, key: Any, value: Any, target: Target, weight_format: WeightFormat = FLOAT32) -> Any:
    """Attention in one head, by the kernel: (queries, K), (keys, K), (keys, K) -> (queries, K)."""
    (queries, size), keys = query.shape, len(key)
    width = padded(size, target.panel)
    q, k, v = (framed(widths_padded(x, target.panel), rows=LANES) for x in (query, key, value))
    out = framed(np.full((queries, width), np.nan))
    length = attention_scratch(keys, width, weight_format, target)
    scratch = np.full(length + 2 * target.panel, np.nan, np.float32)
    attend_of(target, weight_format)(0, queries, q, keys, k, v, q.shape[1], size, width, out, out.shape[1], scratch)
    assert np.isnan(scratch[length:]).all()
    result = inside(out, queries, width)
    assert not result[:, size:].any()
    return result[:, :size]


def attention_in_float64(query: Any, key: Any, value: Any) -> Any:
    """The same by the reference."""
    q, k, v = (x.astype(np.float64) for x in (query, key, value))
    return attend_by_reference(q, k, v, heads=1)[0]


@pytest.mark.parametrize("size", HEAD_SIZES)
def test_attention_of_every_token(size: int, target: Target) -> None:
    for tokens in TEXT_LENGTHS:
        query, key, value = (normal(tokens, size) for _ in range(3))
        error = attention(query, key, value, target) - attention_in_float64(query, key, value)
        assert np.abs(error).max() < ATTENTION


@pytest.mark.parametrize("size", HEAD_SIZES)
def test_attention_of_some_tokens(size: int, target: Target) -> None:
    for queries, keys in ((1, 2), (1, 100), (2, 17), (13, 16), (15, 33), (16, 31), (17, 100), (31, 32)):
        query, key, value = normal(queries, size), normal(keys, size), normal(keys, size)
        error = attention(query, key, value, target) - attention_in_float64(query, key, value)
        assert np.abs(error).max() < ATTENTION


@pytest.mark.parametrize("size", HEAD_SIZES)
def test_the_attention_of_a_token_does_not_depend_on_the_other_queries(size: int, target: Target) -> None:
    for keys in TEXT_LENGTHS:
        query, key, value = (normal(keys, size) for _ in range(3))
        whole = attention(query, key, value, target)
        for first, last in ((0, 1), (keys - 1, keys), (keys // 3, keys), (0, keys // 2 + 1)):
            assert same_bits(attention(query[first:last], key, value, target), whole[first:last])


def test_attention_to_a_single_token_is_its_value(target: Target) -> None:
    query, key, value = (normal(1, 32) * 100 for _ in range(3))
    np.testing.assert_allclose(
        attention(query, key, value, target), value, rtol=2.5e-7
    )  # exp2 and a reciprocal, rounded


def test_attention_with_scores_far_apart(target: Target) -> None:
    for tokens in TEXT_LENGTHS:
        query, key, value = normal(tokens, 64) * 40, normal(tokens, 64) * 40, normal(tokens, 64)
        # Scores up to 1e4, which float32 knows to within 1e-3: so well are the weights known, relative to themselves.
        error = attention(query, key, value, target) - attention_in_float64(query, key, value)
        assert np.abs(error).max() < 5e-3


def test_attention_to_equal_tokens_is_their_mean(target: Target) -> None:
    for tokens in TEXT_LENGTHS:
        value = random.integers(-8, 9, (tokens, 32)).astype(np.float32)
        result = attention(normal(3, 32), np.repeat(normal(1, 32), tokens, axis=0), value, target)
        assert np.abs(result - value.mean(axis=0)).max() <= 8 * 2 * ROUNDING  # the sums are exact


def test_attention_of_what_overflows_is_not_finite(target: Target) -> None:
    query, key, value = (normal(20, 32) for _ in range(3))
    query[7] *= np.float32(1e30)
    result = attention(query, key * np.float32(1e30), value, target)
    assert np.isnan(result[7]).all()


@pytest.mark.parametrize("any_target", TARGETS, ids=lambda any_target: any_target.name)
def test_scratch_memory_is_enough_for_attention(any_target: Target) -> None:
    for size in HEAD_SIZES:
        for tokens in (1, 15, 16, 17, 31, 32, 33, 511, 512):
            sizes = Sizes(hidden=2 * size, inner=1, heads=2, panel=any_target.panel)
            for weight_format in FORMATS:
                needed = attention_scratch(tokens, sizes.head_width, weight_format, any_target)
                assert needed <= scratch_size(sizes, tokens, weight_format, any_target)


# --- layer norm ---------------------------------------------------------------------------------------------------

WIDTHS_OF_ROWS = (8, 32, 312, 384)
# Results of normal size, of a mean and a variance whose roundings are below 1e-6; test_reference has the same bound.
NORM = 5e-6


def _add_and_normalize(
    rows: int,
    x: Pointer,
    x_stride: int,
    added: Pointer,
    added_stride: int,
    width: int,
    weight: Pointer,
    bias: Pointer,
    eps: Pointer,
) -> None:
    norm = Norm(weight, bias, width, eps[0])
    for index in range(rows):
        row = offset(x, index * x_stride)
        normalize_row(row, add_row(row, offset(added, index * added_stride), width), norm)


@cache
def add_and_normalize_of(target: Target) -> Callable[..., None]:
    """The residual and the layer norm, compiled."""
    return compiled(_add_and_normalize, *_types("i p i p i i p p p"), target=target)


def norm_weights(width: int) -> tuple[dict[str, Any], Any, Any]:
    """Weight and bias as the reference wants them, and each padded with zeros."""
    weight, bias = 1 + normal(1, width), normal(1, width)
    return {"n.weight": weight[0], "n.bias": bias[0]}, widths_padded(weight, LANES), widths_padded(bias, LANES)


@pytest.mark.parametrize("width", WIDTHS_OF_ROWS)
@pytest.mark.parametrize("eps", [1e-12, 0.5])
def test_add_and_normalize(width: int, eps: float, target_of_width: Target) -> None:
    run = add_and_normalize_of(target_of_width)
    for rows in (1, 5):
        weights, weight, bias = norm_weights(width)
        x, added = normal(rows, width) * 3 + 5, normal(rows, width)
        sums = framed(widths_padded(x, LANES))
        others = framed(widths_padded(added, LANES), columns=9)
        run(rows, sums, sums.shape[1], others, others.shape[1], width, weight, bias, np.array([eps], np.float32))
        result = inside(sums, rows, padded(width, LANES))
        exact = layer_norm((x + added).astype(np.float64), weights, "n", eps)
        assert np.abs(result[:, :width] - exact).max() < NORM
        assert not result[:, width:].any()


@pytest.mark.parametrize("width", WIDTHS_OF_ROWS)
def test_a_mean_far_from_zero_costs_no_more_digits_than_it_must(width: int, target_of_width: Target) -> None:
    weights, weight, bias = norm_weights(width)
    x, added = normal(1, width) * np.float32(0.01) + 2, np.zeros((1, width), np.float32)
    row, other = (framed(widths_padded(values, LANES)) for values in (x, added))
    run = add_and_normalize_of(target_of_width)
    run(1, row, row.shape[1], other, other.shape[1], width, weight, bias, np.array([1e-12], np.float32))
    result = inside(row, 1, padded(width, LANES))
    # The mean, 200 times the deviation, is known to within 2^-23 of it, and each value minus it, too.
    assert np.abs(result[:, :width] - layer_norm(x.astype(np.float64), weights, "n", 1e-12)).max() < 200 * NORM
    assert not result[:, width:].any()


def _embed(row: Pointer, kind: Pointer, position: Pointer, width: int, total: Pointer) -> None:
    total[0] = add_embeddings(row, kind, position, width)


@cache
def embed_of(target: Target) -> Callable[..., None]:
    """`add_embeddings`, compiled."""
    return compiled(_embed, *_types("p p p i p"), target=target)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_embeddings_add_up_and_end_with_zeros(precision: str, target_of_width: Target) -> None:
    for width in WIDTHS_OF_ROWS:
        table = choose_format("float32", precision).of(to_stored(normal(3, width), precision))
        word = table.rows([2, 1]).to_float32()[:1]
        kind, position = (framed(normal(1, width), columns=LANES) for _ in range(2))
        row = np.full((4, padded(width, LANES) + 5), np.nan, np.float32)  # NaN behind the word too
        row[:1, :width] = word
        total = np.empty(1, np.float32)
        embed_of(target_of_width)(row, kind, position, width, total)
        result = inside(row, 1, padded(width, LANES))
        assert total[0] == pytest.approx(result.astype(np.float64).sum(), abs=1e-4)
        assert np.array_equal(result[:, :width], word + kind[:1, :width] + position[:1, :width])
        assert not result[:, width:].any()
