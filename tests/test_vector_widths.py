"""The kernels for other x86 processors than this one, as far as this one can run them, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
import pytest
from gte_np.kernels.processor import Processor

from gte_np import BertModel, TokenBatch
from tests.checkpoints import write_config, write_weights
from tests.compiled import same_bits
from tests.encode_at_width import FEWER

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("float32", "float16")
STATES = 2e-5  # as in test_kernel_encoder


class Target(NamedTuple):
    """A processor to compile for: LLVM's name for it, or None for this one, and the features that it must have."""

    name: str | None
    features: tuple[str, ...]
    vector_width: int

    def environment(self, cache: Path) -> dict[str, str]:
        """Of a process that compiles for it, and keeps what it compiled in a folder."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_CPU_")}
        environment["PYTHONPATH"] = str(ROOT)
        if self.name is not None:
            environment["NUMBA_CPU_NAME"] = self.name
            environment["NUMBA_CPU_FEATURES"] = _listed(self.features)
            environment["NUMBA_CACHE_DIR"] = str(cache)
        return environment


def _listed(features: Iterable[str]) -> str:
    """Features as LLVM and Numba want them."""
    return ",".join(f"+{feature}" for feature in features)


def _targets(features: Mapping[str, bool]) -> dict[str, Target]:
    """This processor, and older ones whose features it has."""
    all_here = tuple(feature for feature, is_here in features.items() if is_here)
    here = Processor(llvm.get_process_triple(), llvm.get_host_cpu_name(), _listed(all_here))
    nehalem = ("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16")
    haswell = (*nehalem, "avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe")
    older = {"nehalem": Target("nehalem", nehalem, 4), "haswell": Target("haswell", haswell, 8)}
    runnable = {
        name: target for name, target in older.items() if here.is_x86 and set(target.features) <= set(all_here)
    }
    return {"here": Target(None, all_here, here.vector_width)} | runnable


TARGETS = _targets(llvm.get_host_cpu_features())


class Encoded(NamedTuple):
    """What a process gave: the width of its vectors, and hidden states by precision of the weights."""

    vector_width: int
    states: dict[str, Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A checkpoint of each precision: heads of 26 features, sizes that are no multiples of a vector."""
    parent = tmp_path_factory.mktemp("checkpoints")
    for precision in PRECISIONS:
        write_config(parent / precision, hidden_size=156, num_attention_heads=6, intermediate_size=200)
        write_weights(parent / precision, dtype=precision)
    return [parent / precision for precision in PRECISIONS]


@pytest.fixture(scope="module")
def batch() -> TokenBatch:
    """So many tokens that 16-bit weights are widened first."""
    random = np.random.default_rng(0)
    return TokenBatch.from_ids([random.integers(0, 200, length).tolist() for length in (64, *range(1, 41))])


@pytest.fixture(scope="module")
def encoded(folders: list[Path], batch: TokenBatch, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoded]:
    """The same encoded for every target."""
    parent = tmp_path_factory.mktemp("encoded")
    np.savez(parent / "ids.npz", ids=batch.input_ids, offsets=batch.offsets)
    processes = {}
    for name, target in TARGETS.items():  # at the same time: each compiles for 10 seconds
        files = [*folders, parent / "ids.npz", parent / f"{name}.npz"]
        command = [sys.executable, "-m", "tests.encode_at_width", *map(str, files)]
        environment = target.environment(parent / name)
        processes[name] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    printed = {name: process.communicate()[0] for name, process in processes.items()}
    results = {}
    for name, process in processes.items():
        assert process.returncode == 0, f"the process for {name} ended with {process.returncode}"
        with np.load(parent / f"{name}.npz") as arrays:
            results[name] = Encoded(int(printed[name]), dict(arrays))
    return results


@pytest.mark.parametrize("name", TARGETS)
def test_states_are_those_of_the_reference(
    name: str, encoded: dict[str, Encoded], folders: list[Path], batch: TokenBatch
) -> None:
    assert encoded[name].vector_width == TARGETS[name].vector_width
    assert encoded[name].states.keys() == {*PRECISIONS, *FEWER}
    for folder in folders:
        expected = BertModel.from_folder(folder, backend="numpy").encode_batch(batch).last_hidden_state
        assert np.abs(encoded[name].states[folder.name] - expected).max() <= STATES


def test_processors_that_round_products_alike_give_the_same_bits(encoded: dict[str, Encoded]) -> None:
    with_fma = [encoded[name].states for name, target in TARGETS.items() if "fma" in target.features]
    for precision in (*PRECISIONS, *FEWER):
        assert all(same_bits(states[precision], with_fma[0][precision]) for states in with_fma)


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.name])
def test_the_parts_for_other_processors(name: str, tmp_path: Path) -> None:
    options = ["-q", "--noconftest", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, "tests/test_kernels.py", "tests/test_low_precision.py"]
    environment = TARGETS[name].environment(tmp_path)
    done = subprocess.run(command, capture_output=True, check=False, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout
