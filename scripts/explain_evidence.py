"""Hold explanations against the models that they explain, and print what was found.

Run python -m scripts.explain_evidence [PAIRS] [PAIRS_OF_CLS]. The texts are sentences of the docstrings of Python's
standard library. The model is all-MiniLM-L6-v2, with its own mean pooling, and then with the pooling of [CLS], for
which it was not trained.
"""

from __future__ import annotations

import ast
import re
import sys
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gte_np import EmbeddingModel
from gte_np.explanation import Explanation
from scripts.fetch_minilm import FOLDER

# Two texts, and the word of each whose deletion brings them together most. A cat is near a dog for the model: there,
# each deletion takes the texts apart, and the words that they share count most.
KNOWN_PAIRS = (
    ("The cat sleeps on the sofa.", "The dog sleeps on the sofa.", (None, None)),
    ("The film was good.", "The film was not good.", (None, "not")),
    ("Alice wrote the report.", "Robert wrote the report.", ("alice", "robert")),
)


def sentences(count: int) -> list[str]:
    """The first so many different sentences of docstrings, of 20 to 120 characters each."""
    found = (sentence for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")) for sentence in _of(path))
    return list(islice(dict.fromkeys(found), count))


def _of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            text = " ".join((ast.get_docstring(node) or "").split())
            yield from (part for part in re.split(r"(?<=\.) ", text) if 20 <= len(part) <= 120)


def main(pairs: int = 1000, cls_pairs: int = 10) -> None:
    model = EmbeddingModel(FOLDER)
    texts = sentences(2 * pairs)
    errors = [_error(model.explain(*texts[2 * n : 2 * n + 2])) for n in range(pairs)]
    print(f"mean pooling: {pairs} pairs, largest difference of the cells' sum from the cosine {max(errors):.1e}")
    for first, second, _ in KNOWN_PAIRS:
        _print_pair(model.explain(first, second))
    cls = EmbeddingModel(FOLDER, pooling="cls")
    rows = [_cls_row(cls.explain(*texts[2 * n : 2 * n + 2])) for n in range(cls_pairs)]
    correlations, unexplained = (np.array(column) for column in zip(*rows, strict=True))
    print(
        f"[CLS] pooling: {cls_pairs} pairs, Spearman correlation of approximation and deletion: median "
        f"{np.median(correlations):.3f}, least {correlations.min():.3f}, largest {correlations.max():.3f}; "
        f"unexplained: median {np.median(unexplained):.3f}, from {unexplained.min():.3f} to {unexplained.max():.3f}"
    )


def _error(found: Explanation) -> float:
    return abs(found.unexplained or 0.0)


def _print_pair(found: Explanation) -> None:
    print(f"  {found.texts[0].text} | {found.texts[1].text} | cosine {found.cosine:.4f}")
    for tokens, effects in zip(found.tokens, found.deletions or (), strict=True):
        order = [place for place in np.argsort(-effects) if not np.isnan(effects[place])]
        print("    without: " + ", ".join(f"{tokens[place]} {effects[place]:+.3f}" for place in order))


def _cls_row(found: Explanation) -> tuple[float, float]:
    """The mean rank correlation of both texts, of what a token contributes and what is lost without it."""
    if found.contributions is None or found.deletions is None:
        raise ValueError("expected a pair that is short enough for both methods.")
    sums = found.contributions.sum(axis=1), found.contributions.sum(axis=0)
    values = [
        spearman(total[text.ordinary], -effects[text.ordinary])
        for text, total, effects in zip(found.texts, sums, found.deletions, strict=True)
    ]
    return float(np.mean(values)), found.unexplained or 0.0


def spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """The correlation of the ranks of (n,) numbers that all differ."""
    first, second = (np.argsort(np.argsort(values)) for values in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
