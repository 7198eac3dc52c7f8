"""A progress bar for long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(texts: int, show: bool) -> Iterator[Callable[[int], object]]:
    """Yield a function that takes the number of texts done; a bar is drawn on stderr if `show`."""
    if not show:
        yield lambda done: None
        return
    from tqdm import tqdm  # slow to import

    with tqdm(total=texts, desc="Texts", unit="text") as bar:
        yield bar.update
