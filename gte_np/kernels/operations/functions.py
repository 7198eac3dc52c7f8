"""exp2, erf and gelu of vectors, by polynomials, with their error bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from gte_np.kernels.language.emitter import ROUNDER, Emitter, Rows
from gte_np.kernels.language.memory import known
from gte_np.kernels.language.types import INT64, LANES, Vector, kernel
from gte_np.kernels.language.vectors import maximum, polynomial, scale_by_power_of_two, splat
from gte_np.kernels.targets import Target
from gte_np.reference.erf import ERF_COEFFICIENTS, ERF_LIMIT

# 2^x = 2^n 2^r, with n whole and |r| <= 1/2. Of all polynomials of degree 5 with value 1 at 0, this one has the least
# relative error on that interval: 9.2e-8, and 1.1e-7 once its coefficients are rounded to float32, as they are here.
# scripts/fit_polynomials.py finds it.
EXP2_COEFFICIENTS = [
    1.0, 0.6931470036506653, 0.24022242426872253, 0.05550733581185341, 0.009671512991189957, 0.001326472731307149
]  # fmt: skip
_EXP2_SERIES = polynomial(EXP2_COEFFICIENTS)
_ROUNDER = np.float32(ROUNDER)
EXP2_LOWEST = np.float32(-126.0)  # 2 to it is the smallest normal number
EXP2_HIGHEST = np.float32(127.0)

_GELU_REGISTERS = 8  # of values at once: with fewer, their steps would wait for each other


def rows_of_gelu_on(target: Target) -> int:
    """How many rows of a panel gelu takes at once."""
    return _GELU_REGISTERS * target.vector_width // target.panel


rows_of_gelu = known(lambda panel: rows_of_gelu_on(panel.target))


@kernel
def exp2(x: Vector) -> Vector:
    """2 to the power of x within 2e-7 of its value, from EXP2_LOWEST to EXP2_HIGHEST; below, that of EXP2_LOWEST."""
    x = maximum(x, splat(EXP2_LOWEST))
    rounded = x + splat(_ROUNDER)
    return scale_by_power_of_two(_EXP2_SERIES(x - (rounded - splat(_ROUNDER))), rounded)


def emit_erf(emit: Emitter, vectors: list[ir.Value]) -> list[ir.Value]:
    """The error function within 3e-7 everywhere, as `gte_np.reference.erf.erf` computes it."""
    builder, limit, lowest = emit.builder, emit.floats(ERF_LIMIT), emit.floats(-ERF_LIMIT)
    vectors = [emit.larger(emit.smaller(x, limit), lowest) for x in vectors]
    squares = [builder.fmul(x, x) for x in vectors]
    scaled = [emit.fma(square, emit.floats(2 / ERF_LIMIT**2), emit.floats(-1)) for square in squares]
    ratios = _emit_polynomial(emit, "erf_coefficients", ERF_COEFFICIENTS, scaled)
    return [builder.fmul(ratio, x) for ratio, x in zip(ratios, vectors, strict=True)]


def _emit_polynomial(
    emit: Emitter, name: str, coefficients: NDArray[np.float32], vectors: list[ir.Value]
) -> list[ir.Value]:
    """A polynomial, lowest power first, of several vectors, by a constant of this name.

    Each step of Horner's rule waits for the one before. A loop does a step for all vectors in turn; without it, LLVM
    would put all steps of the first vector before those of the second.
    """
    highest, *others = coefficients[::-1]
    table = emit.constant_floats(name, others)

    def step(number: ir.Value, rows: Rows) -> Rows:
        coefficient = emit.broadcast(emit.builder.load(emit.at(table, number)))
        return [[emit.fma(value, x, coefficient) for value, x in zip(*rows, vectors, strict=True)]]

    [found] = emit.loop(INT64(len(others)), [[emit.floats(float(highest))] * len(vectors)], step)
    return found


def emit_gelu(emit: Emitter, vectors: list[ir.Value]) -> list[ir.Value]:
    """x times the normal distribution's cumulative function at x.

    Each operation waits for the one before, so it is done for all vectors in turn, which do not wait for each other.
    """
    builder = emit.builder
    erfs = emit_erf(emit, [builder.fmul(x, emit.floats(math.sqrt(0.5))) for x in vectors])
    sums = [builder.fadd(value, emit.floats(1)) for value in erfs]
    products = [builder.fmul(x, total) for x, total in zip(vectors, sums, strict=True)]
    return [builder.fmul(product, emit.floats(0.5)) for product in products]


@intrinsic
def gelu_rows(typing: Any, weights: Any, data: Any, stride: Any, rows: Any) -> Any:
    """Gelu of the first rows of so many, as wide as a panel of `weights`, in place: of `rows_of_gelu`, if there are.

    `weights` is any pointer to packed weights, for its target.
    """
    target = weights.dtype.target

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        emit, (_, row, step, count) = Emitter(builder), arguments
        places = []
        for number in range(rows_of_gelu_on(target)):
            places += [emit.at(row, column) for column in range(0, target.panel, LANES)]
            is_last = builder.icmp_signed(">=", INT64(number + 1), count)  # then it is done again, at once
            row = emit.at(row, builder.select(is_last, INT64(0), step))
        for value, place in zip(emit_gelu(emit, [emit.load_floats(place) for place in places]), places, strict=True):
            emit.store_floats(value, place)
        return context.get_dummy_value()

    return types.void(weights, data, types.intp, types.intp), codegen
