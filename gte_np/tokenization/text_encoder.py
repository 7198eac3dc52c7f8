"""What a kind of tokenizer gives: all that `Tokenizer` needs to turn texts into ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tokenizers import Tokenizer


class TextEncoder(NamedTuple):
    """A tokenizer of the tokenizers library, and what the library does not tell.

    `before` and `behind` are the ids that go around each text, such as those of [CLS] and [SEP]; `pad_id` fills up
    rows, `unk_id` stands for unknown words, and no id is larger than `largest_id`. `pieces` divides a long text where
    no token can be cut. `model_max_length` is the most tokens of a text, or None where the files set no limit.
    """

    backend: Tokenizer
    before: tuple[int, ...]
    behind: tuple[int, ...]
    pad_id: int
    unk_id: int
    largest_id: int
    pieces: Callable[[str], Iterator[str]]
    model_max_length: int | None

    @property
    def special_count(self) -> int:
        """How many tokens each text has beside its own."""
        return len(self.before) + len(self.behind)
