"""Hash what the kernels compute, bit for bit, to show that a change of the code changes no number.

    python -m scripts.hash_states            # compare with tests/data/state_hashes.json
    python -m scripts.hash_states --write    # make that file anew

Each row is a checkpoint (all-MiniLM-L6-v2's published weights, random float16 weights of a GTE model's shape, or
small ones of odd sizes) in a dtype, on a target: this processor's own, and one of each arithmetic that it runs; the
file has one of each, but of ARM's bfloat16 only what was run under emulation. For kernels that were built ahead of
time, on every target, see `scripts.run_targets`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from gte_np import TokenBatch
from gte_np.architectures.config import BertConfig, read_config
from gte_np.architectures.weights import read_weights, stored_precision
from gte_np.encoder_interface import EncoderInput, FloatArray
from gte_np.formats import choose_format
from gte_np.kernels.runtime.kernel_encoder import KernelEncoder
from gte_np.kernels.targets import Target
from gte_np.kernels.targets.arm import NEON_BF16
from gte_np.kernels.targets.host import host_features, host_target, this_machine
from gte_np.kernels.targets.x86 import AVX2, AVX512_AMX, SSE4
from scripts.fetch_minilm import FOLDER
from tests.samples import PRECISIONS, SHAPES, ids_of_length, write_odd_sizes, write_shape

HASHES = Path("tests/data/state_hashes.json")
HOST = "host"
ARITHMETICS = (AVX2, SSE4, AVX512_AMX, NEON_BF16)  # the first that suits is taken
DTYPES = ("float32", "bfloat16", "int8")
LENGTHS = (1, 2, 5, 12, 33, 128, 14)


def main() -> int:
    """Run the command line; return 1 if a hash has changed."""
    parser = argparse.ArgumentParser(description="Hash what the kernels compute.")
    parser.add_argument("--write", action="store_true", help="write the hashes instead of comparing them")
    options = parser.parse_args()
    found = hashes_of_all()
    if options.write:
        recorded = json.loads(HASHES.read_text(encoding="utf-8"))
        recorded |= {name: found[name] for name in found if name != HOST}
        HASHES.write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")
        return 0
    changed = 0
    for name, folders in found.items():
        recorded = recorded_hashes(targets()[name])
        for folder, dtypes in folders.items():
            for dtype, digest in dtypes.items():
                expected = recorded[folder][dtype]
                changed += expected not in ("", digest)
                verdict = "not recorded" if not expected else "equal" if expected == digest else "CHANGED"
                print(f"{name:13} {folder:18} {dtype:9} {verdict}")
    return int(changed > 0)


def hashes_of_all() -> dict[str, dict[str, dict[str, str]]]:
    """Target -> checkpoint -> dtype -> hash."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = [FOLDER, *(write_shape(name, Path(temporary, name)) for name in SHAPES)]
        folders += write_all_odd_sizes(Path(temporary))
        return {
            name: {folder.name: hashes_of(folder, target) for folder in folders} for name, target in targets().items()
        }


def write_all_odd_sizes(folder: Path) -> list[Path]:
    """Write the small checkpoint of odd sizes in each precision; return their folders."""
    return [write_odd_sizes(precision, folder / f"odd-sizes-{precision}") for precision in PRECISIONS]


def targets() -> dict[str, Target]:
    """The target of this processor, and those of `ARITHMETICS` that it runs too."""
    others = {target.name: target for target in ARITHMETICS if target.runs_on(this_machine(), host_features())}
    return {HOST: host_target()} | others


def hashes_of(folder: Path, target: Target) -> dict[str, str]:
    """Dtype -> hash of what `states_of` gives."""
    return {dtype: digest(states_of(encoder_of(folder, dtype, target))) for dtype in DTYPES}


def encoder_of(folder: Path, dtype: str, target: Target) -> KernelEncoder:
    """The encoder of a checkpoint in a dtype, on a target."""
    config = read_config(folder)
    weights = read_weights(folder, config)
    return KernelEncoder(config, weights, choose_format(dtype, stored_precision(weights)), target=target)


def batch_for(config: BertConfig, lengths: Iterable[int] = LENGTHS) -> TokenBatch:
    """Texts of these lengths."""
    return TokenBatch.from_ids([ids_of_length(length, config.vocab_size) for length in lengths])


def states_of(encoder: KernelEncoder) -> list[FloatArray]:
    """Hidden states of every layer of a batch, each (N, D), and those of the first tokens computed alone, (B, D)."""
    config = encoder.config
    batch = batch_for(config)
    every_layer = encoder(EncoderInput(batch, config), keep_layers=True).hidden_states
    first_tokens = encoder(EncoderInput(batch, config, batch.offsets[:-1])).last_hidden_state
    return [*(every_layer or []), first_tokens]


def digest(states: Iterable[FloatArray]) -> str:
    """The hash of arrays."""
    return hashlib.sha256(b"".join(state.tobytes() for state in states)).hexdigest()[:32]


def recorded_hashes(target: Target) -> dict[str, dict[str, str]]:
    """Checkpoint -> dtype -> the hash that any target has which rounds as this one does, or "" if there is none."""
    recorded: dict[str, dict[str, dict[str, str]]] = json.loads(HASHES.read_text(encoding="utf-8"))
    alike = {dtype: alike_in(dtype, target) for dtype in DTYPES}
    return {
        folder: {dtype: recorded[alike[dtype]].get(folder, {}).get(dtype, "") for dtype in DTYPES}
        for folder in recorded[AVX2.name]
    }


def alike_in(dtype: str, target: Target) -> str:
    """The name of the target of `ARITHMETICS` that gives the same bits in a dtype."""
    product = choose_format(dtype, dtype).tile_product
    return next(other.name for other in ARITHMETICS if other.arithmetic(product) == target.arithmetic(product))


if __name__ == "__main__":
    sys.exit(main())
