"""A transformer of scikit-learn, from texts to vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable

from gte_np.embedding_model import EmbeddingModel
from gte_np.encoder_interface import FloatArray
from gte_np.errors import InputError
from gte_np.optional import optional_package

with optional_package("gte_np.integrations.scikit_learn", "sklearn", "scikit-learn"):
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted


class TextEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """B texts to their vectors, (B, D) float32: a transformer for `Pipeline` and `GridSearchCV`.

    The parameters are those of `EmbeddingModel`, and `prompt_name` and `normalize_embeddings` of its `encode`.
    `fit` only loads the model. A pickle names the model's files and does not hold them. With `n_jobs` processes,
    `threads=1` keeps each of them to one processor.
    """

    def __init__(
        self,
        name_or_path: str | os.PathLike[str],
        *,
        dtype: str | None = None,
        truncate_dim: int | None = None,
        prompt_name: str | None = None,
        normalize_embeddings: bool | None = None,
        threads: int | None = None,
    ) -> None:
        self.name_or_path = name_or_path
        self.dtype = dtype
        self.truncate_dim = truncate_dim
        self.prompt_name = prompt_name
        self.normalize_embeddings = normalize_embeddings
        self.threads = threads

    def fit(self, X: Iterable[str], y: object = None) -> TextEmbedder:  # noqa: N803
        """Load the model. Errors are those of `EmbeddingModel`."""
        self.model_ = EmbeddingModel(
            self.name_or_path, dtype=self.dtype, truncate_dim=self.truncate_dim, threads=self.threads
        )
        self._n_features_out = self.model_.get_sentence_embedding_dimension()
        return self

    def transform(self, X: Iterable[str]) -> FloatArray:  # noqa: N803
        """The vectors of the texts, a list or a column of a table: (B, D) float32.

        Raises scikit-learn's NotFittedError before `fit`, InputError for a whole table, and what
        `EmbeddingModel.encode` raises.
        """
        check_is_fitted(self)
        dimensions = getattr(X, "ndim", 1)
        if dimensions != 1:
            raise InputError(f"expected texts in one dimension, got {dimensions}: choose one column of the table.")

        return self.model_.encode(X, prompt_name=self.prompt_name, normalize_embeddings=self.normalize_embeddings)
