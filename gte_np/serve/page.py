"""The pages: files of this package, which ask for nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def read_page(name: str) -> str:
    """The page of that name."""
    return Path(__file__).with_name(name).read_text("utf-8")
