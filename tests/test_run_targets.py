"""The comparison of all targets: it finds what differs, and names what it has not run."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np.architectures.config import read_config
from gte_np.kernels.targets import TARGETS, Target
from gte_np.kernels.targets.host import host_target, runnable_targets
from scripts import run_target, run_targets
from scripts.hash_states import LENGTHS, encoder_of, states_of, write_all_odd_sizes
from scripts.run_target import is_same_in_other_batches, run_name, sums_are_exact, write_run
from scripts.run_targets import (
    HERE,
    Comparison,
    Runner,
    build_missing,
    choose,
    judge,
    load,
    main,
    merge,
    not_run,
    runner_of,
)
from tests.programs import run_program

NAMES = [target.name for target in TARGETS]
NEOVERSE = Runner("neoverse", ("neoverse",), ("aarch64-dotprod", "aarch64"))
CORTEX = Runner("cortex", ("cortex",), ("aarch64",))
OLD = Runner(HERE, ("here",), ("x86-64-v3", "x86-64-v2"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint whose hashes are recorded."""
    return write_all_odd_sizes(tmp_path_factory.mktemp("checkpoints"))[1]


@pytest.fixture(scope="module", params=["float32", "int8"])
def run(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A dtype, and what this processor's kernels give in it."""
    out = tmp_path_factory.mktemp("out")
    write_run(out, folder, request.param, host_target())
    return request.param, load(out / run_name(folder, request.param))


def changed(found: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The same with another value."""
    return found | {name: np.asarray(value)}


def test_equal_kernels_pass(run: Any, folder: Path) -> None:
    dtype, found = run
    result = judge(host_target(), folder, dtype, found)
    assert result.passed
    assert result.cells()[-1] == "pass"
    assert result.sums is (True if dtype == "int8" else None)
    assert result.name == {"float32": "float32_of_float16", "int8": "int8"}[dtype]


@pytest.mark.parametrize("name", ["layers", "first_tokens"])
def test_one_bit_is_found(name: str, run: Any, folder: Path) -> None:
    dtype, found = run
    states = found[name].copy()
    states.reshape(-1).view(np.uint32)[-1] ^= 1
    result = judge(host_target(), folder, dtype, changed(found, name, states))
    assert (result.bits, result.passed) == (False, False)
    assert "DIFFER" in result.cells()


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_states_that_are_far_from_the_reference_are_found(value: float, run: Any, folder: Path) -> None:
    dtype, found = run
    states = found["layers"].copy()
    states[1, 2, 3] += value
    result = judge(host_target(), folder, dtype, changed(found, "layers", states))
    assert not replace(result, bits=True).passed


def test_other_batches_and_sums_count(run: Any, folder: Path) -> None:
    dtype, found = run
    assert not judge(host_target(), folder, dtype, changed(found, "same_in_other_batches", False)).passed
    result = judge(host_target(), folder, dtype, changed(found, "exact_integers", False))
    assert result.passed is (dtype != "int8")


def test_one_that_fails_fails_all() -> None:
    good = Comparison("float32", {"float32": 0.0})
    bad = [
        replace(good, bits=False),
        replace(good, batches=False),
        replace(good, sums=False),
        replace(good, reference={"float32": 3e-5}),
        replace(good, transformers=3e-5),
        replace(good, transformers=float("nan")),
    ]
    assert merge("all", [good, replace(good, reference={"int8": 0.1})]).passed
    assert not any(merge("all", [good, one, good]).passed for one in bad)
    nothing = Comparison("nothing")
    assert not nothing.passed
    assert {*nothing.cells()} == {"", "FAIL"}


def test_another_batch_with_other_bits_is_found(folder: Path) -> None:
    encoder = encoder_of(folder, "float32", host_target())
    states = states_of(encoder)[-2]
    assert is_same_in_other_batches(encoder, states)
    states[sum(LENGTHS[:3])] += 1e-6
    assert not is_same_in_other_batches(encoder, states)


def test_a_wrong_sum_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sums_are_exact(folder, host_target())
    multiply = run_target.multiply

    def wrong(*arguments: Any) -> Any:
        products = multiply(*arguments)
        products[5, 7] += 1
        return products

    monkeypatch.setattr(run_target, "multiply", wrong)
    assert not sums_are_exact(folder, host_target())


def test_a_target_is_run_by_the_processor_that_has_it_for_its_best() -> None:
    assert choose([OLD], quick=False) == {"x86-64-v3": OLD, "x86-64-v2": OLD}
    assert choose([OLD, NEOVERSE], quick=False)["aarch64"] is NEOVERSE
    for order in ([NEOVERSE, CORTEX], [CORTEX, NEOVERSE]):
        assert choose(order, quick=False) == {"aarch64-dotprod": NEOVERSE, "aarch64": CORTEX}


def test_quick_leaves_out_those_between() -> None:
    new = Runner(HERE, (), ("x86-64-v4", "x86-64-v3", "x86-64-v2"))
    assert list(choose([new], quick=True)) == ["x86-64-v4", "x86-64-v2"]
    assert "x86-64-v3 (--quick)" in not_run(choose([new], quick=True), [new], quick=True)


def test_what_is_not_run_is_named() -> None:
    told = not_run({}, [], quick=False)
    assert all(f"{name} (" in told for name in NAMES)
    everything = dict.fromkeys(NAMES, NEOVERSE)
    assert not_run(everything, [NEOVERSE], quick=False) == "Not run: nothing."
    assert "all checkpoints but one on " in not_run(everything, [NEOVERSE], quick=True)


@pytest.mark.parametrize("bits", [True, False])
@pytest.mark.usefixtures("minilm_folder")
def test_the_exit_status(bits: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    best = runnable_targets()[0]

    def found(target: Target, *_: object) -> Comparison:
        return Comparison(target.name, {"float32": 0.0}, bits=bits or target != best)

    monkeypatch.setattr(run_targets, "run", found)
    monkeypatch.setattr(run_targets, "build_missing", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["run_targets"])
    assert main() == int(not bits)
    printed = capsys.readouterr().out.splitlines()
    here = [target.name for target in runnable_targets()]
    assert [line.split()[1] for line in printed if f"| {HERE} |" in line] == here
    assert sum("FAIL" in line for line in printed) == int(not bits)
    assert printed[-1].startswith("Not run: ")
    assert all((f"{name} (" in printed[-1]) is (name not in here) for name in NAMES)


def test_kernels_that_are_missing_or_old_are_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def note(command: list[str], *, check: bool) -> None:
        assert check
        built.extend(command[command.index("--target") + 1 :])

    monkeypatch.setattr("scripts.run_targets.subprocess.run", note)
    for number, name in enumerate(NAMES[:2]):
        (tmp_path / f"{name}.so").touch()
        os.utime(tmp_path / f"{name}.so", (number, number))
    build_missing(TARGETS[:3], tmp_path, since=0)
    assert built == [NAMES[2]]
    build_missing(TARGETS[:2], tmp_path, since=1)
    assert built == [NAMES[2], NAMES[0]]


def test_a_process_that_ends_badly_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = "import sys; print('no such instruction', file=sys.stderr); sys.exit(3)"
    crashing = Runner("crashing", (sys.executable, "-c", program), ())
    assert not run_targets.run(host_target(), crashing, tmp_path, [folder]).passed
    assert capsys.readouterr().out == f"{host_target().name}: exit status 3: no such instruction\n"


@pytest.mark.parametrize("command", [["no-such-command"], [sys.executable, "-c", "import nothing_of_this_name"]])
def test_a_command_that_cannot_be_run_is_told(command: list[str]) -> None:
    with pytest.raises(SystemExit, match="--python: expected a command that runs a Python "):
        runner_of("given", command)


def test_this_processor_tells_its_targets() -> None:
    runner = runner_of(HERE, [sys.executable])
    assert runner.targets == tuple(target.name for target in runnable_targets())


def test_the_part_that_is_emulated_needs_neither_a_compiler_nor_pytest() -> None:
    program = "import sys, scripts.run_target; print({'numba', 'llvmlite', 'pytest'} & {*sys.modules})"
    assert run_program(program) == "set()\n"


def test_the_small_checkpoint_has_room_for_all_texts(folder: Path) -> None:
    assert max(LENGTHS) <= read_config(folder).max_position_embeddings
