"""The choice of a target: what GTE_NP_TARGET names, what was built ahead of time, or this very processor."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import BackendError, EmbeddingModel, InputError, MissingDependencyError
from gte_np.kernels.runtime import kernel_functions, object_cache, prebuilt
from gte_np.kernels.runtime.kernel_functions import NATIVE, TARGET_VARIABLE, chosen_target, function, kernel_files
from gte_np.kernels.targets import TARGETS, Target, host
from gte_np.kernels.targets.host import host_features, host_target, runnable_targets

HERE = runnable_targets()
ELSEWHERE = [target for target in TARGETS if target not in HERE]


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TARGET_VARIABLE, raising=False)


def built(monkeypatch: pytest.MonkeyPatch, targets: list[Target]) -> None:
    """From now on these targets, and no others, have kernels that were built ahead of time."""
    monkeypatch.setattr(prebuilt, "is_built", lambda target: target in targets)
    monkeypatch.setattr(kernel_functions, "_unit_works", lambda target: True)  # there is nothing to check it with


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on there is no Numba."""
    monkeypatch.setattr(object_cache, "find_spec", lambda name: None)


def test_the_best_target_that_was_built_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    built(monkeypatch, TARGETS)
    assert chosen_target() is HERE[0]
    built(monkeypatch, [*ELSEWHERE, *HERE[1:]])
    assert chosen_target() is HERE[1]


@pytest.mark.parametrize("targets", [[], ELSEWHERE])
def test_without_one_it_is_this_very_processor(targets: list[Target], monkeypatch: pytest.MonkeyPatch) -> None:
    built(monkeypatch, targets)
    assert chosen_target() == host_target()


def test_native_is_this_very_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    built(monkeypatch, TARGETS)
    monkeypatch.setenv(TARGET_VARIABLE, NATIVE)
    assert chosen_target() == host_target()


@pytest.mark.parametrize("target", HERE, ids=[target.name for target in HERE])
def test_any_target_that_runs_here_can_be_named(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TARGET_VARIABLE, target.name)
    assert chosen_target() is target


@pytest.mark.parametrize("name", ["AVX2", "x86-64-v3 ", "../x", *(target.name for target in ELSEWHERE)])
def test_no_other_name_is_accepted(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv(TARGET_VARIABLE, name)
    with pytest.raises(InputError, match=f"{TARGET_VARIABLE}: expected .*, got"):
        EmbeddingModel(folder)


def test_without_numba_or_kernels_there_is_one_warning_and_numpy(
    monkeypatch: pytest.MonkeyPatch, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built(monkeypatch, [])
    without_numba(monkeypatch)
    with pytest.raises(
        MissingDependencyError, match=r"expected kernels that were built .* pip install 'gte_np\[jit\]'"
    ):
        EmbeddingModel(folder, backend="numba")
    model = EmbeddingModel(folder)
    assert "backend='numpy'" in repr(model.bert)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_named_target_needs_its_kernels_or_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    without_numba(monkeypatch)
    monkeypatch.setenv(TARGET_VARIABLE, HERE[0].name)
    with pytest.raises(MissingDependencyError):
        chosen_target()
    built(monkeypatch, HERE)
    assert chosen_target() is HERE[0]


def test_an_object_that_cannot_be_loaded_is_one_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / prebuilt.library_name(HERE[0])).write_bytes(b"\x7fELF, cut")
    monkeypatch.setattr(prebuilt, "FOLDER", tmp_path)
    for cached in (prebuilt.is_built, prebuilt._library, kernel_functions._prebuilt):
        monkeypatch.setattr(cached.__module__ + "." + cached.__name__, cached.__wrapped__)
    with pytest.raises(BackendError, match=f"expected kernels that can be loaded from {tmp_path}, got: "):
        function("pack_4_bytes", HERE[0], 3)
    with pytest.raises(BackendError):
        EmbeddingModel(folder, backend="numba")


def test_files_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(path.suffix == ".o" for path in kernel_files())
    built(monkeypatch, HERE)
    assert kernel_files() == [prebuilt.FOLDER / f"{HERE[0].name}.so"]


# --- what the processor can do ------------------------------------------------------------------------------------


def test_linux_and_llvm_agree_on_what_this_processor_can_do() -> None:
    import llvmlite.binding as llvm

    known = {name for target in TARGETS for name in target.features}
    by_llvm = {name for name, is_here in llvm.get_host_cpu_features().items() if is_here}
    assert host_features() & known >= by_llvm & known


def test_numpy_and_linux_agree_on_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, NumPy tells enough for a target, if not always for the best."""
    monkeypatch.setattr(host, "_cpuinfo_flags", list)
    host_features.cache_clear()
    try:
        assert runnable_targets()[-1] == HERE[-1]
        assert set(runnable_targets()) <= set(HERE)
        widths = {target.vector_width for target in runnable_targets()}
        assert widths == {target.vector_width for target in HERE}
    finally:
        host_features.cache_clear()


@pytest.mark.parametrize(
    ("simd", "best"),
    [
        ({"baseline": ["SSE", "SSE2", "SSE3"], "found": []}, None),
        ({"baseline": ["SSE"], "found": ["SSSE3", "SSE41", "POPCNT", "SSE42", "AVX"]}, "x86-64-v2"),
        ({"baseline": ["X86_V2"], "found": ["X86_V3"]}, "x86-64-v3"),
        ({"baseline": ["SSE42"], "found": ["AVX2"]}, "x86-64-v2"),  # without fused multiply-adds
        ({"baseline": ["SSE42"], "found": ["FMA3", "AVX2", "AVX512_SKX"]}, "x86-64-v4"),
        ({"baseline": ["X86_V2"], "found": ["X86_V3", "X86_V4", "AVX512_ICL"]}, "x86-64-v4-vnni"),
        ({"baseline": ["X86_V2"], "found": ["X86_V3", "X86_V4", "AVX512_ICL", "AVX512_SPR"]}, "x86-64-v4-bf16"),
    ],
)
def test_targets_by_what_numpy_found(simd: dict[str, Any], best: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "show_config", lambda mode: {"SIMD Extensions": simd})
    features = host._features_by_numpy()
    targets = [target.name for target in TARGETS if target.runs_on("x86_64", features)]
    assert next(iter(targets), None) == best


@pytest.mark.skipif(sys.platform != "linux", reason="getauxval is Linux's")
@pytest.mark.parametrize(
    ("words", "features", "best"),
    [
        ({}, set(), "aarch64"),
        ({16: 1 << 20}, {"dotprod"}, "aarch64-dotprod"),
        ({16: 1 << 20, 26: 1 << 13 | 1 << 14}, {"dotprod", "i8mm", "bf16"}, "aarch64-bf16"),
        ({16: 1 << 20, 26: 1 << 13}, {"dotprod", "i8mm"}, "aarch64-i8mm"),
    ],
)
def test_targets_of_arm_by_getauxval(
    words: dict[int, int], features: set[str], best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: type("Library", (), {"getauxval": _Callable(words)})())
    found = host._features_of_linux_arm()
    assert found == features
    assert next(target.name for target in TARGETS if target.runs_on("aarch64", found)) == best


class _Callable:
    """A C function that answers from a table; ctypes lets its types be set."""

    argtypes: Any = None
    restype: Any = None

    def __init__(self, answers: dict[int, int]) -> None:
        self.answers = answers

    def __call__(self, word: int) -> int:
        return self.answers.get(word, 0)
