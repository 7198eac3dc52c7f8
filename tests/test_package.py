"""The package as a whole: what importing it costs, what it exports, its layers, its documents."""

from __future__ import annotations

import ast
import doctest
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gte_np
from benchmarks import tables
from tests.hub_server import HubServer, client_environment
from tests.layouts import write_layout

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "gte_np"
MODULES = ["gte_np", *(module.name for module in pkgutil.walk_packages([str(PACKAGE)], "gte_np."))]
HEAVY = ("numba", "torch", "transformers", "huggingface_hub", "scipy", "tqdm")


def test_importing_is_light() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import gte_np"]
    times = subprocess.run(command, capture_output=True, check=True, text=True).stderr
    modules = re.findall(r"\| +([\w.]+)$", times, re.MULTILINE)
    assert "gte_np.embedding_model" in modules
    assert not [name for name in modules if name.partition(".")[0] in HEAVY]


# What has an extra of its own, and is tested with it: see tests/extras.
APART = ("gte_np.__main__", "gte_np.integrations.")


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith(APART)])
def test_docstrings(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_exports() -> None:
    assert gte_np.__all__ == [
        "KNOWN_MODELS",
        "BackendError",
        "BertConfig",
        "BertModel",
        "BertOutput",
        "CheckpointError",
        "EmbeddingModel",
        "GteError",
        "InputError",
        "KnownModel",
        "MissingDependencyError",
        "ModelNotFoundError",
        "TokenBatch",
        "Tokenizer",
        "UnsupportedModelError",
        "cos_sim",
        "dot_score",
        "euclidean_sim",
        "manhattan_sim",
        "normalize",
        "pairwise_cos_sim",
        "pairwise_dot_score",
        "pairwise_euclidean_sim",
        "pairwise_manhattan_sim",
        "paraphrase_mining",
        "paraphrase_mining_embeddings",
        "quantize_embeddings",
        "semantic_search",
    ]
    assert all(hasattr(gte_np, name) for name in gte_np.__all__)
    assert gte_np.__version__ == importlib.metadata.version("gte_np")


def test_packages_whose_private_parts_are_used_are_bounded() -> None:
    """Only versions that have been tried are taken: the lowest and the highest by hand, see pyproject.toml."""
    required = importlib.metadata.requires("gte_np") or []
    for package in ("numba", "llvmlite"):
        [versions] = [line.removeprefix(package) for line in required if re.match(rf"{package}[<>=]", line)]
        bounds = dict(re.findall(r"(<|>=)([\d.]+)", versions))
        least, limit, here = (
            [int(part) for part in version.split(".")[:2]]
            for version in (bounds[">="], bounds["<"], importlib.metadata.version(package))
        )
        assert least <= here < limit


def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_only_the_hub_module_knows_the_hub() -> None:
    users = {path.name for path in PACKAGE.rglob("*.py") if any("huggingface" in name for name in imports(path))}
    assert users == {"hub.py", "doctor.py"}


def test_the_reference_imports_numpy_and_little_else() -> None:
    allowed = {"__future__", "collections.abc", "dataclasses", "math", "typing"}
    allowed |= {"numpy", "numpy.typing", "numpy.polynomial"}
    for path in (PACKAGE / "reference").glob("*.py"):
        assert {name for name in imports(path) if not name.startswith("gte_np")} <= allowed


def test_nothing_is_unpickled_or_executed() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert not imports(path) & {"pickle", "marshal", "shelve", "subprocess", "importlib"}
        assert not re.search(r"(?<!def )\b(eval|exec)\(", path.read_text("utf-8"))


# --- the README -------------------------------------------------------------------------------------------------

README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """A hub on loopback with a small thenlper/gte-large-zh, and an empty cache."""
    repository = write_layout("thenlper/gte-large-zh", tmp_path / "repository")
    with HubServer({"thenlper/gte-large-zh": repository}) as hub, client_environment(tmp_path / "home", hub.endpoint):
        yield hub


@pytest.mark.parametrize("snippet", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_in_the_readme(
    snippet: str, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # a snippet may save a model
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out
    assert "model.safetensors" in hub.files("GET")
    assert "pytorch_model.bin" not in hub.files("GET")


def sessions() -> list[tuple[str, str]]:
    """Each command of the README whose output is shown, and the output."""
    blocks = re.findall(r"```console\n\$ (.*?)```", README, re.DOTALL)
    return [(command, output) for command, _, output in (block.partition("\n") for block in blocks)]


@pytest.mark.parametrize(("command", "output"), sessions())
def test_sessions_in_the_readme(
    command: str, output: str, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    command = command.replace("gte-np", f"{sys.executable} -m gte_np", 1)
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True, text=True, encoding="utf-8")
    # Numbers come from sums whose order depends on the processor: their last digits may differ.
    number = r"-?\d+\.\d+"
    assert re.split(number, done.stdout) == re.split(number, output)
    numbers = [[float(found) for found in re.findall(number, text)] for text in (done.stdout, output)]
    assert numbers[0] == pytest.approx(numbers[1], abs=2e-4 if "similarity" in command else 1e-6)


DOCUMENTS = (
    *("README.md", "ARCHITECTURE.md", "CORPUS.md", "DEPLOYMENT.md", "DIFFERENCES.md", "DISTRIBUTED.md"),
    *("INTEGRATIONS.md", "MTEB.md", "SERVING.md", "STORES.md"),
    *("benchmarks/README.md", "benchmarks/RESULTS.md", "gte_np/reference/README.md"),
)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_in_the_documents(document: str) -> None:
    path = ROOT / document
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text("utf-8")):
        assert (path.parent / link).exists(), link


def test_tables_are_those_of_the_results() -> None:
    results = tables.read_results()
    assert tables.REPORT.read_text("utf-8") == tables.report(results)
    assert tables.replace_block(README, tables.summary(results)) == README
