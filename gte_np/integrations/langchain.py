"""LangChain's `Embeddings`, for its vector stores and retrievers."""

from __future__ import annotations

import os
from typing import Any

from gte_np.embedding_model import EmbeddingModel
from gte_np.optional import optional_package

with optional_package("gte_np.integrations.langchain", "langchain_core", "langchain"):
    from langchain_core.embeddings import Embeddings


class GteEmbeddings(Embeddings):
    """A model as LangChain's `Embeddings`, with the prompts called "document" and "query".

    The arguments are those of `EmbeddingModel`, which is loaded at once and stays in `model`, and so are the errors.
    Errors of the methods are those of `EmbeddingModel.encode`.
    """

    def __init__(self, name_or_path: str | os.PathLike[str], **options: Any) -> None:
        self.model = EmbeddingModel(name_or_path, **options)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of B documents: B lists of D floats."""
        return self.model.encode_document(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query: D floats."""
        return self.model.encode_query(text).tolist()

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` for asyncio: texts of concurrent calls are computed together."""
        return (await self.model.aencode(texts, prompt_name="document")).tolist()

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` for asyncio."""
        return (await self.model.aencode(text, prompt_name="query")).tolist()
