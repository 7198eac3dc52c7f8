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
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np import EmbeddingModel
from gte_np.explanation import Explanation
from gte_np.explanation.attribution import attribute, plan_of
from gte_np.explanation.layers import layer_states
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


def main(pairs: int = 1000, cls_pairs: int = 30) -> None:
    model = EmbeddingModel(FOLDER)
    texts = sentences(2 * pairs)
    errors = [_error(model.explain(*texts[2 * n : 2 * n + 2])) for n in range(pairs)]
    print(f"mean pooling: {pairs} pairs, largest difference of the cells' sum from the cosine {max(errors):.1e}")
    for first, second, _ in KNOWN_PAIRS:
        _print_pair(model.explain(first, second))
    cls = EmbeddingModel(FOLDER, pooling="cls")
    cls_texts = [texts[2 * n : 2 * n + 2] for n in range(cls_pairs)]
    for layer in range(cls.bert.config.num_hidden_layers):
        rows = [rank_correlations(_from_layer(cls, pair, layer)) for pair in cls_texts]
        print(f"[CLS] pooling, from layer {layer + 1} on: {cls_pairs} pairs, Spearman correlations with deletion")
        for name, values in zip(RankCorrelations._fields, np.array(rows).T, strict=True):
            print(f"  {name}: median {np.median(values):.3f}, from {values.min():.3f} to {values.max():.3f}")


def _error(found: Explanation) -> float:
    return abs(found.unexplained or 0.0)


def _print_pair(found: Explanation) -> None:
    print(f"  {found.texts[0].text} | {found.texts[1].text} | cosine {found.cosine:.4f}")
    for tokens, effects in zip(found.tokens, found.deletions or (), strict=True):
        order = [place for place in np.argsort(-effects) if not np.isnan(effects[place])]
        print("    without: " + ", ".join(f"{tokens[place]} {effects[place]:+.3f}" for place in order))


class RankCorrelations(NamedTuple):
    """How what tokens contribute ranks them, against what is lost without each: the mean of both texts.

    `totals` are of contributions with the whole other text, `cells` of the sums of rows and columns.
    """

    totals: float
    cells: float


def rank_correlations(found: Explanation) -> RankCorrelations:
    """The correlations of a pair. Raises ValueError for one that is too long for either method."""
    if found.contributions is None or found.token_contributions is None or found.deletions is None:
        raise ValueError("expected a pair that is short enough for both methods.")
    sums = found.contributions.sum(axis=1), found.contributions.sum(axis=0)
    return RankCorrelations(_with_deletion(found, found.token_contributions), _with_deletion(found, sums))


def _with_deletion(found: Explanation, totals: tuple[NDArray[np.float64], ...]) -> float:
    values = [
        spearman(total[text.ordinary], -effects[text.ordinary])
        for text, total, effects in zip(found.texts, totals, found.deletions or (), strict=True)
    ]
    return float(np.mean(values))


def _from_layer(model: EmbeddingModel, texts: Sequence[str], layer: int) -> Explanation:
    """An explanation whose contributions begin at a layer, whatever layer it would choose."""
    found = model.explain(*texts)
    plan = plan_of(model, found.batch)
    if plan is None:
        raise ValueError("expected a model that reads one token.")
    states = layer_states(model.bert, found.batch)
    vars(found)["attribution"] = attribute(model, found.texts, plan._replace(layer=layer), states)
    return found


def spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """The correlation of the ranks of (n,) numbers that all differ."""
    first, second = (np.argsort(np.argsort(values)) for values in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
