"""Cut a long text where its tokens do not notice.

A text of 100 MB gives at most a few hundred tokens to a model, so it is tokenized in pieces, and only as many of
them as are needed. The pieces are cut where the tokenizer ends a word anyway, which is asked of the tokenizer
itself, so the tokens of the pieces, one after another, are those of the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tokenizers import AddedToken, Tokenizer

from gte_np.checkpoint.tokenizer_files import MAX_WORD_CHARACTERS

PIECE_CHARACTERS = 4096
# An added token is found in the text before words are, so no cut may fall into one. Tokens of this form begin with
# a bracket, end with a bracket, and hold nothing in between that ends a word.
_BRACKETED = re.compile(rf"\[[A-Za-z0-9]{{1,{MAX_WORD_CHARACTERS - 2}}}\]")


class TextPieces:
    """Cuts texts for one BERT tokenizer; `backend` must have BERT's normalizer and pre-tokenizer."""

    def __init__(self, backend: Tokenizer, added_tokens: Sequence[AddedToken]) -> None:
        self._normalize = backend.normalizer.normalize_str
        self._split_words = backend.pre_tokenizer.pre_tokenize_str
        self._can_cut = all(_is_plain(token) for token in added_tokens)
        self._ends_word: dict[str, bool] = {}  # answers of the tokenizer, by character

    def of(self, text: str) -> Iterator[str]:
        """Yield the pieces of a text, each of a few thousand characters, however long its words are."""
        if len(text) <= PIECE_CHARACTERS or not self._can_cut:
            yield text
            return
        word, kept = "", 0  # an unfinished word, and how many of its characters normalisation keeps
        for start in range(0, len(text), PIECE_CHARACTERS):
            window = text[start : start + PIECE_CHARACTERS]
            cut = self._last_cut(window)
            if cut is not None:
                yield word + window[:cut]
                word, kept = "", 0
                window = window[cut:]
            characters = len(self._normalize(window))
            # A word over WordPiece's limit is [UNK] whatever follows (+ 1 for a bracket before it).
            if characters and kept <= MAX_WORD_CHARACTERS + 1:
                word += window
                kept += characters
        yield word

    def _last_cut(self, window: str) -> int | None:
        """The last place in the window where a word ends, or None if the window lies within a word."""
        ends = [window.rfind(character) + 1 for character in set(window) - {"["} if self._is_word_end(character)]
        if "[" in window:  # it may begin an added token: cut before it
            ends.append(window.rfind("["))
        return max(ends, default=None)

    def _is_word_end(self, character: str) -> bool:
        if character not in self._ends_word:
            words = self._split_words(self._normalize(f"a{character}a"))
            self._ends_word[character] = len(words) > 1
        return self._ends_word[character]


def _is_plain(token: AddedToken) -> bool:
    return not token.normalized and not token.single_word and _BRACKETED.fullmatch(token.content) is not None
