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
from gte_np.kernels.arithmetic import arithmetic_of
from gte_np.kernels.processor import processor
from gte_np.kernels.simd import LANES, MATRIX_TYPES, Pointer, float32, fma, kernel, load, offset, pointer_to, store
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from benchmarks.compare import RESULTS, environment
from benchmarks.models import SHAPES
from gte_np.kernels import attention, layer_norm, layers
from gte_np.kernels.operations.matmul import PANEL, Linear, Matrix, Operand, linear_panel, matrix_at
from gte_np.kernels.runtime.compile import Entry, compile_entry
from gte_np.kernels.runtime.object_code import load_function
from gte_np.kernels.runtime.workspace import stride_of

FLOATS = pointer_to(float32)
HALVES = pointer_to(MATRIX_TYPES["float16"])
SIZE = types.int64

ROWS = (12, 32, 128, 480)
WORDS = {"bfloat16x2": 2, "int8x4": 4}  # and the values of a word
SHAPES_OF_PRODUCTS = sorted(
    {(d, w) for d, _, _, f, *_ in SHAPES.values() for d, w in ((d, 3 * d), (d, d), (d, f), (f, d))}
)
CHAINS = 10  # of multiply-adds that do not depend on each other
SECONDS = 0.4  # of each measurement


def multiply_adds(values: Pointer, count: int) -> None:
    """`count` times CHAINS multiply-adds of vectors, all in registers."""
    x, y = load(values, 0), load(values, LANES)
    a = b = c = d = e = f = g = h = i = j = load(values, 2 * LANES)
    for _ in range(count):
        a, b, c, d, e = fma(x, y, a), fma(x, y, b), fma(x, y, c), fma(x, y, d), fma(x, y, e)
        f, g, h, i, j = fma(x, f, y), fma(x, g, y), fma(x, h, y), fma(x, i, y), fma(x, j, y)
    store(values, 0, a + b + c + d + e + f + g + h + i + j)


@intrinsic
def dot_products(typing: Any, matrices: Any, count: Any) -> Any:
    """`count` times CHAINS steps of the arithmetic for some weights, all in registers."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointer, steps = arguments
        kind = arithmetic_of(matrices.dtype)
        weights = kind.weights(builder, pointer)
        value = kind.value(builder, builder.bitcast(builder.load(pointer), ir.FloatType()))
        before, loop = builder.block, builder.append_basic_block("loop")
        builder.branch(loop)
        builder.position_at_end(loop)
        step, sums = builder.phi(steps.type), [builder.phi(kind.sums) for _ in range(CHAINS)]
        step.add_incoming(steps, before)
        step.add_incoming(builder.sub(step, steps.type(1)), loop)
        nexts = [kind.add(builder, value, weights, total) for total in sums]
        for total, following in zip(sums, nexts, strict=True):
            total.add_incoming(ir.Constant(kind.sums, None), before)
            total.add_incoming(following, loop)
        after = builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed(">", step, steps.type(1)), loop, after)
        builder.position_at_end(after)
        for number, total in enumerate(nexts):
            place = builder.gep(pointer, [ir.IntType(64)(number * LANES)])
            builder.store(total, builder.bitcast(place, kind.sums.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(matrices, types.int64), codegen


def chains(matrices: Pointer, count: int) -> None:
    """`dot_products`, for Python to call."""
    dot_products(matrices, count)


def linear_of_words(
    rows: int, x: Pointer, stride: int, factors: Pointer, weights: Pointer, steps: int, scales: Pointer,
    out: Pointer, panels: int,
) -> None:  # fmt: skip
    """A linear layer with packed weights."""
    out_stride = panels * PANEL + 16
    for panel in range(panels):
        weight = offset(weights, panel * PANEL * steps)
        linear = Linear(weight, scales, scales, steps, 1)
        operand = Operand(Matrix(x, stride), factors)
        linear_panel(rows, operand, linear, Matrix(offset(out, panel * PANEL), out_stride), out)


def read_memory(values: Pointer, count: int) -> None:
    """Add up `count` values."""
    a = b = c = d = load(values, 0)
    for index in range(0, count, 4 * LANES):
        a = a + load(values, index)
        b = b + load(values, index + LANES)
        c = c + load(values, index + 2 * LANES)
        d = d + load(values, index + 3 * LANES)
    store(values, 0, a + b + c + d)


@kernel
def _linear(
    rows: int, x: Matrix, weights: Pointer, depth: int, bias: Pointer, out: Matrix, panels: int, scratch: Pointer
) -> None:
    for panel in range(panels):
        weight = offset(weights, panel * PANEL * depth)
        linear = Linear(weight, offset(bias, panel * PANEL), bias, depth, 1)
        linear_panel(rows, Operand(x, bias), linear, matrix_at(out, 0, panel * PANEL), scratch)


def linear(
    rows: int, x: Pointer, x_stride: int, weights: Pointer, depth: int, out: Pointer, panels: int, scratch: Pointer
) -> None:
    """A linear layer with float16 weights; its bias is what lies at the beginning of `out`."""
    out_stride = panels * PANEL + 16
    _linear(
        rows, Matrix(x, x_stride), weights, depth, out, Matrix(offset(out, out_stride), out_stride), panels, scratch
    )


def attend(tokens: int, heads: int, size: int, qkv: Pointer, stride: int, out: Pointer, scratch: Pointer) -> None:
    """Attention of all heads in one text."""
    for head in range(heads):
        query = Matrix(offset(qkv, head * size), stride)
        key, value = matrix_at(query, 0, heads * size), matrix_at(query, 0, 2 * heads * size)
        context = Matrix(offset(out, head * size), heads * size + 16)
        attention.attend(tokens, query, tokens, key, value, size, size, context, scratch)


def gelu(rows: int, x: Pointer, width: int) -> None:
    """Gelu of rows without holes."""
    for panel in range(0, width, PANEL):
        layers.gelu_panel(rows, Matrix(offset(x, panel), width))


def softmax(rows: int, x: Pointer, width: int) -> None:
    """Exponentials of rows and their sums."""
    for row in range(rows):
        attention.exponentiate(offset(x, row * width), width - LANES, np.float32(1))


def normalize(rows: int, x: Pointer, width: int, added: Pointer, weight: Pointer) -> None:
    """Residual and layer norm of rows without holes."""
    layer_norm.add_and_normalize(
        rows, Matrix(x, width), Matrix(added, width), width, weight, weight, np.float32(1e-12)
    )


def compiled(function: Callable[..., None], *arguments: Any) -> Callable[..., float]:
    """The median seconds of a call of the compiled function; arrays are given by their addresses."""
    name = function.__name__
    call = load_function(compile_entry(name, Entry(function, arguments), processor()), name, len(arguments))

    def seconds(*values: Any) -> float:
        raw = [value.ctypes.data if isinstance(value, np.ndarray) else value for value in values]
        times: list[float] = []
        while sum(times) < SECONDS or len(times) < 5:
            start = time.perf_counter()
            call(*raw)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return seconds


def random(*shape: int) -> NDArray[np.float32]:
    """Numbers of the size of hidden states."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def main() -> None:
    """Measure, print, write."""
    count = 1_000_000
    limit = compiled(multiply_adds, FLOATS, SIZE)
    peak = max(count * CHAINS * LANES * 2 / limit(random(64), count) / 1e9 for _ in range(5))
    large = random(1 << 26)
    bandwidth = large.nbytes / compiled(read_memory, FLOATS, SIZE)(large, large.size) / 1e9
    print(f"limit {peak:.1f} GF/s, memory {bandwidth:.1f} GB/s")
    products = matrix_products(peak)
    fewer_bits = {kind: products_of_words(kind, values) for kind, values in WORDS.items()}
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


def matrix_products(peak: float) -> list[dict[str, Any]]:
    """GF/s of every linear layer of the models."""
    run = compiled(linear, SIZE, FLOATS, SIZE, HALVES, SIZE, FLOATS, SIZE, FLOATS)
    found = []
    for depth, width in SHAPES_OF_PRODUCTS:
        weights = random(width * depth).astype(np.float16)
        for rows in ROWS:
            x, out = random(rows, stride_of(depth)), random(rows + 1, stride_of(width))
            scratch = random(depth * PANEL)
            seconds = run(rows, x, stride_of(depth), weights, depth, out, width // PANEL, scratch)
            gflops = 2 * rows * depth * width / seconds / 1e9
            found.append({"rows": rows, "depth": depth, "width": width, "gflops": gflops, "of_limit": gflops / peak})
            print(f"({rows} x {depth}) @ ({depth} x {width}): {gflops:.1f} GF/s, {gflops / peak:.1%}", flush=True)
    return found


def products_of_words(kind: str, values: int) -> dict[str, Any]:
    """The limit of the processor's dot products, and how much of it linear layers reach: Gop/s."""
    matrices = pointer_to(MATRIX_TYPES[kind])
    count = 1_000_000
    limit = compiled(chains, matrices, SIZE)
    operations = 2 * count * CHAINS * LANES * values
    peak = max(operations / limit(np.zeros(1024, np.float32), count) / 1e9 for _ in range(5))
    print(f"{kind}: limit {peak:.1f} Gop/s")
    run = compiled(linear_of_words, SIZE, FLOATS, SIZE, FLOATS, matrices, SIZE, FLOATS, FLOATS, SIZE)
    found = []
    for depth, width in SHAPES_OF_PRODUCTS:
        steps = depth // values
        weights, scales = random(width * steps), np.ones(2 * PANEL, np.float32)
        for rows in ROWS:
            x, out, factors = random(rows, stride_of(steps)), random(rows + 1, stride_of(width)), random(rows, 4)
            factors[:, 3] = 7  # the place of an outlier
            panels = width // PANEL
            seconds = run(rows, x, stride_of(steps), factors, weights, steps, scales, out, panels)
            speed = 2 * rows * depth * width / seconds / 1e9
            found.append({"rows": rows, "depth": depth, "width": width, "gops": speed, "of_limit": speed / peak})
            print(
                f"{kind} ({rows} x {depth}) @ ({depth} x {width}): {speed:.1f} Gop/s, {speed / peak:.1%}", flush=True
            )
    return {"peak_gops": peak, "matrix_products": found}


def attentions(peak: float) -> dict[str, float]:
    """Attention of a text: the share of the limit that its two products reach, softmax and copies included."""
    run = compiled(attend, SIZE, SIZE, SIZE, FLOATS, SIZE, FLOATS, FLOATS)
    found = {}
    for tokens in (12, 50, 128, 512):
        for heads, size in ((12, 32), (12, 64), (16, 64)):
            width = heads * size
            qkv, out = random(tokens + 2 * LANES, stride_of(3 * width)), random(tokens, stride_of(width))
            seconds = run(tokens, heads, size, qkv, stride_of(3 * width), out, random(1 << 18))
            share = 4 * tokens * tokens * width / seconds / 1e9 / peak
            found[f"attention, {tokens} tokens, {heads} heads of {size}, share of limit"] = share
            print(f"attention, {tokens} tokens, {heads} heads of {size}: {share:.1%}", flush=True)
    return found


def elementwise() -> dict[str, float]:
    """Nanoseconds for each element of what is done row by row."""
    rows, width = 128, 384
    x, other, weight = random(rows, width), random(rows, width), np.ones(width, np.float32)
    seconds = {
        "gelu": compiled(gelu, SIZE, FLOATS, SIZE)(rows, x, width),
        "softmax": compiled(softmax, SIZE, FLOATS, SIZE)(rows, x, width),
        "residual and layer norm": compiled(normalize, SIZE, FLOATS, SIZE, FLOATS, FLOATS)(
            rows, x, width, other, weight
        ),
    }
    found = {f"{name}, ns an element": value * 1e9 / rows / width for name, value in seconds.items()}
    print("\n".join(f"{name}: {value:.3f}" for name, value in found.items()), flush=True)
    return found


if __name__ == "__main__":
    main()
