"""Run the kernels of a target that were built ahead of time, in this interpreter, and write what they gave.

    python -m scripts.run_target --list                   # the targets that this processor runs, the best first
    python -m scripts.run_target NAME --kernels DIR --checkpoints FOLDER... --out DIR

`scripts.run_targets` calls it, for a processor that is emulated by the interpreter there, and judges the numbers. It
needs NumPy, tokenizers and safetensors, and neither Numba nor llvmlite.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_np import TokenBatch
from gte_np.architectures.config import read_config
from gte_np.architectures.weights import read_weights
from gte_np.encoder_interface import EncoderInput, FloatArray
from gte_np.formats.int8 import FACTORS, INT8
from gte_np.kernels.operations.records import Operation
from gte_np.kernels.runtime import prebuilt
from gte_np.kernels.runtime.kernel_encoder import KernelEncoder
from gte_np.kernels.runtime.kernel_functions import TARGET_VARIABLE, chosen_target
from gte_np.kernels.runtime.workspace import Workspace
from gte_np.kernels.targets import Target
from gte_np.kernels.targets.host import runnable_targets
from gte_np.kernels.targets.matrix_units import TILE
from scripts.hash_states import DTYPES, LENGTHS, batch_for, encoder_of, states_of

SHORT = 33  # tokens of the longest text that is computed again in other batches
COMPILERS = ("numba", "llvmlite")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", nargs="?", metavar="NAME", help="the target")
    parser.add_argument("--list", action="store_true", help="only print the targets that this processor runs")
    parser.add_argument("--kernels", type=Path, metavar="DIR", help="what scripts.build_kernels wrote")
    parser.add_argument("--checkpoints", type=Path, nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--out", type=Path, metavar="DIR")
    options = parser.parse_args()
    if options.list:
        print(json.dumps([target.name for target in runnable_targets()]))
        return 0
    prebuilt.FOLDER = options.kernels  # before any kernel is looked for
    os.environ[TARGET_VARIABLE] = options.name
    target = chosen_target()
    for folder in options.checkpoints:
        for dtype in DTYPES:
            write_run(options.out, folder, dtype, target)
    loaded = [name for name in COMPILERS if name in sys.modules]
    if loaded:
        print(f"expected kernels that need no compiler, got an import of {' and '.join(loaded)}", file=sys.stderr)
    return int(bool(loaded))


def write_run(out: Path, folder: Path, dtype: str, target: Target) -> None:
    """Write the states that an encoder gives, and what it makes of other batches and of bytes, as an .npz file."""
    start = time.perf_counter()
    encoder = encoder_of(folder, dtype, target)
    *layers, first_tokens = states_of(encoder)
    np.savez(
        out / run_name(folder, dtype),
        format=encoder.weights.format.name,
        layers=np.stack(layers),  # (L + 1, N, D)
        first_tokens=first_tokens,  # (B, D)
        same_in_other_batches=is_same_in_other_batches(encoder, layers[-1]),
        exact_integers=dtype != INT8.dtype or sums_are_exact(folder, target),
        seconds=time.perf_counter() - start,
    )


def run_name(folder: Path, dtype: str) -> str:
    """The name of the file for a checkpoint in a dtype."""
    return f"{folder.name}-{dtype}.npz"


def is_same_in_other_batches(encoder: KernelEncoder, states: FloatArray) -> bool:
    """Whether short texts alone, and all of them in the other order, have the bits of their last `states`, (N, D)."""
    config = encoder.config
    batch = batch_for(config)
    numbers = [number for number, length in enumerate(LENGTHS) if length <= SHORT]
    same = True
    for order in [numbers[::-1], *([number] for number in numbers)]:
        other = TokenBatch.from_ids([batch[number].tolist() for number in order])
        found = encoder(EncoderInput(other, config)).last_hidden_state
        expected = np.concatenate([states[batch.slice(number)] for number in order])
        same = same and found.tobytes() == expected.tobytes()
    return same


def sums_are_exact(folder: Path, target: Target) -> bool:
    """Whether the int8 kernel gives the exact sums of products of bytes and a matrix of the checkpoint.

    Scales are 1 and biases 0, so a linear layer gives whole numbers, which float32 holds up to 2^24.
    """
    weights = read_weights(folder, read_config(folder))
    integers = INT8.of(weights.layers[0]["intermediate.dense.weight"]).parts[""].data.astype(np.int64)  # (F, D)
    x, factors = bytes_and_factors(integers.shape[1])
    products = x[:, : integers.shape[1]].astype(np.int64) @ integers.T  # (N, D) @ (D, F) -> (N, F)
    _, zero, rest, place = factors.astype(np.int64).T  # each (N,)
    exact = products - zero[:, None] * integers.sum(axis=1) + rest[:, None] * integers.T[place]
    found = multiply(encoder_of(folder, INT8.dtype, target), x, factors)
    return np.array_equal(found[:, : len(integers)], exact.astype(np.float32))


def bytes_and_factors(depth: int) -> tuple[NDArray[np.uint8], FloatArray]:
    """x of 33 rows, in whole words, and for each row the scale, the zero, the rest and the place of the outlier."""
    random = np.random.default_rng(0)
    rows, filled = 33, min(depth, 128)  # the others are 0, for sums below 2^24
    x = np.zeros((rows, INT8.steps(depth) * INT8.values_of_word), np.uint8)
    x[:, :filled] = random.integers(0, 256, (rows, filled))
    x[0, :filled] = 255
    factors = np.ones((rows, FACTORS), np.float32)
    factors[:, 1:] = np.stack([random.integers(0, end, rows) for end in (256, 9, filled)], axis=1)
    return x, factors


def multiply(encoder: KernelEncoder, x: NDArray[np.uint8], factors: FloatArray) -> FloatArray:
    """x times the first layer's intermediate matrix, with scales of 1 and biases of 0: a program of one step."""
    packed, rows = encoder.weights, len(x)
    workspace = Workspace(packed, rows, rows, threads=1)
    program = workspace.begin(threads=1, wanted=False, keep_layers=False)
    step = program.steps[program.steps["operation"] == Operation.LINEAR][2:3].copy()
    linear = packed.layers[0].linears["intermediate"]
    constants, bias = linear.constants.copy(), np.zeros_like(linear.bias)
    words = np.pad(x, [(0, TILE), (0, 0)]).view(np.uint32)  # a matrix unit reads rows behind the last one
    constants[:, 0] = 1  # the first row of each panel: scales
    out = np.empty((rows, len(bias)), np.float32)
    arrays: dict[str, NDArray[Any]] = {
        "x": words,
        "x_factors": factors,
        "constants": constants,
        "bias": bias,
        "out": out,
    }
    for name, array in arrays.items():
        step[name] = array.ctypes.data
    step["x_stride"], step["out_stride"], step["gelu"] = words.shape[1], out.shape[1], 0
    workspace.run["steps"] = 1
    workspace.batch["tokens"] = rows
    encoder._run_program(workspace.run_address, step.ctypes.data, workspace.batch_address, packed.address, 0)
    return out


if __name__ == "__main__":
    sys.exit(main())
