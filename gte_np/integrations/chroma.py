"""Chroma's `EmbeddingFunction`, which a collection keeps by name and configuration.

A program that opens such a collection again imports this module first, so that Chroma knows the name.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

from gte_np.embedding_model import EmbeddingModel
from gte_np.integrations.options import check_stored_options
from gte_np.optional import optional_package

with optional_package("gte_np.integrations.chroma", "chromadb", "chroma"):
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function


@register_embedding_function
class GteEmbeddingFunction(EmbeddingFunction[Documents]):
    """A model as Chroma's `EmbeddingFunction`, called "gte_np" there.

    The arguments are those of `EmbeddingModel`; a collection stores them. Raises InputError for a token, which would
    be stored, too, and TypeError for an option that cannot be stored.
    """

    def __init__(self, name_or_path: str | os.PathLike[str], **options: Any) -> None:
        self._name_or_path = os.fspath(name_or_path)
        self._options = check_stored_options(options)

    @cached_property
    def model(self) -> EmbeddingModel:
        """The model, loaded when it is first needed: Chroma builds functions only to look at their configuration."""
        return EmbeddingModel(self._name_or_path, **self._options)

    def __call__(self, input: Documents) -> Embeddings:
        """The vectors of B documents: B arrays, (D,) float32. Errors are those of `EmbeddingModel`."""
        return list(self.model.encode_document(input))

    def embed_query(self, input: Documents) -> Embeddings:
        """The vectors of B queries: B arrays, (D,) float32."""
        return list(self.model.encode_query(input))

    @staticmethod
    def name() -> str:
        """The name that the function is registered by."""
        return "gte_np"

    def default_space(self) -> Space:
        """The distance of a new collection, if none is chosen."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """What a collection stores."""
        return {"name_or_path": self._name_or_path, "options": self._options}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> GteEmbeddingFunction:
        """The function of a configuration that a collection has stored."""
        return GteEmbeddingFunction(config["name_or_path"], **config["options"])
