"""The forms in which a model comes, of all files that each can have, and small models of real vocabularies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from gte_np import EmbeddingModel
from tests.checkpoints import (
    SMALL_VOCAB,
    copy_chinese_tokenizer,
    dense_model,
    published_tokenizer_json,
    random_tensors,
    save_safetensors,
    write_config,
    write_json,
    write_modules,
    write_weights,
)

TEXTS = ["That is a very happy person", "中国的首都是哪里", "", "[MASK] 0.5 happy"]
FORMS = ("published", "torch", "shards", "bfloat16", "int8")


def write_forms(folder: Path) -> None:
    """Write the same small model in each of `FORMS`."""
    published = write_published(folder / "published")
    for form in ("torch", "shards"):
        shutil.copytree(published, folder / form)
        (folder / form / "model.safetensors").unlink()
    write_weights(folder / "torch", files=["pytorch_model.bin"])
    _write_shards(folder / "shards")
    for form in ("bfloat16", "int8"):
        EmbeddingModel(published, dtype=form, backend="numba").save_pretrained(folder / form)


def write_published(folder: Path) -> Path:
    """Write a small model with every file that a published repository may have."""
    dense_model(folder)
    vocab = (folder / "vocab.txt").read_text("utf-8").split("\n")[:-1]
    write_json(folder / "tokenizer.json", published_tokenizer_json(vocab))
    special = {"unk_token": "[UNK]", "cls_token": {"content": "[CLS]"}, "sep_token": "[SEP]", "pad_token": "[PAD]"}
    write_json(folder / "special_tokens_map.json", special | {"mask_token": "[MASK]"})
    write_json(folder / "added_tokens.json", {"person": 5 + SMALL_VOCAB.index("person")})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": True})
    prompts = {"prompts": {"query": "is ", "document": ""}, "default_prompt_name": "query", "truncate_dim": 40}
    write_json(folder / "config_sentence_transformers.json", {**prompts, "similarity_fn_name": "cosine"})
    return folder


def _write_shards(folder: Path) -> None:
    tensors = random_tensors(folder)
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    weight_map = {name: shards[number % 2] for number, name in enumerate(tensors)}
    for shard in shards:
        save_safetensors(folder / shard, {name: tensors[name] for name in tensors if weight_map[name] == shard})
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by their paths in it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_changed(folder: Path, original: Path, changes: Mapping[str, bytes | None]) -> Path:
    """Write a model anew with these changes; the rest is linked."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in original.rglob("*"):
        name = path.relative_to(original)
        if path.is_file() and name.as_posix() not in changes:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(path, folder / name)
    for name_of_change, content in changes.items():
        if content is not None:
            (folder / name_of_change).parent.mkdir(parents=True, exist_ok=True)
            (folder / name_of_change).write_bytes(content)
    return folder


# --- real vocabularies --------------------------------------------------------------------------------------------


def write_chinese(folder: Path) -> Path:
    """A tiny model with bert-base-chinese's vocabulary."""
    folder.mkdir(parents=True)
    copy_chinese_tokenizer(folder, do_lower_case=True)
    return _write_tiny(folder, 21128)


def write_english(folder: Path, tokenizer: Path) -> Path:
    """A tiny model with the tokenizer files of all-MiniLM-L6-v2."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copyfile(tokenizer / name, folder / name)
    return _write_tiny(folder, 30522)


def _write_tiny(folder: Path, words: int) -> Path:
    write_config(folder, vocab_size=words, hidden_size=16, num_attention_heads=2, intermediate_size=24)
    write_weights(folder)
    write_modules(folder, {"pooling_mode": "mean", "embedding_dimension": 16}, "Normalize")
    return folder
