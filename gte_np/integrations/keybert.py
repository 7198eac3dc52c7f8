"""KeyBERT's `BaseEmbedder`: what `KeyBERT(embedding_model=...)` accepts.

It does not accept an `EmbeddingModel` by itself: KeyBERT would load a model of sentence-transformers in its place.
"""

from __future__ import annotations

from gte_np.embedding_model import EmbeddingModel
from gte_np.encoder_interface import FloatArray
from gte_np.optional import optional_package

with optional_package("gte_np.integrations.keybert", "keybert", "keybert"):
    from keybert.backend import BaseEmbedder


class GteBackend(BaseEmbedder):
    """A model as KeyBERT's `BaseEmbedder`. Raises TypeError for anything but an `EmbeddingModel`.

    Documents and words are compared with each other, so all are encoded alike, by `EmbeddingModel.encode`.
    """

    def __init__(self, embedding_model: EmbeddingModel) -> None:
        if not isinstance(embedding_model, EmbeddingModel):
            raise TypeError(f"expected an EmbeddingModel, got {type(embedding_model).__name__}.")
        super().__init__(embedding_model=embedding_model)

    def embed(self, documents: list[str], verbose: bool = False) -> FloatArray:
        """The vectors of B documents or words: (B, D) float32. With `verbose`, a progress bar is shown."""
        return self.embedding_model.encode(documents, show_progress_bar=verbose)
