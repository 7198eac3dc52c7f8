"""The structure of the package: imports point downward only, and functions stay short."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "gte_np"
# From the bottom to the top: a part imports from those below it, and from none beside it.
LEVELS = (
    ("errors", "version"),
    ("arguments",),
    ("files", "forks", "formats", "optional", "token_batch", "known_models", "progress", "pages", "compatibility"),
    ("checkpoint", "batching"),
    ("loaded", "architectures"),
    ("encoder_interface",),
    ("tokenization", "reference", "pooling", "similarity"),
    ("kernels.targets", "embedding_quantization", "modules", "communities"),
    ("kernels.language",),
    ("kernels.operations",),
    ("kernels.runtime",),
    ("backend", "sentence_config", "doctor", "pipeline"),
    ("bert_model",),
    ("saving", "head"),
    ("merging", "explanation"),
    ("embedding_model",),
    ("util",),
    ("",),  # the package itself
    ("jobs", "terminal"),
    ("integrations", "ray", "serve"),
    ("job_commands", "serve_command", "mteb_command", "explain_command"),
    ("cli",),
    ("__main__",),
)
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    """The part of the table that a module, without "gte_np.", belongs to."""
    names = module.split(".")
    for length in range(len(names), 0, -1):
        if ".".join(names[:length]) in LEVEL_OF:
            return ".".join(names[:length])
    return ""


def name_of(path: Path) -> str:
    """A module's name without "gte_np."."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gte_np."):
            yield (node.module or "").removeprefix("gte_np.")
        elif isinstance(node, ast.ImportFrom) and node.module == "gte_np":
            yield from (alias.name if (PACKAGE / f"{alias.name}.py").is_file() else "" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (
                alias.name.removeprefix("gte_np.") for alias in node.names if alias.name.startswith("gte_np.")
            )


def test_every_module_has_a_level() -> None:
    lost = [name_of(path) for path in MODULES if not part_of(name_of(path)) and name_of(path) not in ("", "kernels")]
    assert not lost


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downward(path: Path) -> None:
    here = part_of(name_of(path))
    upward = [name for name in imported(path) if part_of(name) != here and LEVEL_OF[part_of(name)] >= LEVEL_OF[here]]
    assert not upward


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name_of(path): set(imported(path)) for path in MODULES}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"{' -> '.join(above)} -> {module}"
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function of the package, by the name of its module and its own."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                yield f"{name_of(path)}.{node.name}", node


def lines_of(function: ast.FunctionDef) -> int:
    """Lines of a body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body and body[-1].end_lineno else 0


def test_functions_are_short() -> None:
    lengths = [lines_of(function) for _, function in functions()]
    assert median(lengths) <= 4
    assert quantiles(lengths, n=10)[-1] <= 15


def arguments_of(function: ast.FunctionDef) -> list[str]:
    """The names of the arguments that a caller gives; Numba gives intrinsics their `typing`."""
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [argument.arg for argument in given if argument.arg not in ("self", "cls", "typing")]


def test_functions_take_few_arguments() -> None:
    """Six at most, but in the public interface, whose arguments are those of other packages."""
    public = ("embedding_model.", "bert_model.", "tokenization.tokenizer.", "similarity.", "checkpoint.hub.")
    many = {name for name, function in functions() if len(arguments_of(function)) > 6 and not name.startswith(public)}
    assert not many
