"""Cut a long text where its tokens do not notice.

A text of 100 MB gives at most a few hundred tokens to a model, so it is tokenized in pieces, and only as many of
them as are needed. The pieces are cut where the tokenizer ends a word anyway, which is asked of the tokenizer
itself, so the tokens of the pieces, one after another, are those of the whole text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum, auto

from tokenizers import AddedToken, Tokenizer

MAX_WORD_CHARACTERS = 100  # WordPiece's limit: a longer word is one [UNK]

PIECE_CHARACTERS = 2048


class _Kind(Enum):
    """What a tokenizer does with a character."""

    LETTER = auto()  # part of a word
    SPACE = auto()  # ends a word, and is no token
    SIGN = auto()  # ends a word, and is one itself: punctuation, Chinese
    NOTHING = auto()  # leaves it out


_ENDS = (_Kind.SPACE, _Kind.SIGN)


class TextPieces:
    """Cuts texts for one BERT tokenizer; `backend` must have BERT's normalizer and pre-tokenizer.

    An added token, such as [MASK], is found in the text before words are, so no cut may fall into one.
    """

    def __init__(self, backend: Tokenizer, added_tokens: Sequence[AddedToken]) -> None:
        self._normalize = backend.normalizer.normalize_str
        self._split_words = backend.pre_tokenizer.pre_tokenize_str
        self._kinds: dict[str, _Kind] = {}  # by character, as they come
        tokens = {form for token in added_tokens for form in (token.content, token.content.lower()) if form}
        self._not_before = set("".join(token[1:] for token in tokens))
        self._not_after = set("".join(token[:-1] for token in tokens))
        # A token that must be a word by itself looks at its neighbours: only a space may be taken from it.
        self._only_spaces = any(token.single_word for token in added_tokens)
        self._can_drop = all(self._is_seen(token) for token in tokens)

    def _is_seen(self, token: str) -> bool:
        """Whether no part of the token can be taken for a part of a long word."""
        ends = (self._kind(token[0]), self._kind(token[-1]))
        return len(token) <= MAX_WORD_CHARACTERS and all(kind in _ENDS for kind in ends)

    def of(self, text: str) -> Iterator[str]:
        """Yield the pieces of a text, each of a few thousand characters, however long its words are."""
        word, letters = "", 0  # what no cut has ended yet; at least how many letters its last word has
        for start in range(0, len(text), PIECE_CHARACTERS):
            window = text[start : start + PIECE_CHARACTERS]
            kinds = {character: self._kind(character) for character in set(window)}
            has_tokens = _Kind.LETTER in kinds.values() or _Kind.SIGN in kinds.values()
            cut = self._last_cut(window, kinds)
            if cut is not None:
                if word or has_tokens:
                    yield word + window[:cut]
                word, letters = "", 0
                window = window[cut:]
            is_word = cut is None and not any(kind in _ENDS for kind in kinds.values())
            if is_word and not has_tokens:
                window = window[:1]  # one character that is left out separates as well as many
            if not (is_word and self._can_drop and letters > MAX_WORD_CHARACTERS):
                word += window  # else it is [UNK] by WordPiece's limit, whatever follows
                letters = letters + len(self._normalize(window)) if is_word else 0
        yield word

    def _last_cut(self, window: str, kinds: dict[str, _Kind]) -> int | None:
        """The last place in the window where a word ends and no added token is cut, or None."""
        cuts = []
        for character, kind in kinds.items():
            if kind is _Kind.SPACE or (kind is _Kind.SIGN and not self._only_spaces):
                if character not in self._not_after:
                    cuts.append(window.rfind(character) + 1)
                elif character not in self._not_before:
                    cuts.append(window.rfind(character))
        return max(cuts, default=None)

    def _kind(self, character: str) -> _Kind:
        if character not in self._kinds:
            normalized = self._normalize(f"a{character}a")
            words = self._split_words(normalized)
            among = {2: _Kind.SPACE, 1: _Kind.NOTHING if normalized == "aa" else _Kind.LETTER}
            self._kinds[character] = among.get(len(words), _Kind.SIGN)
        return self._kinds[character]
