"""What targets with a matrix unit compute, against exact sums and against the same targets without it.

`python -m tests.emulation.matrix_units LIBRARY` does so for targets that get one which is emulated, see `amx`: every
width of vectors that this processor has. Prints how many instructions were emulated.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gte_np import TokenBatch
from gte_np.architectures.config import read_config
from gte_np.architectures.weights import read_weights, stored_precision
from gte_np.encoder_interface import EncoderInput, FloatArray
from gte_np.formats import choose_format
from gte_np.formats.bfloat16 import BFLOAT16, round_to_bfloat16
from gte_np.formats.int8 import INT8
from gte_np.kernels.runtime.kernel_encoder import KernelEncoder
from gte_np.kernels.targets import Target, host
from gte_np.kernels.targets.dot_products import PlainInt8
from gte_np.kernels.targets.matrix_units import BFLOAT16_DEPTH, TILE, UNIT_ROWS, Amx
from gte_np.kernels.targets.x86 import AMX
from tests.checkpoints import write_config, write_weights
from tests.emulation import amx
from tests.emulation.amx_arithmetic import bfloat16_products, widened

ROWS = (1, TILE, TILE + 1, UNIT_ROWS, 70)
SHORT, LONG = (3, 18, 60), (400,)  # tokens of texts; the words of the long one's rows do not fit into a near cache
DEPTHS = (64, 192, 96)  # of int8 and of bfloat16: whole tiles, and for int8 one that is none


def check_products(target: Target) -> None:
    """Fail if a product differs in a bit from exact sums, or from what the instruction is known to compute."""
    from tests.test_low_precision import bfloat16_inputs, exact_int8, int8_inputs, product

    for rows in ROWS:
        for depth in DEPTHS:
            integers = int8_inputs(rows, depth, target, extreme=depth == DEPTHS[0])
            assert np.array_equal(product(INT8, target, integers), exact_int8(*integers).astype(np.float32))
            x, weights, bias, *others = bfloat16_inputs(rows, depth, target)
            found = product(BFLOAT16, target, (x, weights, bias, *others))
            assert np.array_equal(found, tile_sums(x, weights, bias))


def check_attention(target: Target) -> None:
    """Fail if attention is farther from that of rounded operands than rounding its exponentials can bring it."""
    from tests.compiled import same_bits
    from tests.test_kernels import ATTENTION, HEAD_SIZES, TEXT_LENGTHS, attention, attention_in_float64, normal

    for size in HEAD_SIZES:
        for keys in TEXT_LENGTHS:
            query, key, value = (widened(round_to_bfloat16(normal(keys, size))) for _ in range(3))
            found = attention(query, key, value, target, BFLOAT16)
            rounding = 2.0**-8 * attention_in_float64(query, key, np.abs(value))
            assert (np.abs(found - attention_in_float64(query, key, value)) <= rounding + ATTENTION).all()
            some = slice(keys // 3, keys)
            assert same_bits(attention(query[some], key, value, target, BFLOAT16), found[some])
        # The last text has several keys, and a head of whole tiles does go to the unit.
        assert size % BFLOAT16_DEPTH or not same_bits(attention(query, key, value, target), found)


def tile_sums(x: Any, weights: Any, bias: FloatArray) -> FloatArray:
    """(rows, depth) x (depth, panel) + bias, in the order of the instruction: 16 pairs at a time."""
    rows, depth = x.shape
    sums = np.tile(bias, (rows, 1))
    for start in range(0, depth, 2 * TILE):
        some = slice(start, start + 2 * TILE)
        pairs = weights[some].reshape(-1, 2, weights.shape[1]).transpose(0, 2, 1)  # (depth / 2, panel, 2)
        sums = bfloat16_products(sums, x[:, some].reshape(rows, -1, 2), pairs)
    return sums


def check_encoder(target: Target, without: Target, folder: Path) -> None:
    """Fail if hidden states in int8 have other bits without a unit, or those in bfloat16 are not near."""
    for dtype, tolerance in (("int8", 0.0), ("bfloat16", 0.05)):
        states, others = (states_of(folder, dtype, each, SHORT, LONG) for each in (target, without))
        assert np.abs(states - others).max() <= tolerance
        assert np.array_equal(states, others) == (dtype == "int8")


def states_of(folder: Path, dtype: str, target: Target, *batches: tuple[int, ...]) -> FloatArray:
    """The last hidden states of batches of texts of so many tokens."""
    config = read_config(folder)
    weights = read_weights(folder, config)
    encoder = KernelEncoder(
        config, weights, choose_format(dtype, stored_precision(weights)), threads=2, target=target
    )
    packed = [TokenBatch.from_ids([range(length) for length in lengths]) for lengths in batches]
    return np.concatenate([encoder(EncoderInput(batch, config)).last_hidden_state for batch in packed])


def write_checkpoint(folder: Path) -> Path:
    """A small checkpoint, all of whose depths are whole tiles."""
    write_config(
        folder,
        vocab_size=400,
        hidden_size=64,
        num_attention_heads=2,
        intermediate_size=4096,
        max_position_embeddings=400,
        num_hidden_layers=1,
    )
    write_weights(folder)
    return folder


def emulated_targets() -> Iterator[tuple[Target, Target]]:
    """A target of each width that this processor runs, with a matrix unit and as it is."""
    widths = {target.vector_width: target for target in host.runnable_targets()}
    for target in widths.values():
        if target.has_fused_multiply_add:  # else the sums of the oracle are others
            yield (
                replace(
                    target,
                    name=f"{target.name}-emulated",
                    features=target.features | AMX,
                    int8_dot_product=PlainInt8(),  # rows in bytes, which its own may keep in 16 bits
                    matrix_unit=Amx(),
                ),
                target,
            )


def main(library: Path) -> None:
    """Check all targets that are emulated."""
    host.may_use_amx = lambda: False  # else Linux would let the processor's own instructions through, if it has them
    amx.install(library)
    with tempfile.TemporaryDirectory() as temporary:
        *_, narrowest = pairs = list(emulated_targets())
        for target, _ in pairs:
            check_products(target)
            check_attention(target)
        check_encoder(*narrowest, write_checkpoint(Path(temporary)))
    print(amx.executed(library))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
