"""What the golden arrays and `make parity` compare: the same texts, lengths and shapes for both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.checkpoints import copy_chinese_tokenizer, write_config, write_modules, write_weights
from tests.texts import ORDINARY, of_length

# Tokens of a text, [CLS] and [SEP] included, up to MiniLM's limit: each side of vector and tile sizes.
MINILM_LENGTHS = (1, 2, 3, 5, 7, 8, 12, 13, 16, 17, 31, 33, 64, 100, 127, 129, 200, 255, 256)
MINILM_TEXTS = [*ORDINARY, *(of_length(words, seed=words) for words in (1, 2, 4, 9, 20, 47, 100, 190, 400))]
LAYOUT_TEXTS = [*ORDINARY, of_length(30, seed=30), of_length(1200, seed=1200)]
GENERATED_TEXTS = 20_000
TEXTS_IN_A_HASH = 500

# The exact shapes of the Chinese GTE models: D, L, H, F.
SHAPES = {
    "gte-small-zh": (512, 6, 8, 2048),
    "gte-base-zh": (768, 12, 12, 3072),
    "gte-large-zh": (1024, 24, 16, 4096),
}
SHAPE_LENGTHS = (8, 128, 512)
PRECISIONS = ("float32", "float16", "bfloat16")  # of weights

GOLDEN = Path(__file__).resolve().parent / "golden"
# How far hidden states may be from the reference's, for each dtype of the arithmetic. In float32 they are up to 11 in
# size, at the end of a long chain of sums in another order, of 24 bits each. In fewer bits, a value next to the
# middle between two steps is rounded to the one here and to the other there, and so are others after it; still far
# less than all that is rounded.
TOLERANCES = {"float32": 2e-5, "bfloat16": 0.05, "int8": 0.2}


def golden(name: str) -> dict[str, Any]:
    """The arrays of one golden file."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def write_shape(name: str, folder: Path) -> Path:
    """Write a checkpoint of a Chinese GTE model's exact shape, with random float16 weights."""
    hidden, layers, heads, inner = SHAPES[name]
    write_config(
        folder,
        vocab_size=21128,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=512,
        torch_dtype="float16",
    )
    write_weights(folder, dtype="float16", seed=layers)
    copy_chinese_tokenizer(folder, do_lower_case=True)
    write_modules(folder, {"pooling_mode": "cls", "embedding_dimension": hidden}, "Normalize")
    return folder


def write_odd_sizes(precision: str, folder: Path) -> Path:
    """Write a small checkpoint with heads of 26 features, and sizes that are no multiples of a vector."""
    write_config(folder, hidden_size=156, num_attention_heads=6, intermediate_size=200, max_position_embeddings=128)
    write_weights(folder, dtype=precision)
    return folder


def chinese_text(tokens: int) -> str:
    """A Chinese text of that many tokens, [CLS] and [SEP] included."""
    sentence = "中国的首都是哪里你喜欢去哪里旅游北京今天中午吃什么我们一起去公园散步然后回家看书"
    return (sentence * (tokens // len(sentence) + 1))[: tokens - 2]


def ids_of_length(tokens: int, vocab_size: int) -> list[int]:
    """Token ids spread over the whole table, the first of them low."""
    return [(101 + 7919 * position) % vocab_size for position in range(tokens)]


def hashes(ids: Iterable[Sequence[int]], block: int = TEXTS_IN_A_HASH) -> list[str]:
    """A hash of each block of lists of ids."""
    lines = [" ".join(map(str, text_ids)) for text_ids in ids]
    blocks = ["\n".join(lines[start : start + block]) for start in range(0, len(lines), block)]
    return [hashlib.sha256(text.encode()).hexdigest()[:16] for text in blocks]
