"""The one table of an encoder's tensors: their names and shapes, whatever an architecture calls them in its files.

A shape is written with the axis letters of ARCHITECTURE.md: V vocabulary, D hidden size, F feed-forward size,
P positions, S token types ("segments" in the BERT paper). A linear layer's weight is stored (out, in).
"""

from __future__ import annotations

from gte_np.architectures.config import BertConfig

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
