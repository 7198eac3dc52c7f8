"""BERTopic's `BaseEmbedder`: what `BERTopic(embedding_model=...)` accepts.

It does not accept an `EmbeddingModel` by itself: BERTopic would load a model of sentence-transformers in its place.
"""

from __future__ import annotations

from gte_np.integrations.backends import EmbeddingModelBackend
from gte_np.optional import optional_package

with optional_package("gte_np.integrations.bertopic", "bertopic", "bertopic"):
    from bertopic.backend import BaseEmbedder


class GteBackend(EmbeddingModelBackend, BaseEmbedder):
    """A model as BERTopic's `BaseEmbedder`. Raises TypeError for anything but an `EmbeddingModel`."""
