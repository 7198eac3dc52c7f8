"""What became of a text: its tokens, where in the text they are, and where it was cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gte_np.token_batch import TokenArray
from gte_np.tokenization.tokenizer import Token, Tokenizer


@dataclass(frozen=True)
class TextTokens:
    """The tokens of one text that the encoder reads.

    `tokens` are the names of its T tokens, `ids` their numbers, and `spans` the characters of `text` that each stands
    for, (0, 0) for [CLS] and its like, whose places are `special`. `unknown` are the places of the words that the
    vocabulary does not have. `kept` is how many characters of the text are read, and `cut_tokens` how many tokens
    behind them are not.
    """

    text: str
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    special: frozenset[int]
    unknown: tuple[int, ...]
    kept: int
    cut_tokens: int

    def entry(self) -> dict[str, Any]:
        """All of it but `special`, as JSON has it."""
        return {name: value for name, value in vars(self).items() if name != "special"}

    @property
    def ordinary(self) -> list[int]:
        """The places of the tokens that stand for characters of the text."""
        return [place for place in range(len(self.tokens)) if place not in self.special]


def read_tokens(tokenizer: Tokenizer, text: str, ids: TokenArray) -> TextTokens:
    """The tokens of a text that was cut to these (T,) ids, as `Tokenizer.tokenize` cuts it."""
    found = tokenizer.tokens_of(text)
    kept = _cut(found, len(ids))
    names = tokenizer.convert_ids_to_tokens([token.id for token in kept])
    return TextTokens(
        text=text,
        tokens=tuple(names),
        ids=tuple(token.id for token in kept),
        spans=tuple((token.start or 0, token.stop or 0) for token in kept),
        special=frozenset(place for place, token in enumerate(kept) if token.start is None),
        unknown=tuple(place for place, token in enumerate(kept) if token.id == tokenizer.unk_token_id),
        kept=len(text) if len(kept) == len(found) else max((token.stop or 0) for token in kept),
        cut_tokens=len(found) - len(kept),
    )


def _cut(tokens: list[Token], count: int) -> list[Token]:
    """The first `count` tokens, of which the last are those that go behind each text."""
    behind = next((n for n, token in enumerate(reversed(tokens)) if not token.special), 1)
    return tokens if len(tokens) == count else [*tokens[: count - behind], *tokens[len(tokens) - behind :]]
