"""Cut a long text where its tokens do not notice.

A text of 100 MB gives at most a few hundred tokens to a model, so it is tokenized in pieces, and only as many of
them as are needed. The pieces are cut where the tokenizer ends a word anyway, which is asked of the tokenizer
itself, so the tokens of the pieces, one after another, are those of the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum, auto

from tokenizers import AddedToken, Tokenizer

from gte_np.checkpoint.tokenizer_files import MAX_WORD_CHARACTERS

PIECE_CHARACTERS = 4096
# An added token is found in the text before words are, so no cut may fall into one. Tokens of this form begin with
# a bracket, end with a bracket, and hold nothing in between that ends a word.
_BRACKETED = re.compile(rf"\[[A-Za-z0-9]{{1,{MAX_WORD_CHARACTERS - 2}}}\]")


class _Kind(Enum):
    """What a tokenizer does with a character."""

    LETTER = auto()  # part of a word
    SPACE = auto()  # ends a word, and is no token
    SIGN = auto()  # ends a word, and is one itself: punctuation, Chinese
    NOTHING = auto()  # leaves it out


class TextPieces:
    """Cuts texts for one BERT tokenizer; `backend` must have BERT's normalizer and pre-tokenizer."""

    def __init__(self, backend: Tokenizer, added_tokens: Sequence[AddedToken]) -> None:
        self._normalize = backend.normalizer.normalize_str
        self._split_words = backend.pre_tokenizer.pre_tokenize_str
        self._can_cut = all(_is_plain(token) for token in added_tokens)
        self._kinds: dict[str, _Kind] = {}  # by character, as they come

    def of(self, text: str) -> Iterator[str]:
        """Yield the pieces of a text, each of a few thousand characters, however long its words are."""
        if len(text) <= PIECE_CHARACTERS or not self._can_cut:
            yield text
            return
        word, letters = "", 0  # an unfinished word, and how many of its characters are not left out
        for start in range(0, len(text), PIECE_CHARACTERS):
            window = text[start : start + PIECE_CHARACTERS]
            kinds = {character: self._kind(character) for character in set(window)}
            has_tokens = _Kind.LETTER in kinds.values() or _Kind.SIGN in kinds.values()
            cut = _last_cut(window, kinds)
            if cut is not None:
                if word or has_tokens:
                    yield word + window[:cut]
                word, letters = "", 0
                window = window[cut:]
            # A word over WordPiece's limit is [UNK] whatever follows (+ 1 for a bracket before it).
            if has_tokens and letters <= MAX_WORD_CHARACTERS + 1:
                word += window
                letters += len(self._normalize(window))
        yield word

    def _kind(self, character: str) -> _Kind:
        if character not in self._kinds:
            normalized = self._normalize(f"a{character}a")
            words = self._split_words(normalized)
            among = {2: _Kind.SPACE, 1: _Kind.NOTHING if normalized == "aa" else _Kind.LETTER}
            self._kinds[character] = among.get(len(words), _Kind.SIGN)
        return self._kinds[character]


def _last_cut(window: str, kinds: dict[str, _Kind]) -> int | None:
    """The last place in the window where a word ends, or None if the window lies within a word."""
    ends = [
        window.rfind(character) + 1
        for character, kind in kinds.items()
        if kind in (_Kind.SPACE, _Kind.SIGN) and character != "["
    ]
    if "[" in window:  # it may begin an added token: cut before it
        ends.append(window.rfind("["))
    return max(ends, default=None)


def _is_plain(token: AddedToken) -> bool:
    return not token.normalized and not token.single_word and _BRACKETED.fullmatch(token.content) is not None
