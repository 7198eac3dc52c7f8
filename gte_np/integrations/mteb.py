"""Models for mteb 2, the Massive Text Embedding Benchmark: `mteb.evaluate(MtebEncoder("thenlper/gte-small"), tasks)`.

The behaviour is that of mteb's own wrapper of sentence-transformers, SentenceTransformerEncoderWrapper: the same
texts, prompts and similarities, so that scores can be compared.
"""

from __future__ import annotations

import os
from copy import copy
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gte_np.architectures.tensors import expected_shapes
from gte_np.embedding_model import EmbeddingModel
from gte_np.errors import InputError
from gte_np.optional import optional_package

with optional_package("gte_np.integrations.mteb", "mteb", "mteb"):
    from mteb.models.abs_encoder import AbsEncoder, get_prompt
    from mteb.models.model_meta import ModelMeta, ScoringFunction
    from mteb.types import PromptType

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import BatchedInput
    from torch.utils.data import DataLoader


class MtebEncoder(AbsEncoder):
    """A model as mteb's EncoderProtocol: `MtebEncoder(model)`, or a name or folder and EmbeddingModel's options.

    `model` is the EmbeddingModel and `mteb_model_meta` what mteb files results under; see `model_meta`.

    Prompts are the model's own or `model_prompts`, by mteb's names: of a task or a kind of task, alone or with
    "-query" or "-document" behind it, and "query" and "document". The most specific one goes before the texts; names
    that mteb does not know are left out, with a warning. An EmbeddingModel that is given is not changed.

    Raises InputError for a device other than "cpu", and what EmbeddingModel raises.
    """

    def __init__(
        self,
        model_name: str | os.PathLike[str] | EmbeddingModel,
        revision: str | None = None,
        *,
        device: str | None = None,
        embed_dim: int | None = None,
        model_prompts: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        if device not in (None, "cpu"):
            raise InputError(f"expected device 'cpu', got {device!r}: gte_np computes on the processor.")
        if isinstance(model_name, EmbeddingModel):
            self.model = copy(model_name)
        else:
            self.model = EmbeddingModel(model_name, revision=revision, truncate_dim=embed_dim, **options)
        if model_prompts:
            # Without a prompt for a task, encode_query and encode_document take these.
            self.model.prompts = {"query": "", "document": ""} | model_prompts
        self.model_prompts, _ = self.validate_task_to_prompt_name(self.model.prompts, raise_for_invalid_keys=False)
        self.mteb_model_meta = model_meta(self.model)

    def encode(
        self,
        inputs: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> NDArray[Any]:
        """The vectors of the texts of a task, (B, D) float32; `kwargs` are options of `EmbeddingModel.encode`."""
        texts = [text for batch in inputs for text in batch["text"]]
        prompt = get_prompt(self.model_prompts, task_metadata, prompt_type)
        if prompt_type is None:
            return self.model.encode(texts, prompt=prompt, **kwargs)
        if prompt_type == PromptType.query:
            return self.model.encode_query(texts, prompt=prompt, **kwargs)
        return self.model.encode_document(texts, prompt=prompt, **kwargs)

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> NDArray[Any]:
        """Similarities of all pairs, as the model's repository says: (A, D), (B, D) -> (A, B)."""
        return self.model.similarity(np.asarray(embeddings1), np.asarray(embeddings2))

    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> NDArray[Any]:
        """Similarities row by row, as the model's repository says: (B, D), (B, D) -> (B,)."""
        return self.model.similarity_pairwise(np.asarray(embeddings1), np.asarray(embeddings2))


def model_meta(model: EmbeddingModel) -> ModelMeta:
    """What mteb keeps of a model, and files its results under.

    The name and the revision are those on the hub; a local folder is "local/NAME", with the beginning of the SHA-256
    of its files. Backend, dtype, pooling and a `truncate_dim` are `experiment_kwargs`: mteb keeps the results apart
    from those of other settings and of sentence-transformers, and `ModelMeta.load_model` loads the same model again.
    """
    config = model.bert.config
    on_hub = model.name_or_path != str(model.folder)
    shapes = expected_shapes(config, pooler=model.bert.has_pooler)
    backend = model.bert.arithmetic.partition(" ")[0]  # "numba" has how it rounds behind it
    experiment = {"backend": backend, "dtype": model.bert.dtype, "pooling": "+".join(model.pooling_modes)}
    return ModelMeta.create_empty(
        {
            "loader": MtebEncoder if on_hub else None,
            "name": model.name_or_path if on_hub else f"local/{model.folder.name}",
            "revision": model.folder.name if on_hub else model.fingerprint()["model"][:12],
            "n_parameters": sum(prod(shape) for shape in shapes.values()),
            "n_embedding_parameters": config.vocab_size * config.hidden_size,
            "max_tokens": model.max_seq_length,
            "embed_dim": model.get_sentence_embedding_dimension(),
            "framework": ["NumPy"],
            "similarity_fn_name": ScoringFunction(model.similarity_fn_name),
            "use_instructions": any(model.prompts.values()),
            "experiment_kwargs": experiment | ({"embed_dim": model.truncate_dim} if model.truncate_dim else {}),
        }
    )
