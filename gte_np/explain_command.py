"""The command gte-np explain."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gte_np.terminal import Parser, load_model, print_line

if TYPE_CHECKING:
    from gte_np.explanation import Explanation


def add_explain_command(commands: Any, model: Parser) -> None:
    """Add the command to those of gte-np."""
    command = commands.add_parser("explain", parents=[model], help="why two texts have their cosine")
    command.add_argument("text_a", help="a text")
    command.add_argument("text_b", nargs="?", help="the text that it is compared with; without it, one is explained")
    command.add_argument("-o", "--output", help="a page of HTML to write; without it, a table is printed")
    command.set_defaults(run=_explain)


def _explain(options: argparse.Namespace) -> None:
    explanation = load_model(options).explain(options.text_a, options.text_b)
    if options.output:
        explanation.save(options.output)
        return
    _print_texts(explanation)
    if explanation.cosine is not None:
        _print_pairs(explanation)
        _print_layers(explanation)
    for note in explanation.notes:
        print_line(note)


def _print_texts(explanation: Explanation) -> None:
    for text in explanation.texts:
        print_line(f"{len(text.tokens)} tokens: {' '.join(text.tokens)}")


def _print_pairs(explanation: Explanation) -> None:
    print_line(f"cosine {explanation.cosine:.6f}")
    pairs = explanation.strongest_pairs()
    if pairs:
        attribution = explanation.attribution
        kind = "exact" if attribution is None else f"approximate, from layer {attribution.layer + 1} on"
        print_line(f"contributions of pairs ({kind}, unexplained {explanation.unexplained:.6f}), the largest first")
    width = max((len(pair.first) for pair in pairs), default=0)
    for pair in pairs:
        print_line(f"{pair.contribution:+9.4f}  {pair.first:<{width}}  {pair.second}")


def _print_layers(explanation: Explanation) -> None:
    columns = {dtype: cosines for dtype, cosines in explanation.layers.items() if cosines is not None}
    print_line("cosine after layer " + "".join(f"{dtype:>9}" for dtype in columns))
    for layer, cosines in enumerate(zip(*columns.values(), strict=True)):
        name = layer or "embeddings"
        print_line(f"{name:>18} " + "".join(f"{cosine:9.4f}" for cosine in cosines))
