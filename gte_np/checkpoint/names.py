"""The one table of a BERT checkpoint's tensor names and shapes, and the names of the files that hold them.

A shape is written with the axis letters of ARCHITECTURE.md: V vocabulary, D hidden size, F feed-forward size,
P positions, S token types ("segments" in the BERT paper). A linear layer's weight is stored (out, in).
"""

from __future__ import annotations

from gte_np.checkpoint.config import BertConfig

# In the order of preference, which is transformers' too. Either may be in shards, which an index.json lists.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def index_of(file: str) -> str:
    """The name of the index of a weights file that is in shards."""
    return f"{file}.index.json"


WORDS = "embeddings.word_embeddings.weight"
EMBEDDINGS: dict[str, str] = {
    WORDS: "VD",
    "embeddings.position_embeddings.weight": "PD",
    "embeddings.token_type_embeddings.weight": "SD",
    "embeddings.LayerNorm.weight": "D",
    "embeddings.LayerNorm.bias": "D",
}
LAYER: dict[str, str] = {  # each under "encoder.layer.<number>."
    "attention.self.query.weight": "DD",
    "attention.self.query.bias": "D",
    "attention.self.key.weight": "DD",
    "attention.self.key.bias": "D",
    "attention.self.value.weight": "DD",
    "attention.self.value.bias": "D",
    "attention.output.dense.weight": "DD",
    "attention.output.dense.bias": "D",
    "attention.output.LayerNorm.weight": "D",
    "attention.output.LayerNorm.bias": "D",
    "intermediate.dense.weight": "FD",
    "intermediate.dense.bias": "F",
    "output.dense.weight": "DF",
    "output.dense.bias": "D",
    "output.LayerNorm.weight": "D",
    "output.LayerNorm.bias": "D",
}
POOLER: dict[str, str] = {  # embeddings do not use it, so a checkpoint may leave it out
    "pooler.dense.weight": "DD",
    "pooler.dense.bias": "D",
}
# What is stored in the format of the weights, in a layer or among the embeddings: the rest stays as published.
MATRICES = (WORDS, *(name for name, axes in LAYER.items() if len(axes) == 2))
IGNORED = ("embeddings.position_ids",)  # 0, 1, 2, ...: old versions of transformers stored it
IGNORED_PREFIXES = ("cls.",)  # the heads of masked-language-model pre-training


def layer_prefix(layer: int) -> str:
    """What precedes the names of `LAYER` in a checkpoint."""
    return f"encoder.layer.{layer}."


def expected_shapes(config: BertConfig, pooler: bool) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that a checkpoint of these sizes holds."""
    table = dict(EMBEDDINGS)
    for layer in range(config.num_hidden_layers):
        table |= {layer_prefix(layer) + name: axes for name, axes in LAYER.items()}
    if pooler:
        table |= POOLER
    sizes = {
        "V": config.vocab_size,
        "D": config.hidden_size,
        "F": config.intermediate_size,
        "P": config.max_position_embeddings,
        "S": config.type_vocab_size,
    }
    return {name: tuple(sizes[axis] for axis in axes) for name, axes in table.items()}


def canonical_name(name: str) -> str:
    """The name as the table has it: without "bert.", and weight and bias for TensorFlow's gamma and beta."""
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def is_ignored(name: str) -> bool:
    """Whether an encoder needs nothing of the tensor that has this canonical name."""
    return name in IGNORED or name.startswith(IGNORED_PREFIXES)
