"""Haystack's components that embed a query and documents."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from gte_np.embedding_model import EmbeddingModel
from gte_np.integrations.options import check_stored_options
from gte_np.optional import optional_package

with optional_package("gte_np.integrations.haystack", "haystack", "haystack"):
    from haystack import Document, component, default_from_dict, default_to_dict


class _Embedder:
    """A component with a model, which `warm_up` or the first run loads, as Haystack's own embedders do."""

    def __init__(self, model: str | os.PathLike[str], **options: Any) -> None:
        self.model = os.fspath(model)
        self.options = check_stored_options(options)
        self._loaded: EmbeddingModel | None = None

    def warm_up(self) -> EmbeddingModel:
        """Load the model, unless it is loaded, and return it. Errors are those of `EmbeddingModel`."""
        if self._loaded is None:
            self._loaded = EmbeddingModel(self.model, **self.options)
        return self._loaded


@component
class GteTextEmbedder(_Embedder):
    """Embeds a query, with the prompt called "query".

    `model` is a folder or a name on the hub, and `options` are other arguments of `EmbeddingModel`. Raises InputError
    for a token, which would be stored with the pipeline.
    """

    def to_dict(self) -> dict[str, Any]:
        """What a stored pipeline keeps."""
        return default_to_dict(self, model=self.model, **self.options)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GteTextEmbedder:
        """The component of what `to_dict` gave."""
        return default_from_dict(cls, data)

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """`embedding`: the vector of the text, D floats. Raises TypeError for anything but a str."""
        if not isinstance(text, str):
            raise TypeError(f"expected a str, got {type(text).__name__}: documents are for GteDocumentEmbedder.")
        return {"embedding": self.warm_up().encode_query(text).tolist()}


@component
class GteDocumentEmbedder(_Embedder):
    """Embeds documents, with the prompt called "document".

    The values of `meta_fields_to_embed`, such as a title, and the content are joined by line feeds. The other
    arguments are those of `GteTextEmbedder`.
    """

    def __init__(
        self, model: str | os.PathLike[str], meta_fields_to_embed: list[str] | None = None, **options: Any
    ) -> None:
        _Embedder.__init__(self, model, **options)  # super() would look for the class that @component replaces
        self.meta_fields_to_embed = meta_fields_to_embed or []

    def to_dict(self) -> dict[str, Any]:
        """What a stored pipeline keeps."""
        return default_to_dict(self, model=self.model, meta_fields_to_embed=self.meta_fields_to_embed, **self.options)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GteDocumentEmbedder:
        """The component of what `to_dict` gave."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """`documents`: copies of the documents with their vectors, D floats each. Errors are those of `encode`."""
        vectors = self.warm_up().encode_document([self._text(document) for document in documents]).tolist()
        return {"documents": [replace(each, embedding=row) for each, row in zip(documents, vectors, strict=True)]}

    def _text(self, document: Document) -> str:
        values = [document.meta[name] for name in self.meta_fields_to_embed if document.meta.get(name) is not None]
        return "\n".join([*map(str, values), document.content or ""])
