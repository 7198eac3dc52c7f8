"""KeyBERT's `BaseEmbedder`: what `KeyBERT(embedding_model=...)` accepts.

It does not accept an `EmbeddingModel` by itself: KeyBERT would load a model of sentence-transformers in its place.
"""

from __future__ import annotations

from gte_np.integrations.backends import EmbeddingModelBackend
from gte_np.optional import optional_package

with optional_package("gte_np.integrations.keybert", "keybert", "keybert"):
    from keybert.backend import BaseEmbedder


class GteBackend(EmbeddingModelBackend, BaseEmbedder):
    """A model as KeyBERT's `BaseEmbedder`. Raises TypeError for anything but an `EmbeddingModel`."""
