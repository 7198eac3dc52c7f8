"""What the backends of KeyBERT and BERTopic share: each has a `BaseEmbedder` of its own, with the same methods."""

from __future__ import annotations

from gte_np.embedding_model import EmbeddingModel
from gte_np.encoder_interface import FloatArray


class EmbeddingModelBackend:
    """The methods of a `BaseEmbedder`, which comes behind this class in the bases.

    Documents and words are compared with each other, so all are encoded alike, by `EmbeddingModel.encode`. Raises
    TypeError for anything but an `EmbeddingModel`.
    """

    embedding_model: EmbeddingModel

    def __init__(self, embedding_model: EmbeddingModel) -> None:
        if not isinstance(embedding_model, EmbeddingModel):
            raise TypeError(f"expected an EmbeddingModel, got {type(embedding_model).__name__}.")
        super().__init__(embedding_model=embedding_model)  # type: ignore[call-arg]  # of the BaseEmbedder

    def embed(self, documents: list[str], verbose: bool = False) -> FloatArray:
        """The vectors of B documents or words: (B, D) float32. With `verbose`, a progress bar is shown."""
        vectors: FloatArray = self.embedding_model.encode(documents, show_progress_bar=verbose)
        return vectors
