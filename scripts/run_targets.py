"""Run the kernels that were built ahead of time, on every target, and compare what they give: `make targets`.

    python -m scripts.run_targets                                # the targets that this processor runs
    python -m scripts.run_targets --python "DIR/python -cpu cortex-a72" --python "DIR/python -cpu neoverse-n1"

Each COMMAND runs a Python of another processor in this folder, as `qemu-aarch64 -cpu neoverse-n1 -L ROOT
ROOT/usr/bin/python3` does, with NumPy, tokenizers and safetensors. A target is run by the Python that has it for its
best one, or else by any that has it, in a process without Numba (`scripts.run_target`). There are five comparisons:

- reference: the largest difference of hidden states from the NumPy backend's, with the limits of the tests;
- transformers: the same from the golden arrays of transformers, for all-MiniLM-L6-v2 in float32;
- bits: hashes of hidden states against tests/data/state_hashes.json, where all targets that round alike share one;
- batches: short texts alone, and in another order, to the last bit;
- int8 sums: sums of products of bytes against exact ones.

Kernels that are missing are built, and so are those in build/kernels that are older than their source. Exits with
status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gte_np import BertModel, formats, kernels
from gte_np.architectures.config import read_config
from gte_np.encoder_interface import FloatArray
from gte_np.formats.int8 import INT8
from gte_np.kernels.runtime.prebuilt import library_name
from gte_np.kernels.targets import TARGETS, Target
from gte_np.kernels.targets.host import host_features, this_machine
from scripts.build_kernels import OUT
from scripts.fetch_minilm import FOLDER as MINILM
from scripts.hash_states import DTYPES, LENGTHS, batch_for, digest, recorded_hashes, write_all_odd_sizes
from scripts.run_target import run_name
from tests.samples import MINILM_LENGTHS, TOLERANCES, golden

HERE = "this processor"
HEADER = ("reference", "transformers", "bits", "batches", "int8 sums", "seconds", "result")


@dataclass(frozen=True)
class Runner:
    """A Python: the command that runs it, and the names of its processor's targets, the best one first."""

    name: str
    command: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass
class Comparison:
    """What was found of a target, or of one of its formats: None where nothing of the kind was compared."""

    name: str
    reference: dict[str, float] = field(default_factory=dict)  # dtype -> the largest difference
    transformers: float | None = None
    bits: bool = True
    batches: bool = True
    sums: bool | None = None
    seconds: float = 0

    @property
    def passed(self) -> bool:
        """Whether something was compared, and everything is equal or within its limit; NaN is not."""
        return (
            bool(self.reference)
            and all(difference <= TOLERANCES[dtype] for dtype, difference in self.reference.items())
            and (self.transformers is None or self.transformers <= TOLERANCES["float32"])
            and self.bits
            and self.batches
            and self.sums is not False
        )

    def cells(self) -> list[str]:
        """What a table shows, as in HEADER."""
        if not self.reference:
            return [""] * (len(HEADER) - 1) + ["FAIL"]
        return [
            ", ".join(f"{dtype} {difference:.1e}" for dtype, difference in self.reference.items()),
            "" if self.transformers is None else f"{self.transformers:.1e}",
            "equal" if self.bits else "DIFFER",
            "equal" if self.batches else "DIFFER",
            "" if self.sums is None else "exact" if self.sums else "WRONG",
            f"{self.seconds:.1f}",
            "pass" if self.passed else "FAIL",
        ]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", action="append", default=[], metavar="COMMAND", help="another processor's Python")
    parser.add_argument("--kernels", type=Path, metavar="DIR", help=f"use those there as they are; default: {OUT}")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="of each processor only the best and the last target, and one small checkpoint on others than this",
    )
    options = parser.parse_args()
    runners = [runner_of(HERE, [sys.executable]), *(runner_of(text, shlex.split(text)) for text in options.python)]
    chosen = choose(runners, options.quick)
    targets = [target for target in TARGETS if target.name in chosen]
    folder = options.kernels or OUT
    build_missing(targets, folder, since=0 if options.kernels else time_of_the_source())
    print_header("target, format", *HEADER)
    with tempfile.TemporaryDirectory() as temporary:
        checkpoints, results = [MINILM, *write_all_odd_sizes(Path(temporary))], {}
        for target in targets:
            runner = chosen[target.name]
            some = checkpoints[-1:] if options.quick and runner.name != HERE else checkpoints
            results[target.name] = run(target, runner, folder, some)
    print_summary(results, chosen)
    print(f"\n{not_run(chosen, runners, options.quick)}")
    return int(not all(result.passed for result in results.values()))


# --- who runs what ------------------------------------------------------------------------------------------------


def runner_of(name: str, command: Sequence[str]) -> Runner:
    """Ask a Python for the targets of its processor. Exits with a message if it cannot be run."""
    try:
        done = subprocess.run(
            [*command, "-m", "scripts.run_target", "--list"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        told = getattr(error, "stderr", "") or str(error)
        raise SystemExit(
            f"--python: expected a command that runs a Python with numpy, tokenizers and safetensors, got {name!r}, "
            f"which failed: {told.strip().splitlines()[-1]}"
        ) from None
    return Runner(name, tuple(command), tuple(json.loads(done.stdout)))


def choose(runners: Sequence[Runner], quick: bool) -> dict[str, Runner]:
    """Target -> who runs it: the one that has it highest among its targets, the first of those."""
    chosen = {}
    for target in TARGETS:
        able = [runner for runner in runners if target.name in runner.targets]
        if able:
            chosen[target.name] = min(able, key=lambda runner: runner.targets.index(target.name))
    if quick:
        ends = {name for runner in runners for name in (*runner.targets[:1], *runner.targets[-1:])}
        chosen = {name: runner for name, runner in chosen.items() if name in ends}
    return chosen


def not_run(chosen: dict[str, Runner], runners: Sequence[Runner], quick: bool) -> str:
    """A line that names every target that was not run, and why, and what else was left out."""
    reasons = [f"{target.name} ({why_not(target, runners)})" for target in TARGETS if target.name not in chosen]
    emulated = [name for name, runner in chosen.items() if runner.name != HERE]
    if quick and emulated:
        reasons.append(f"all checkpoints but one on {' and '.join(emulated)} (--quick)")
    return f"Not run: {'; '.join(reasons) or 'nothing'}."


def why_not(target: Target, runners: Sequence[Runner]) -> str:
    """Why a target was not run."""
    if any(target.name in runner.targets for runner in runners):
        return "--quick"
    if target.machine != this_machine():
        return f"for {target.machine}, and no --python runs it"
    return f"{HERE} lacks {', '.join(sorted(target.features - host_features()))}"


def build_missing(targets: Sequence[Target], folder: Path, since: float) -> None:
    """Build the kernels that are not there, or were written before a time."""
    paths = {target.name: folder / library_name(target) for target in targets}
    missing = [name for name, path in paths.items() if not path.is_file() or path.stat().st_mtime < since]
    if missing:
        command = [sys.executable, "-m", "scripts.build_kernels", "--out", str(folder), "--target", *missing]
        subprocess.run(command, check=True)


def time_of_the_source() -> float:
    """When what kernels are compiled from was last changed."""
    folders = [Path(folder) for package in (formats, kernels) for folder in package.__path__]
    return max(path.stat().st_mtime for folder in folders for path in folder.rglob("*.py"))


# --- what they give -----------------------------------------------------------------------------------------------


def run(target: Target, runner: Runner, folder: Path, checkpoints: Sequence[Path]) -> Comparison:
    """Run a target's kernels in a folder, and print a row for each format; return what was found in all of them."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [*runner.command, "-m", "scripts.run_target", target.name, "--kernels", str(folder.resolve())]
        command += ["--out", temporary, "--checkpoints", *map(str, checkpoints)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            told = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            print(f"{target.name}: exit status {done.returncode}: {told}", flush=True)
            return Comparison(target.name)
        found = [
            judge(target, checkpoint, dtype, load(Path(temporary, run_name(checkpoint, dtype))))
            for checkpoint in checkpoints
            for dtype in DTYPES
        ]
    formats = {one.name: one for one in found}
    for name in formats:
        formats[name] = merge(name, [one for one in found if one.name == name])
        print_row(f"{target.name}, {name}", *formats[name].cells())
    return merge(target.name, found)


def load(path: Path) -> dict[str, Any]:
    """The arrays of a run."""
    with np.load(path) as arrays:
        return dict(arrays)


def judge(target: Target, folder: Path, dtype: str, found: dict[str, Any]) -> Comparison:
    """Compare what a target gave for a checkpoint in a dtype."""
    layers = found["layers"]  # (L + 1, N, D)
    golden_states = folder == MINILM and dtype == "float32"
    return Comparison(
        str(found["format"]),
        {dtype: worst(layers, reference_states(folder, dtype))},
        from_transformers(layers) if golden_states else None,
        digest([*layers, found["first_tokens"]]) == recorded_hashes(target).get(folder.name, {}).get(dtype),
        bool(found["same_in_other_batches"]),
        bool(found["exact_integers"]) if dtype == INT8.dtype else None,
        float(found["seconds"]),
    )


def merge(name: str, parts: Sequence[Comparison]) -> Comparison:
    """The worst of comparisons, and their time."""
    differences = {dtype: [part.reference[dtype] for part in parts if dtype in part.reference] for dtype in DTYPES}
    transformers = [part.transformers for part in parts if part.transformers is not None]
    sums = [part.sums for part in parts if part.sums is not None]
    return Comparison(
        name,
        {dtype: float(np.max(values)) for dtype, values in differences.items() if values},
        float(np.max(transformers)) if transformers else None,
        all(part.bits for part in parts),
        all(part.batches for part in parts),
        all(sums) if sums else None,
        sum(part.seconds for part in parts),
    )


@cache
def reference_states(folder: Path, dtype: str) -> FloatArray:
    """Hidden states of every layer by the NumPy backend, (L + 1, N, D)."""
    model = BertModel.from_folder(folder, backend="numpy", dtype=dtype)
    return np.stack(model.encode_batch(batch_for(model.config), keep_layers=True).hidden_states or [])


def from_transformers(layers: FloatArray) -> float:
    """The largest difference of all-MiniLM-L6-v2's states, (L + 1, N, D), from the golden arrays."""
    batch, arrays = batch_for(read_config(MINILM)), golden("minilm")
    differences = [
        worst(layers[:, batch.slice(text)][:, [0, length // 2, length - 1]], arrays[f"states_{length}"])
        for text, length in enumerate(LENGTHS)
        if length in MINILM_LENGTHS
    ]
    return float(np.max(differences))


def worst(ours: FloatArray, theirs: FloatArray) -> float:
    """The largest absolute difference; NaN if there is one."""
    return float(np.abs(ours - theirs).max())


# --- what is printed ----------------------------------------------------------------------------------------------


def print_row(*cells: str) -> None:
    """A row of a table in Markdown."""
    print(f"| {' | '.join(cells)} |", flush=True)


def print_header(*cells: str) -> None:
    """The first two rows of a table in Markdown."""
    print_row(*cells)
    print_row(*["---"] * len(cells))


def print_summary(results: dict[str, Comparison], chosen: dict[str, Runner]) -> None:
    """A table with a row for each target."""
    print()
    print_header("target", "run by", *HEADER)
    for name, result in results.items():
        print_row(name, chosen[name].name, *result.cells())


if __name__ == "__main__":
    sys.exit(main())
