"""What EmbeddingModel, BertModel and Tokenizer have in common, as objects that are loaded from files."""

from __future__ import annotations

from typing import ClassVar


class Loaded:
    """An object that was loaded. What is named in `FIXED` comes from its files and cannot be set."""

    FIXED: ClassVar[tuple[str, ...]] = ()

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.FIXED and name in vars(self):
            raise AttributeError(f"{name} comes from the model's files and cannot be set: load another model.")
        super().__setattr__(name, value)
