"""Texts -> token ids. `tokenizer` is the door; `text_encoder` says what a kind of tokenizer gives.

To add a kind, write a module with a function that reads it from a folder, and add that to `TOKENIZERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gte_np.checkpoint.json_file import Fields
from gte_np.errors import UnsupportedModelError
from gte_np.tokenization.text_encoder import TextEncoder
from gte_np.tokenization.word_piece import read_word_piece

__all__ = ["TOKENIZERS", "TextEncoder", "read_text_encoder"]

# By the type of tokenizer.json's model.
TOKENIZERS: dict[str, Callable[[Path, Fields, bool], TextEncoder]] = {"WordPiece": read_word_piece}


def read_text_encoder(folder: Path, lowercase_first: bool) -> TextEncoder:
    """Read the tokenizer files of a checkpoint folder.

    `lowercase_first` is sentence-transformers' do_lower_case. Raises ModelNotFoundError, CheckpointError and
    UnsupportedModelError as the readers of `TOKENIZERS` do.
    """
    tokenizer = Fields.of_optional(folder / "tokenizer.json")
    model = tokenizer.values.get("model")
    kind = model.get("type", "WordPiece") if isinstance(model, dict) else "WordPiece"  # vocab.txt is WordPiece's
    if kind not in tuple(TOKENIZERS):  # a list or an object cannot be a key
        raise UnsupportedModelError(
            f"{tokenizer.path}: model with type {kind!r:.80} is not implemented; gte_np implements "
            f"{', '.join(TOKENIZERS)}."
        )
    return TOKENIZERS[kind](folder, tokenizer, lowercase_first)
