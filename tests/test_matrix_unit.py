"""Matrix units: the processor's own if it has one, and emulated ones on every x86 processor."""

from __future__ import annotations

import ctypes
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np.errors import BackendError
from gte_np.formats.bfloat16 import BFLOAT16
from gte_np.formats.int8 import INT8
from gte_np.formats.weight_format import WeightFormat
from gte_np.kernels.runtime import kernel_functions
from gte_np.kernels.runtime.kernel_functions import TARGET_VARIABLE, chosen_target
from gte_np.kernels.runtime.unit_check import unit_is_right
from gte_np.kernels.targets import TARGETS, Target, host
from gte_np.kernels.targets.matrix_units import TILE, UNIT_ROWS
from gte_np.kernels.targets.x86 import AVX512_AMX, AVX512_BF16
from tests.compiled import RUNNABLE
from tests.emulation import amx
from tests.emulation.amx_arithmetic import widened
from tests.emulation.matrix_units import check_attention, check_encoder, check_products, write_checkpoint

WITH_UNIT = [target for name, target in RUNNABLE.items() if target.matrix_unit is not None and name != "host"]


@pytest.mark.parametrize("target", WITH_UNIT, ids=lambda target: target.name)
def test_the_unit_of_this_processor(target: Target, tmp_path: Path) -> None:
    check_products(target)
    check_attention(target)
    check_encoder(target, AVX512_BF16, write_checkpoint(tmp_path))


if amx.CAN_EMULATE:

    def test_emulated_units(tmp_path: Path) -> None:
        command = [sys.executable, "-m", "tests.emulation.matrix_units", str(amx.build(tmp_path))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout.split()[-1]) > 1000


# --- the check at load --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_format", [INT8, BFLOAT16], ids=lambda weight_format: weight_format.name)
@pytest.mark.parametrize("error", [0, 1])
def test_sums_are_compared(weight_format: WeightFormat, error: int) -> None:
    target = AVX512_AMX

    def multiply(x: int, weights: int, sums: int) -> None:
        """What a kernel does with these addresses."""
        kind = np.int32 if weight_format is INT8 else np.float32
        rows, words = array_at(x, (UNIT_ROWS, TILE), np.uint32), array_at(weights, (TILE, target.panel), np.uint32)
        exact = values_of(weight_format, rows) @ values_of(weight_format, np.ascontiguousarray(words.T)).T
        found = array_at(sums, (UNIT_ROWS, target.panel), kind)
        found[:] = exact
        found[-1, -1] += error

    assert unit_is_right(weight_format, target, multiply) == (error == 0)


def array_at(address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
    """The array that lies at an address."""
    memory = (ctypes.c_uint8 * (4 * int(np.prod(shape)))).from_address(address)
    return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)


def values_of(weight_format: WeightFormat, words: Any) -> Any:
    """The numbers in words, as integers."""
    if weight_format is INT8:
        return words.view(np.int8).astype(np.int64)
    return widened(words.view(np.uint16)).astype(np.int64)


@pytest.fixture
def broken_unit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A processor with a unit that gives wrong sums."""
    monkeypatch.setattr(kernel_functions, "unit_is_right", lambda *arguments: False)
    monkeypatch.setattr(kernel_functions, "function", lambda *arguments, **options: None)
    kernel_functions._unit_works.cache_clear()
    yield
    kernel_functions._unit_works.cache_clear()


@pytest.mark.usefixtures("broken_unit")
def test_a_unit_that_gives_wrong_sums_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kernel_functions, "runnable_targets", lambda: TARGETS)
    monkeypatch.setattr("gte_np.kernels.runtime.prebuilt.is_built", lambda target: True)
    with caplog.at_level(logging.WARNING):
        assert chosen_target() == AVX512_BF16
    assert "gives wrong sums here: it is not used" in caplog.text
    monkeypatch.setenv(TARGET_VARIABLE, AVX512_AMX.name)
    with pytest.raises(BackendError, match="expected a processor whose AMX multiplies rightly"):
        chosen_target()


@pytest.mark.parametrize(("flags", "granted", "found"), [
    (["avx2", "amx_tile", "amx_int8", "amx_bf16"], True, {"avx2", "amx-tile", "amx-int8", "amx-bf16"}),
    (["avx2", "amx_tile", "amx_int8", "amx_bf16"], False, {"avx2"}),
    (["avx2"], True, {"avx2"}),
])  # fmt: skip
def test_amx_needs_leave(flags: list[str], granted: bool, found: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(host, "this_machine", lambda: "x86_64")
    monkeypatch.setattr(host, "_cpuinfo_flags", lambda: flags)
    monkeypatch.setattr(host, "may_use_amx", lambda: granted)
    assert host.host_features.__wrapped__() == found
