"""LlamaIndex's `BaseEmbedding`, for its indexes and retrievers."""

from __future__ import annotations

import os
from typing import Any

from gte_np.embedding_model import EmbeddingModel
from gte_np.integrations.options import check_stored_options
from gte_np.optional import optional_package

with optional_package("gte_np.integrations.llama_index", "llama_index", "llama-index"):
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr


class GteEmbedding(BaseEmbedding):
    """A model as LlamaIndex's `BaseEmbedding`, with the prompts called "document" and "query".

    `model_name` is a folder or a name on the hub, and `model_options` are other arguments of `EmbeddingModel`, which
    is loaded at once. Further fields, such as `embed_batch_size`, are those of `BaseEmbedding`. Raises the errors of
    `EmbeddingModel`, and InputError for a token, which would be stored with the fields.
    """

    model_options: dict[str, Any] = Field(default_factory=dict)
    _model: EmbeddingModel = PrivateAttr()

    def __init__(self, model_name: str | os.PathLike[str], **fields: Any) -> None:
        super().__init__(model_name=os.fspath(model_name), **fields)
        self._model = EmbeddingModel(self.model_name, **check_stored_options(self.model_options))

    @classmethod
    def class_name(cls) -> str:
        """The name of this class in what LlamaIndex stores."""
        return "GteEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._model.encode_query(query).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._model.encode_document(text).tolist()

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._model.encode_document(texts).tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._model.aencode(query, prompt_name="query")).tolist()

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._model.aencode(text, prompt_name="document")).tolist()

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return (await self._model.aencode(texts, prompt_name="document")).tolist()
