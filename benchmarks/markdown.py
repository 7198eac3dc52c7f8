"""Tables in Markdown, and what they are made of."""

from __future__ import annotations

from typing import Any

Results = dict[str, Any]  # what a benchmark has written


def table(header: list[str], rows: list[list[str]], left: int = 1) -> str:
    """A table whose first columns are aligned to the left and the others to the right."""
    alignment = ["---"] * left + ["---:"] * (len(header) - left)
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, alignment, *rows))


def short(value: float) -> str:
    """With one digit behind the point below 100, and none from there on."""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"
