"""Checkpoints that the tests make: random weights, laid out as published repositories are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import TensorSpec, serialize_file

from gte_np.architectures.config import read_config
from gte_np.architectures.tensors import expected_shapes
from gte_np.formats.stored_tensor import StoredTensor
from gte_np.tokenization.text_pieces import MAX_WORD_CHARACTERS
from gte_np.tokenization.word_piece import SPECIAL_TOKENS
from tests.torch_pickle import save_torch_zip

CHINESE = Path(__file__).parent / "data" / "bert-base-chinese"
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def write_config(folder: Path, **values: Any) -> None:
    """Write config.json: a small BERT, with other values where they are given (None leaves a key out)."""
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": 200,
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        **SMALL,
        **values,
    }
    write_json(folder / "config.json", {key: value for key, value in config.items() if value is not None})


def random_tensors(
    folder: Path, dtype: str = "float32", *, pooler: bool = True, seed: int = 0
) -> dict[str, StoredTensor]:
    """Random weights for the sizes in config.json, of about the scale of trained ones.

    The same seed gives the same numbers everywhere: the golden arrays depend on it, and their manifest has a hash.
    """
    random = np.random.default_rng(seed)
    tensors = {}
    for name, shape in expected_shapes(read_config(folder), pooler).items():
        values = random.standard_normal(shape, dtype=np.float32)
        if name.endswith("LayerNorm.weight"):
            values = 1 + values * np.float32(0.1)
        elif len(shape) == 2 and "embeddings" not in name:
            values *= np.float32(shape[1] ** -0.5)
        else:
            values *= np.float32(0.1)
        tensors[name] = to_stored(values, dtype)
    return tensors


def to_stored(array: NDArray[np.float32], dtype: str) -> StoredTensor:
    """Round an array to float32, float16 or bfloat16 (by truncation)."""
    if dtype == "bfloat16":
        return StoredTensor(dtype, (array.view(np.uint32) >> 16).astype(np.uint16))
    return StoredTensor(dtype, array.astype(dtype))


def position_ids(count: int) -> StoredTensor:
    """The tensor that old checkpoints hold beside the weights."""
    return StoredTensor("int64", np.arange(count, dtype=np.int64)[None])


def save_safetensors(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Write a .safetensors file."""
    contiguous = {name: np.ascontiguousarray(tensor.data) for name, tensor in tensors.items()}
    specs = {
        name: TensorSpec(
            dtype=tensors[name].dtype, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes
        )
        for name, array in contiguous.items()
    }
    serialize_file(specs, path, metadata={"format": "pt"})


def write_weights(
    folder: Path,
    *,
    dtype: str = "float32",
    files: Sequence[str] = ("model.safetensors",),
    prefix: str = "",
    pooler: bool = True,
    seed: int = 0,
    extra: Mapping[str, StoredTensor] | None = None,
) -> None:
    """Write random weights, in each of the files, for the sizes in config.json."""
    tensors = random_tensors(folder, dtype, pooler=pooler, seed=seed)
    tensors = {prefix + name: tensor for name, tensor in tensors.items()} | dict(extra or {})
    for file in files:
        save = save_safetensors if file.endswith(".safetensors") else save_torch_zip
        save(folder / file, tensors)


def write_vocab(folder: Path, tokens: Sequence[str], **config: Any) -> None:
    """Write vocab.txt and tokenizer_config.json; the special tokens go first."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *tokens]
    (folder / "vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **config})


def copy_chinese_tokenizer(
    folder: Path, *, lines: int | None = None, tokenizer_json: bool = False, **config: Any
) -> None:
    """Write the vocabulary of bert-base-chinese, or its first lines, with another tokenizer_config.json.

    With `tokenizer_json`, as most repositories have it: with tokenizer.json and special_tokens_map.json.
    """
    vocab = (CHINESE / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    vocab = vocab[:lines]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocab), encoding="utf-8")
    if tokenizer_json:
        write_json(folder / "tokenizer.json", published_tokenizer_json(vocab))
        write_json(folder / "special_tokens_map.json", SPECIAL_TOKENS)
    original = json.loads((CHINESE / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(folder / "tokenizer_config.json", {**original, **config})


def published_tokenizer_json(vocab: Sequence[str]) -> dict[str, Any]:
    """A tokenizer.json as the Chinese repositories have it, whose normalizer tokenizer_config.json overrides."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ids = {token: index for index, token in enumerate(vocab)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[token], "content": token, **flags} for token in SPECIAL_TOKENS.values()],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": False,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": SPECIAL_TOKENS["unk_token"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": MAX_WORD_CHARACTERS,
            "vocab": ids,
        },
    }


def write_modules(folder: Path, pooling: Mapping[str, Any] | None, *others: str) -> None:
    """Write modules.json and 1_Pooling/config.json, in the form before sentence-transformers 6."""
    kinds = ["Transformer", "Pooling", *others]
    entries = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{kind}" if index else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", entries)
    if pooling is not None:
        write_json(folder / "1_Pooling" / "config.json", pooling)


def pooling_flags(dimension: int, mode: str) -> dict[str, Any]:
    """1_Pooling/config.json with booleans, as most repositories have it."""
    return {
        "word_embedding_dimension": dimension,
        "pooling_mode_cls_token": mode == "cls",
        "pooling_mode_mean_tokens": mode == "mean",
        "pooling_mode_max_tokens": mode == "max",
        "pooling_mode_mean_sqrt_len_tokens": mode == "mean_sqrt_len_tokens",
    }


# Words of several scripts, each character in bert-base-chinese's vocabulary, for tiny models.
SMALL_VOCAB = [
    *"abcdefghijklmnopqrstuvwxyz0123456789.,!?'-",
    *(f"##{character}" for character in "abcdefghijklmnopqrstuvwxyz0123456789"),
    *"中国的首都是哪里你喜欢去旅游北京今天午吃什么。，",
    "happy",
    "person",
    "##ing",
    "that",
    "is",
    "very",
]


def small_model(folder: Path, *, pooling: str = "mean", **config: Any) -> Path:
    """Write a small model of all files that a published repository has, and return its folder."""
    write_vocab(folder, SMALL_VOCAB, do_lower_case=True, model_max_length=64)
    write_config(folder, **config)
    write_weights(folder)
    write_modules(folder, pooling_flags((SMALL | config)["hidden_size"], pooling), "Normalize")
    return folder


def two_layers(folder: Path, tokenizer: Path) -> Path:
    """Write two layers of all-MiniLM-L6-v2's shape, with the tokenizer files of its folder; return the new folder."""
    sizes = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536, "num_hidden_layers": 2}
    write_config(folder, vocab_size=30522, max_position_embeddings=512, **sizes)
    write_weights(folder, pooler=False)
    for name in ("vocab.txt", "tokenizer_config.json"):
        (folder / name).write_bytes((tokenizer / name).read_bytes())
    write_modules(folder, pooling_flags(384, "mean"), "Normalize")
    return folder


def dense_model(
    folder: Path, *, pooling: Sequence[str] = ("mean",), out_features: int = 45, activation: str = "Tanh"
) -> Path:
    """Write a small model with a Dense module between pooling and Normalize."""
    small_model(folder)
    size = SMALL["hidden_size"]
    write_modules(folder, {"pooling_mode": list(pooling), "embedding_dimension": size}, "Dense", "Normalize")
    in_features = size * len(pooling)
    package = "linear" if activation == "Identity" else "activation"
    config = {
        "in_features": in_features,
        "out_features": out_features,
        "bias": True,
        "activation_function": f"torch.nn.modules.{package}.{activation}",
    }
    write_json(folder / "2_Dense" / "config.json", config)
    values = np.random.default_rng(1).standard_normal((out_features, in_features + 1), np.float32)
    tensors = {
        "linear.weight": StoredTensor("float32", values[:, 1:]),
        "linear.bias": StoredTensor("float32", values[:, 0]),
    }
    save_safetensors(folder / "2_Dense" / "model.safetensors", tensors)
    return folder
