"""The matrix product: nearly all of the encoder's arithmetic.

A tile of the result stays in registers while one loop runs over the depth of the product: in each step, the words of
a panel's output features are loaded, and the word of each row of x is broadcast and multiplied with them. (Goto and
van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008.)

                    panel: words of 16 or 32 output features
                      step 0   w00 w01 w02 ... w0F
                      step 1   w10 w11 w12 ... w1F     (in memory one behind the other)
    tile of x
      row 0  x00 x01   a00 a01 a02 ... a0F    <- accumulators, in registers:
      row 1  x10 x11   a10 a11 a12 ... a1F       a[row, f] = bias[f] + x[row, 0] w[0, f] + x[row, 1] w[1, f]

So every element is one chain of additions in the order of the depth, begun with its bias: no other choice, of tiles,
blocks or threads, can change a bit of it. What a word holds and how a step multiplies is up to the weight format.

For example, with panels of 2 output features, the (out, in) matrix [[1, 2], [3, 4], [5, 6], [7, 8]] of 4 output and 2
input features is packed as the panels (1 3  2 4) and (5 7  6 8).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gte_np.formats.float_formats import FLOAT32
from gte_np.formats.int8 import FACTORS
from gte_np.formats.weight_format import ProductStep
from gte_np.kernels.language.emitter import Emitter
from gte_np.kernels.language.memory import load, offset, panel_width, product_rows, store
from gte_np.kernels.language.types import INT64, LANES, PanelType, Pointer, kernel
from gte_np.kernels.targets.target import CACHE_LINE

# How far ahead weights are asked for, into the second cache, whose misses can be more than the first one's. Texts of
# few tokens read weights faster than they compute: with 8 KB, 12 rows in int8 run a fifth faster than with none or 2.
PREFETCH_BYTES = 8192


class Matrix(NamedTuple):
    """Rows in memory: a pointer to the first element, and how many elements each row lies behind the one before."""

    data: Pointer
    stride: int


class Operand(NamedTuple):
    """What a linear layer multiplies with its weights: rows of 32-bit words, and the factors of each row.

    Pointers are to float32 whatever is in them. `factors` is used by formats that quantise rows: FACTORS for each.
    """

    words: Matrix
    factors: Pointer


class Linear(NamedTuple):
    """A linear layer: panels of packed weights, the bias, and the format's constants.

    `steps` is the depth of the product in words. For each panel, `constants` has `constant_rows` rows of a float32
    for each of the panel's output features; the last of them may be words of another kind, see `feature_pairs`.
    `gelu` is 1 if gelu follows.
    """

    weight: Pointer
    bias: Pointer
    constants: Pointer
    constant_rows: int
    steps: int
    gelu: int


class Ahead(NamedTuple):
    """Weights that are asked for while others are multiplied: the first, and how many words in a turn of the loop."""

    weight: Pointer
    words: int


@kernel
def part_ahead(part: int, parts: int, words_of_turn: int, linear: Linear) -> Ahead:
    """A part of the panel behind the first one, whose loop multiplies so many words in a turn."""
    words = linear.steps * panel_width(linear.weight)
    return Ahead(offset(linear.weight, words + words * part // parts), (words_of_turn + parts - 1) // parts)


@kernel
def matrix_at(matrix: Matrix, row: int, column: int) -> Matrix:
    """The part of a matrix that begins at a row and a column."""
    return Matrix(offset(matrix.data, row * matrix.stride + column), matrix.stride)


@kernel
def row_of(matrix: Matrix, row: int) -> Pointer:
    """The pointer to a row."""
    return offset(matrix.data, row * matrix.stride)


@kernel
def copy_rows(rows: int, source: Matrix, width: int, target: Matrix) -> None:
    """(rows, width) -> (rows, width); the width is a multiple of LANES."""
    for row in range(rows):
        for column in range(0, width, LANES):
            store(target.data, row * target.stride + column, load(source.data, row * source.stride + column))


@kernel
def operand_at(operand: Operand, row: int) -> Operand:
    """The part of an operand that begins at a row."""
    return Operand(matrix_at(operand.words, row, 0), offset(operand.factors, row * FACTORS))


@kernel
def panel_of(linear: Linear, panel: int) -> Linear:
    """The part of a linear layer that begins at a panel."""
    first = panel * panel_width(linear.weight)
    return Linear(
        offset(linear.weight, first * linear.steps),
        offset(linear.bias, first),
        offset(linear.constants, first * linear.constant_rows),
        linear.constant_rows,
        linear.steps,
        linear.gelu,
    )


@kernel
def linear_tiles(rows: int, x: Operand, linear: Linear, out: Matrix) -> None:
    """(rows, in), the first panel of a linear layer -> (rows, panel width), for any number of rows."""
    tiles = tiles_of(linear.weight, rows)
    for tile in range(tiles):
        row = rows * tile // tiles
        height = rows * (tile + 1) // tiles - row
        linear_tile(height, operand_at(x, row), linear, matrix_at(out, row, 0), None)


@kernel
def tiles_of(weights: Pointer, rows: int) -> int:
    """How many tiles lie one above the other; they have equal numbers of rows, or one more."""
    most = product_rows(weights)
    return (rows + most - 1) // most


@intrinsic
def linear_tile(typing: Any, rows: Any, x: Any, linear: Any, out: Any, widened: Any) -> Any:
    """(rows, in) Operand, the first panel of a Linear -> (rows, panel width) Matrix, for 1 to `tile_rows` rows.

    If `widened` is a pointer and not None, the weights are also written there, in their widened format.
    """
    packed = linear.types[0].dtype

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        count, operand, layer, target, kept = arguments
        words, factors = fields(builder, operand, 2)
        panel, steps = first_panel(builder, packed, layer)
        emit = Emitter(builder, packed.target)
        kept = None if isinstance(widened, types.NoneType) else kept
        product = Product(packed.format.step(packed.target), panel, fields(builder, words, 2), factors, steps, kept)
        product.emit_tiles(emit, count, fields(builder, target, 2))
        return context.get_dummy_value()

    return types.void(types.intp, x, linear, out, widened), codegen


@intrinsic
def float32_tile(typing: Any, like: Any, rows: Any, x: Any, y: Any, depth: Any, out: Any) -> Any:
    """(rows, depth), (depth, panel width) -> (rows, panel width), Matrices of float32, for 1 to `tile_rows` rows.

    `like` is a pointer to packed weights, for its target.
    """
    packed = PanelType(FLOAT32, like.dtype.target)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        _, count, x_matrix, y_matrix, steps, target = arguments
        emit = Emitter(builder, packed.target)
        weight, stride = fields(builder, y_matrix, 2)
        panel = Panel(packed, weight, stride, bias=None, constants=None)
        x_fields = fields(builder, x_matrix, 2)
        product = Product(FLOAT32.step(packed.target), panel, x_fields, None, steps, widened=None)
        product.emit_tiles(emit, count, fields(builder, target, 2))
        return context.get_dummy_value()

    return types.void(like, types.intp, x, y, types.intp, out), codegen


def fields(builder: ir.IRBuilder, value: ir.Value, count: int) -> list[ir.Value]:
    """The first values of a tuple."""
    return [builder.extract_value(value, place) for place in range(count)]


@dataclass
class Panel:
    """A panel of weights while code is emitted: what a `ProductStep` reads of it."""

    packed: PanelType
    weight: ir.Value  # pointer to the first word
    stride: ir.Value  # words from one step to the next
    bias: ir.Value | None
    constants: ir.Value | None

    @property
    def width(self) -> int:
        """Output features."""
        return int(self.packed.target.panel)

    @property
    def tile_rows(self) -> int:
        """The most rows of a tile."""
        return self.packed.format.tile_rows(self.packed.target)

    @property
    def vectors(self) -> range:
        """The first output feature of each vector."""
        return range(0, self.width, LANES)

    def weight_at(self, emit: Emitter, step: ir.Value, first: int) -> ir.Value:
        """The pointer to the words of a step, from one output feature on."""
        return emit.at(emit.at(self.weight, emit.builder.mul(step, self.stride)), first)

    def place_of(self, emit: Emitter, feature: ir.Value) -> ir.Value:
        """Which value of a panel's depth belongs to an input feature."""
        return feature

    def bias_at(self, emit: Emitter, first: int) -> ir.Value:
        """Of 16 output features."""
        return emit.floats(0.0) if self.bias is None else emit.load_floats(emit.at(self.bias, first))

    def constant_at(self, emit: Emitter, row: ir.Value | int, first: int) -> ir.Value:
        """Of 16 output features, from a row of the constants."""
        row = INT64(row) if isinstance(row, int) else row
        start = emit.at(self.constants, emit.builder.mul(row, INT64(self.width)))
        return emit.load_floats(emit.at(start, first))

    def prefetch(self, emit: Emitter, start: ir.Value, steps: int, distance: int = PREFETCH_BYTES) -> None:
        """Ask for the words of so many steps, so many bytes behind `start`."""
        for line in range(0, steps * self.width * self.packed.format.word.itemsize, CACHE_LINE):
            emit.prefetch(start, distance + line)

    def store_row(self, emit: Emitter, vectors: list[ir.Value], pointer: ir.Value) -> None:
        """Write a row of float32 vectors, one for each of `self.vectors`."""
        for first, value in zip(self.vectors, vectors, strict=True):
            emit.store_floats(value, emit.at(pointer, first))


def first_panel(builder: ir.IRBuilder, packed: PanelType, linear: ir.Value) -> tuple[Panel, ir.Value]:
    """The first panel of a Linear, and its depth in steps."""
    weight, bias, constants, _, steps = fields(builder, linear, 5)
    return Panel(packed, weight, INT64(packed.target.panel), bias, constants), steps


def choices(builder: ir.IRBuilder, number: ir.Value, most: int) -> Iterator[int]:
    """Emit the choice among numbers from 1 to `most`; what is emitted while one is given, is done for that one."""
    builder.function.attributes.add("noinline")  # one copy of all that is enough, and compiles faster
    builder.function.attributes.alignstack = CACHE_LINE  # else a register that is kept on it may lie in two pages
    end = builder.append_basic_block("end")
    switch = builder.switch(number, end)
    for case in range(1, most + 1):
        block = builder.append_basic_block(f"case_{case}")
        switch.add_case(INT64(case), block)
        builder.position_at_end(block)
        yield case
        builder.branch(end)
    builder.position_at_end(end)


@dataclass
class Product:
    """A product while code is emitted. `x` is a pointer and a stride."""

    step: ProductStep
    panel: Panel
    x: list[ir.Value]
    factors: ir.Value | None
    steps: ir.Value
    widened: ir.Value | None

    def emit_tiles(self, emit: Emitter, count: ir.Value, out: list[ir.Value]) -> None:
        """Emit a loop for every number of rows, and the choice among them."""
        columns = self.step.columns(emit, self.panel)
        for rows in choices(emit.builder, count, self.panel.tile_rows):
            for row, accumulators in enumerate(self.loop(emit, [self.step.start(emit, columns)] * rows)):
                self.finish_row(emit, row, accumulators, columns, out)

    def finish_row(self, emit: Emitter, row: int, accumulators: list[Any], columns: list[Any], out: Any) -> None:
        """Write the results of a row."""
        factors = None if self.factors is None else emit.at(self.factors, row * FACTORS)
        pointer, stride = out
        out_row = emit.at(pointer, emit.builder.mul(stride, INT64(row)))
        finished = self.step.finish(emit, accumulators, columns, self.panel, factors)
        self.panel.store_row(emit, finished, out_row)

    def loop(self, emit: Emitter, start: list[list[Any]]) -> list[list[Any]]:
        """Emit the loop over all steps for one number of rows: accumulators, row by row, before and after."""
        x_rows = self.x_rows(emit, len(start))

        def step(number: ir.Value, accumulators: list[list[Any]]) -> list[list[Any]]:
            return self.one_step(emit, number, x_rows, accumulators)

        fills_registers = 2 * len(start) > self.panel.tile_rows  # unrolled, it would spill
        return emit.loop(self.steps, start, step, unroll=not fills_registers)

    def x_rows(self, emit: Emitter, count: int) -> list[Any]:
        """Pointers to the first rows of x."""
        x, x_stride = self.x
        return [emit.at(x, emit.builder.mul(x_stride, INT64(row))) for row in range(count)]

    def one_step(
        self, emit: Emitter, step: ir.Value, x_rows: list[Any], accumulators: list[list[Any]]
    ) -> list[list[Any]]:
        """The accumulators after a step."""
        weights = self._weights_at(emit, step)
        place = emit.builder.mul(step, INT64(self.step.x_words)) if self.step.x_words > 1 else step
        sums = []
        for row, row_accumulators in zip(x_rows, accumulators, strict=True):  # row by row: few registers hold x
            value = self.step.load_x(emit, emit.at(row, place))
            pairs = zip(weights, row_accumulators, strict=True)
            sums.append([self.step.multiply_add(emit, value, weight, total) for weight, total in pairs])
        return sums

    def _weights_at(self, emit: Emitter, step: ir.Value) -> list[Any]:
        panel = self.panel
        start = panel.weight_at(emit, step, 0)
        if panel.packed.format.is_far:
            panel.prefetch(emit, start, 1)
        weights = [self.step.load_weights(emit, panel, step, first) for first in panel.vectors]
        if self.widened is not None:
            self._keep(emit, step, [self.step.widened(emit, vector) for vector in weights])
        return weights

    def _keep(self, emit: Emitter, step: ir.Value, weights: list[list[Any]]) -> None:
        """Write widened weights, word by word: for each vector of output features, its words."""
        words, width = len(weights[0]), self.panel.width
        kept = emit.at(self.widened, emit.builder.mul(step, INT64(words * width)))
        for first, vector in zip(self.panel.vectors, weights, strict=True):
            for number, word in enumerate(vector):
                emit.store_floats(word, emit.at(kept, number * width + first))
