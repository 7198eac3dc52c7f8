"""GTE text embeddings on a CPU, from the published weights, in NumPy and without torch.

    >>> from gte_np import EmbeddingModel, cos_sim
    >>> model = EmbeddingModel("thenlper/gte-large-zh")  # doctest: +SKIP
    >>> embeddings = model.encode(["That is a happy person", "That is a very happy person"])  # doctest: +SKIP
    >>> print(cos_sim(embeddings[0], embeddings[1]))  # doctest: +SKIP

To read the encoder, begin with `gte_np.reference`, then `embedding_model`, `bert_model`, `tokenizer` and `pooling`.
"""

from gte_np.architectures.config import BertConfig
from gte_np.bert_model import BertModel, BertOutput
from gte_np.embedding_model import EmbeddingModel, paraphrase_mining
from gte_np.embedding_quantization import quantize_embeddings
from gte_np.errors import (
    BackendError,
    CheckpointError,
    GteError,
    InputError,
    MissingDependencyError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from gte_np.known_models import KNOWN_MODELS, KnownModel
from gte_np.similarity import (
    cos_sim,
    dot_score,
    euclidean_sim,
    manhattan_sim,
    normalize,
    pairwise_cos_sim,
    pairwise_dot_score,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
    paraphrase_mining_embeddings,
    semantic_search,
)
from gte_np.token_batch import TokenBatch
from gte_np.tokenization.tokenizer import Tokenizer
from gte_np.version import __version__ as __version__

__all__ = [
    "KNOWN_MODELS",
    "BackendError",
    "BertConfig",
    "BertModel",
    "BertOutput",
    "CheckpointError",
    "EmbeddingModel",
    "GteError",
    "InputError",
    "KnownModel",
    "MissingDependencyError",
    "ModelNotFoundError",
    "TokenBatch",
    "Tokenizer",
    "UnsupportedModelError",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "manhattan_sim",
    "normalize",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "paraphrase_mining",
    "paraphrase_mining_embeddings",
    "quantize_embeddings",
    "semantic_search",
]
