"""The pages of HTML in this package: files that ask for nothing from elsewhere, and share one style."""

from __future__ import annotations

from pathlib import Path


def read_page(path: Path) -> str:
    """The page of that file, with the style that all pages begin with in the place of its words HOUSE STYLE."""
    style = Path(__file__).with_name("pages.css").read_text("utf-8")
    return path.read_text("utf-8").replace("/* HOUSE STYLE */\n", style, 1)
