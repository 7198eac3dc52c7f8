"""config.json -> BertConfig, or a refusal by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gte_np.architectures import ARCHITECTURES, Architecture
from gte_np.checkpoint.json_file import Fields, read_json_object
from gte_np.errors import CheckpointError, ModelNotFoundError, UnsupportedModelError
from gte_np.formats import dtypes

DTYPE_KEY = "gte_np_dtype"
REQUIRED_KEYS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT encoder, under the names of transformers' BertConfig."""

    vocab_size: int  # V
    hidden_size: int  # D
    num_hidden_layers: int  # L
    num_attention_heads: int  # H
    intermediate_size: int  # F
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    dtype: str = "float32"  # of the arithmetic, in which `EmbeddingModel.save_pretrained` saved it
    model_type: str = "bert"

    def __post_init__(self) -> None:
        """Raise CheckpointError for heads that are not equal parts of the hidden size."""
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise CheckpointError(
                f"expected num_attention_heads to divide hidden_size, got {self.num_attention_heads} heads and "
                f"hidden_size {self.hidden_size}."
            )

    @property
    def architecture(self) -> Architecture:
        """The architecture of this model type."""
        return ARCHITECTURES[self.model_type]


def read_config(folder: Path) -> BertConfig:
    """Read `config.json` of a checkpoint folder.

    Raises ModelNotFoundError where there is none, CheckpointError where keys are missing or of a wrong type,
    and UnsupportedModelError, which names it, for an architecture that is not implemented.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelNotFoundError(
            f"{folder}: expected a checkpoint folder with a config.json, found none. "
            "Give the folder that holds config.json and the weights."
        )
    fields = Fields(path, read_json_object(path))
    architecture = _find_architecture(fields)
    sizes: dict[str, Any] = {
        "vocab_size": fields.integer("vocab_size"),
        "hidden_size": fields.integer("hidden_size"),
        "num_hidden_layers": fields.integer("num_hidden_layers", most=1000),  # bounds the table of names
        "num_attention_heads": fields.integer("num_attention_heads"),
        "intermediate_size": fields.integer("intermediate_size"),
        "max_position_embeddings": fields.integer("max_position_embeddings", least=3),
        "type_vocab_size": fields.integer("type_vocab_size", default=2),
        "layer_norm_eps": fields.number("layer_norm_eps", default=1e-12),
        "dtype": fields.text(DTYPE_KEY, "float32"),
        "model_type": architecture.model_type,
    }
    try:
        config = BertConfig(**sizes)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if config.dtype not in dtypes():
        raise fields.error(DTYPE_KEY, f"one of {', '.join(dtypes())}", config.dtype)
    return config


def _find_architecture(fields: Fields) -> Architecture:
    """The architecture of a configuration that has all keys, none of which asks for what is not implemented."""
    model_type = fields.values.get("model_type")
    if model_type not in (*ARCHITECTURES, None):
        raise UnsupportedModelError(
            f"{fields.path}: model_type {model_type!r:.80} is not implemented; gte_np runs BERT encoders "
            "(model_type 'bert'), such as those that `gte-np models` lists."
        )
    missing = [key for key in REQUIRED_KEYS if key not in fields.values]
    if missing:
        raise CheckpointError(f"{fields.path}: expected a BERT configuration, missing keys: {', '.join(missing)}.")
    architecture = ARCHITECTURES[fields.text("model_type", "")]
    for key, implemented in architecture.implemented.items():
        fields.expect(key, implemented)
    return architecture
