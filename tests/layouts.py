"""Small checkpoints laid out as the repositories of KNOWN_MODELS are: files, dtypes, pooling, limits.

Layers, positions, vocabulary and everything in the files are the repository's; D, H and F are small.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gte_np import KNOWN_MODELS
from tests.checkpoints import (
    SMALL,
    SMALL_VOCAB,
    copy_chinese_tokenizer,
    pooling_flags,
    position_ids,
    write_config,
    write_json,
    write_modules,
    write_vocab,
    write_weights,
)

BOTH = ("model.safetensors", "pytorch_model.bin")
TORCH = ("pytorch_model.bin",)


@dataclass(frozen=True)
class Layout:
    """What a repository holds; `modules` is None where it has no modules.json and no pooling files."""

    files: tuple[str, ...] = BOTH
    modules: tuple[str, ...] | None = ("Normalize",)
    sentence_bert: dict[str, Any] | None = None
    tokenizer: dict[str, Any] = field(default_factory=dict)
    position_ids: bool = True
    vocab_lines: int | None = None
    tokenizer_json: bool = True


_NO_LIMIT = 1000000000000000019884624838656
_LIMIT_512 = {"max_seq_length": 512, "do_lower_case": False}
_GTE_ZH = Layout(sentence_bert=_LIMIT_512, tokenizer={"do_lower_case": True})
_GTE_EN = Layout(sentence_bert=_LIMIT_512)
_STELLA = Layout(TORCH, modules=None, tokenizer={"do_lower_case": True, "model_max_length": 1024})
_PICCOLO = Layout(
    TORCH, modules=None, tokenizer={"do_lower_case": True, "model_max_length": _NO_LIMIT}, position_ids=False
)
_BGE_LIMIT = {"max_seq_length": 512, "do_lower_case": True}

LAYOUTS: dict[str, Layout] = {
    "thenlper/gte-large-zh": _GTE_ZH,
    "thenlper/gte-base-zh": _GTE_ZH,
    "thenlper/gte-small-zh": Layout(
        TORCH, sentence_bert=_LIMIT_512, tokenizer={"do_lower_case": True}, vocab_lines=14760
    ),
    "thenlper/gte-large": _GTE_EN,
    "thenlper/gte-base": _GTE_EN,
    "thenlper/gte-small": _GTE_EN,
    "infgrad/stella-large-zh-v2": _STELLA,
    "infgrad/stella-base-zh-v2": _STELLA,
    "infgrad/stella-large-zh": _STELLA,
    "infgrad/stella-base-zh": Layout(BOTH, modules=None, tokenizer=_STELLA.tokenizer),
    "BAAI/bge-large-zh-v1.5": Layout(TORCH, sentence_bert=_BGE_LIMIT, tokenizer={"do_lower_case": True}),
    "BAAI/bge-small-zh-v1.5": Layout(
        modules=(), sentence_bert=_BGE_LIMIT, tokenizer={"do_lower_case": False}, tokenizer_json=False
    ),
    "sensenova/piccolo-large-zh": _PICCOLO,
    "sensenova/piccolo-base-zh": _PICCOLO,
    "moka-ai/m3e-base": Layout(
        modules=(), sentence_bert=_LIMIT_512, tokenizer={"do_lower_case": True, "model_max_length": _NO_LIMIT}
    ),
}


def write_layout(name: str, folder: Path) -> Path:
    """Write the small checkpoint of one known model, and return its folder."""
    known, layout = KNOWN_MODELS[name], LAYOUTS[name]
    rows = 30522 if known.language == "en" else 21128
    write_config(
        folder,
        vocab_size=rows,
        num_hidden_layers=known.layers,
        max_position_embeddings=known.max_tokens,
        torch_dtype=known.dtype,
    )
    extra = {"embeddings.position_ids": position_ids(known.max_tokens)} if layout.position_ids else {}
    write_weights(folder, dtype=known.dtype, files=layout.files, extra=extra)
    if known.language == "en":
        unused = [f"[unused{number}]" for number in range(rows - len(SMALL_VOCAB) - 5)]
        write_vocab(folder, [*SMALL_VOCAB, *unused], do_lower_case=True, model_max_length=512)
    else:
        copy_chinese_tokenizer(
            folder, lines=layout.vocab_lines, tokenizer_json=layout.tokenizer_json, **layout.tokenizer
        )
    if layout.modules is not None:
        write_modules(folder, pooling_flags(SMALL["hidden_size"], known.pooling), *layout.modules)
    if layout.sentence_bert is not None:
        write_json(folder / "sentence_bert_config.json", layout.sentence_bert)
    if name.startswith("BAAI/"):
        write_json(folder / "config_sentence_transformers.json", {"__version__": {"pytorch": "1.13.0+cu117"}})
    return folder
