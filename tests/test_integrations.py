"""The adapters for other libraries without those libraries; tests/extras/test_integrations.py has the real ones."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from gte_np import InputError, MissingDependencyError
from gte_np.integrations.options import check_stored_options
from gte_np.optional import optional_package

# Each module, the package that it imports, and the extra that installs it.
ADAPTERS = {
    "langchain": ("langchain_core", "langchain"),
    "llama_index": ("llama_index", "llama-index"),
    "chroma": ("chromadb", "chroma"),
    "haystack": ("haystack", "haystack"),
    "scikit_learn": ("sklearn", "scikit-learn"),
    "keybert": ("keybert", "keybert"),
    "bertopic": ("bertopic", "bertopic"),
}


def test_importing_the_package_imports_no_other_library() -> None:
    program = "import sys, gte_np, gte_np.integrations; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    loaded = set(done.stdout.split())
    assert "gte_np.integrations" in loaded
    assert not loaded & {package for package, _ in ADAPTERS.values()}


@pytest.mark.parametrize("module", ADAPTERS)
def test_a_missing_library_is_named_with_its_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package, extra = ADAPTERS[module]
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, f"gte_np.integrations.{module}", raising=False)
    with pytest.raises(MissingDependencyError, match=rf"the package {package}, .*pip install 'gte_np\[{extra}\]'"):
        importlib.import_module(f"gte_np.integrations.{module}")


def test_a_library_that_lacks_something_itself_says_so() -> None:
    with pytest.raises(ModuleNotFoundError, match="nothing_like_it") as caught, optional_package("x", "numpy", "x"):
        importlib.import_module("nothing_like_it")
    assert not isinstance(caught.value, MissingDependencyError)


@pytest.mark.parametrize("extra", [extra for _, extra in ADAPTERS.values()])
def test_each_extra_is_declared(extra: str) -> None:
    assert f"\n{extra} = [" in (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text("utf-8")


def test_stored_options_hold_no_secret_and_only_what_can_be_stored() -> None:
    options = {
        "dtype": "int8",
        "truncate_dim": 64,
        "local_files_only": True,
        "prompts": {"query": "q: "},
        "threads": None,
    }
    assert check_stored_options(options) == options
    with pytest.raises(InputError, match="set HF_TOKEN in the environment"):
        check_stored_options({"token": "secret"})
    with pytest.raises(TypeError, match="expected cache_dir to be a value that can be stored, got PosixPath"):
        check_stored_options({"cache_dir": Path("models")})
