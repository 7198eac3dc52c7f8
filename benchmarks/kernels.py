"""Each kernel against the limit of the processor, measured in the same run: python -m benchmarks.kernels.

One thread. The limit is that of fused multiply-adds on registers; the memory's is that of reading much more than the
caches hold. Figures are medians; the last line is JSON, which is also written to benchmarks/results/kernels.json.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from benchmarks import peaks
from benchmarks.compare import RESULTS, environment
from benchmarks.models import SHAPES
from gte_np.formats import WeightFormat
from gte_np.formats.bfloat16 import BFLOAT16
from gte_np.formats.float_formats import FLOAT16, FLOAT32
from gte_np.formats.int8 import INT8
from gte_np.formats.stored_tensor import StoredTensor
from gte_np.kernels.language.memory import offset, panel_width
from gte_np.kernels.language.types import LANES, Pointer, float32, kernel, panel_pointer, pointer_to
from gte_np.kernels.operations import attention, attention_head, layer_norm
from gte_np.kernels.operations.linear import gelu_block, linear_panel
from gte_np.kernels.operations.matmul import Linear, Matrix, Operand, matrix_at
from gte_np.kernels.operations.records import ROW_GAP
from gte_np.kernels.runtime.feature_order import order_panels, order_rows
from gte_np.kernels.runtime.kernel_functions import function
from gte_np.kernels.runtime.workspace import stride_of
from gte_np.kernels.targets.host import host_target

FLOATS = pointer_to(float32)
SIZE = types.int64

ROWS = (12, 32, 128, 480)
WORDS = {"bfloat16x2": BFLOAT16, "int8x4": INT8}  # formats of several values a word
SHAPES_OF_PRODUCTS = sorted(
    {(d, w) for d, _, _, f, *_ in SHAPES.values() for d, w in ((d, 3 * d), (d, d), (d, f), (f, d))}
)
SECONDS = 0.4  # of each measurement


def linear_of_words(
    rows: int, x: Pointer, stride: int, factors: Pointer, weights: Pointer, steps: int, constants: Pointer,
    out: Pointer, panels: int, scratch: Pointer,
) -> None:  # fmt: skip
    """A linear layer with packed weights, all of whose panels have the same constants."""
    width = panel_width(weights)
    operand, out_stride = Operand(Matrix(x, stride), factors), panels * width + ROW_GAP
    for panel in range(panels):
        weight = offset(weights, panel * width * steps)
        linear = Linear(weight, constants, constants, 0, steps, 0)
        linear_panel(rows, operand, linear, Matrix(offset(out, panel * width), out_stride), scratch)


@kernel
def _linear(
    rows: int, x: Matrix, weights: Pointer, depth: int, bias: Pointer, out: Matrix, panels: int, scratch: Pointer
) -> None:
    width = panel_width(weights)
    for panel in range(panels):
        linear = Linear(offset(weights, panel * width * depth), offset(bias, panel * width), bias, 0, depth, 0)
        linear_panel(rows, Operand(x, bias), linear, matrix_at(out, 0, panel * width), scratch)


def linear(
    rows: int, x: Pointer, x_stride: int, weights: Pointer, depth: int, out: Pointer, panels: int, scratch: Pointer
) -> None:
    """A linear layer with float16 weights; its bias is what lies at the beginning of `out`."""
    out_stride = panels * panel_width(weights) + ROW_GAP
    _linear(
        rows, Matrix(x, x_stride), weights, depth, out, Matrix(offset(out, out_stride), out_stride), panels, scratch
    )


def attend(
    weights: Pointer, tokens: int, heads: int, size: int, qkv: Pointer, stride: int, out: Pointer, scratch: Pointer
) -> None:
    """Attention of all heads in one text; `weights` tell the target."""
    for number in range(heads):
        query = Matrix(offset(qkv, number * size), stride)
        key, value = matrix_at(query, 0, heads * size), matrix_at(query, 0, 2 * heads * size)
        context = Matrix(offset(out, number * size), heads * size + ROW_GAP)
        head = attention_head.Head(tokens, tokens, query, key, value, context, size, size)
        attention.attend(weights, head, scratch)


def gelu(weights: Pointer, rows: int, x: Pointer, width: int) -> None:
    """Gelu of rows without holes, a panel after the other; `weights` tell the target."""
    for column in range(0, width, panel_width(weights)):
        gelu_block(weights, rows, Matrix(offset(x, column), width))


def softmax(rows: int, x: Pointer, width: int, sums: Pointer) -> None:
    """Exponentials of rows and their sums, (rows,)."""
    attention_head.exponentiate_rows(rows, Matrix(x, width), width - LANES, np.float32(1), sums)


def normalize(rows: int, x: Pointer, width: int, added: Pointer, weight: Pointer) -> None:
    """Residual and layer norm of rows without holes."""
    norm = layer_norm.Norm(weight, weight, width, np.float32(1e-12))
    for index in range(rows):
        row = offset(x, index * width)
        layer_norm.normalize_row(row, layer_norm.add_row(row, offset(added, index * width), width), norm)


def compiled(function: Callable[..., None], *arguments: Any) -> Callable[..., float]:
    """The median seconds of a call of the compiled function; arrays are given by their addresses."""
    call = peaks.compiled(function, *arguments, target=host_target())

    def seconds(*values: Any) -> float:
        raw = [value.ctypes.data if isinstance(value, np.ndarray) else value for value in values]
        times: list[float] = []
        while sum(times) < SECONDS or len(times) < 5:
            start = time.perf_counter()
            call(*raw)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return seconds


def weights_in(weight_format: WeightFormat) -> types.Type:
    """The type of a pointer to packed weights of this processor's target."""
    return panel_pointer(weight_format, host_target())


def random(*shape: int) -> NDArray[np.float32]:
    """Numbers of the size of hidden states."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def main() -> None:
    """Measure, print, write."""
    peak = peak_of(FLOAT32)
    bandwidth = max_of(peaks.bandwidth(random(1 << 26), FLOAT32, host_target(), threads=1))
    print(f"limit {peak:.1f} GF/s, memory {bandwidth:.1f} GB/s")
    products = matrix_products(peak)
    fewer_bits = {kind: products_of_words(kind, weight_format) for kind, weight_format in WORDS.items()}
    others = attentions(peak) | elementwise()
    results = {
        "environment": environment(threads=1),
        "peak_gflops": peak,
        "memory_gbytes": bandwidth,
        "matrix_products": products,
        "fewer_bits": fewer_bits,
        "others": others,
    }
    (RESULTS / "kernels.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results))


def peak_of(weight_format: WeightFormat) -> float:
    """Multiplications and additions of the product with packed weights, in billions a second."""
    return 2 * max_of(peaks.peak(weight_format, host_target(), threads=1))


def max_of(rate: peaks.Rate) -> float:
    """The best of a few measurements, in billions."""
    return max(rate() for _ in range(5)) / 1e9


def matrix_products(peak: float) -> list[dict[str, Any]]:
    """GF/s of every linear layer of the models."""
    run = compiled(linear, SIZE, FLOATS, SIZE, weights_in(FLOAT16), SIZE, FLOATS, SIZE, FLOATS)
    found, panel = [], host_target().panel
    for depth, width in SHAPES_OF_PRODUCTS:
        weights = random(width * depth).astype(np.float16)
        for rows in ROWS:
            x, out = random(rows, stride_of(depth)), random(rows + 1, stride_of(width))
            scratch = random(depth * panel)
            seconds = run(rows, x, stride_of(depth), weights, depth, out, width // panel, scratch)
            gflops = 2 * rows * depth * width / seconds / 1e9
            found.append({"rows": rows, "depth": depth, "width": width, "gflops": gflops, "of_limit": gflops / peak})
            print(f"({rows} x {depth}) @ ({depth} x {width}): {gflops:.1f} GF/s, {gflops / peak:.1%}", flush=True)
    return found


def products_of_words(kind: str, weight_format: WeightFormat) -> dict[str, Any]:
    """The limit of the processor's dot products, or matrix unit, and how much of it linear layers reach: Gop/s."""
    matrices, panel = weights_in(weight_format), host_target().panel
    peak = peak_of(weight_format)
    print(f"{kind}: limit {peak:.1f} Gop/s")
    run = compiled(linear_of_words, SIZE, FLOATS, SIZE, FLOATS, matrices, SIZE, FLOATS, FLOATS, SIZE, FLOATS)
    found = []
    for depth, width in SHAPES_OF_PRODUCTS:
        steps = weight_format.steps(depth)
        stride, (weights, constants) = stride_of(steps), packed(weight_format, depth, width // panel)
        for rows in ROWS:
            x, out, factors = random(rows, stride), random(rows + 1, stride_of(width)), random(rows, 4)
            factors[:, 3] = 7  # the place of an outlier
            panels, scratch = width // panel, random(depth * panel)
            seconds = run(rows, x, stride, factors, weights, steps, constants, out, panels, scratch)
            speed = 2 * rows * depth * width / seconds / 1e9
            found.append({"rows": rows, "depth": depth, "width": width, "gops": speed, "of_limit": speed / peak})
            print(
                f"{kind} ({rows} x {depth}) @ ({depth} x {width}): {speed:.1f} Gop/s, {speed / peak:.1%}", flush=True
            )
    return {"peak_gops": peak, "matrix_products": found}


def packed(weight_format: WeightFormat, depth: int, panels: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """So many times the same panel, and its constants."""
    target = host_target()
    matrix = weight_format.encode(StoredTensor("float32", random(target.panel, depth)))
    words = np.ascontiguousarray(weight_format.words(matrix.parts, slice(None)).T)[None]  # (1, steps, panel)
    constants = np.float32(weight_format.constants(matrix.parts))  # (constant rows, panel)
    if weight_format.orders_features(target):
        natural, order = words, np.zeros((1, order_rows(words.shape[1], target.panel), target.panel), np.float32)
        words = np.zeros_like(natural)
        order_panels(function("order_features", target, arguments=5), natural, words, order)
        constants = np.concatenate([constants, order[0]])
    return np.tile(words, (panels, 1, 1)), constants


def attentions(peak: float) -> dict[str, float]:
    """Attention of a text: the share of the limit that its two products reach, softmax and copies included."""
    run = compiled(attend, weights_in(FLOAT32), SIZE, SIZE, SIZE, FLOATS, SIZE, FLOATS, FLOATS)
    found = {}
    for tokens in (12, 50, 128, 512):
        for heads, size in ((12, 32), (12, 64), (16, 64)):
            width = heads * size
            qkv, out = random(tokens + 2 * LANES, stride_of(3 * width)), random(tokens, stride_of(width))
            seconds = run(0, tokens, heads, size, qkv, stride_of(3 * width), out, random(1 << 18))
            share = 4 * tokens * tokens * width / seconds / 1e9 / peak
            found[f"attention, {tokens} tokens, {heads} heads of {size}, share of limit"] = share
            print(f"attention, {tokens} tokens, {heads} heads of {size}: {share:.1%}", flush=True)
    return found


def elementwise() -> dict[str, float]:
    """Nanoseconds for each element of what is done row by row."""
    rows, width = 128, 384
    x, other, weight = random(rows, width), random(rows, width), np.ones(width, np.float32)
    seconds = {
        "gelu": compiled(gelu, weights_in(FLOAT32), SIZE, FLOATS, SIZE)(0, rows, x, width),
        "softmax": compiled(softmax, SIZE, FLOATS, SIZE, FLOATS)(rows, x, width, random(rows)),
        "residual and layer norm": compiled(normalize, SIZE, FLOATS, SIZE, FLOATS, FLOATS)(
            rows, x, width, other, weight
        ),
    }
    found = {f"{name}, ns an element": value * 1e9 / rows / width for name, value in seconds.items()}
    print("\n".join(f"{name}: {value:.3f}" for name, value in found.items()), flush=True)
    return found


if __name__ == "__main__":
    main()
