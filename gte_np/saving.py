"""A model -> a folder that loads again: in sentence-transformers too, unless its weights are int8."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import TensorSpec, serialize_file

from gte_np.architectures.config import DTYPE_KEY
from gte_np.architectures.tensors import MATRICES, layer_prefix
from gte_np.architectures.weights import BertWeights, read_weights
from gte_np.checkpoint.json_file import read_json_object
from gte_np.checkpoint.weight_files import WEIGHT_FILES, find_weights, shards_of
from gte_np.errors import InputError
from gte_np.formats import WeightFormat
from gte_np.formats.stored_tensor import StoredTensor
from gte_np.modules import Dense, Module
from gte_np.sentence_config import POOLING_FLAGS

if TYPE_CHECKING:
    from gte_np.embedding_model import EmbeddingModel

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
# The class names of all versions of sentence-transformers.
_MODULE_TYPE = "sentence_transformers.models.{}"


def save_model(model: EmbeddingModel, folder: str | os.PathLike[str]) -> Path:
    """Write a model's files to a folder, which is made if it is not there. See `EmbeddingModel.save_pretrained`."""
    target = Path(folder)
    if target.exists() and any(target.samefile(source) for source in (model.folder, model.transformer_folder)):
        raise InputError(
            f"expected another folder than the one the model was loaded from, got {os.fspath(folder)!r}."
        )
    target.mkdir(parents=True, exist_ok=True)
    for name in _TOKENIZER_FILES:
        if (model.transformer_folder / name).is_file():
            shutil.copyfile(model.transformer_folder / name, target / name)
    _write_weights(model, target)
    _write_json(target / "config.json", _config(model))
    limits = {"max_seq_length": model.max_seq_length, "do_lower_case": model.do_lower_case}
    _write_json(target / "sentence_bert_config.json", limits)
    _write_json(target / "config_sentence_transformers.json", _sentence_config(model))
    kinds = ["Transformer", "Pooling", *(type(module).__name__ for module in model.modules)]
    folders = ["", *(f"{number}_{kind}" for number, kind in enumerate(kinds) if number)]
    entries = [
        {"idx": number, "name": str(number), "path": path, "type": _MODULE_TYPE.format(kind)}
        for number, (kind, path) in enumerate(zip(kinds, folders, strict=True))
    ]
    _write_json(target / "modules.json", entries)
    _write_json(_made(target / folders[1]) / "config.json", _pooling_config(model))
    for module, path in zip(model.modules, folders[2:], strict=True):
        _write_module(module, _made(target / path))
    return target


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _config(model: EmbeddingModel) -> dict[str, Any]:
    config = read_json_object(model.transformer_folder / "config.json")
    config.pop(DTYPE_KEY, None)
    if model.bert.dtype != "float32":
        config[DTYPE_KEY] = model.bert.dtype
    if model.bert.dtype == "bfloat16":
        config["torch_dtype"] = "bfloat16"
    return config


def _sentence_config(model: EmbeddingModel) -> dict[str, Any]:
    config: dict[str, Any] = {
        "prompts": model.prompts,
        "default_prompt_name": model.default_prompt_name,
        "similarity_fn_name": model.similarity_fn_name,
    }
    return config if model.truncate_dim is None else config | {"truncate_dim": model.truncate_dim}


def _pooling_config(model: EmbeddingModel) -> dict[str, Any]:
    modes = {flag: mode in model.pooling_modes for flag, mode in POOLING_FLAGS.items()}
    config: dict[str, Any] = {"word_embedding_dimension": model.bert.config.hidden_size, **modes}
    in_order = tuple(mode for mode in POOLING_FLAGS.values() if mode in model.pooling_modes)
    if model.pooling_modes != in_order:  # the flags cannot say so; versions from 6 on read this instead
        config["pooling_mode"] = list(model.pooling_modes)
    return config


def _write_module(module: Module, folder: Path) -> None:
    if not isinstance(module, Dense):
        return
    config = {
        "in_features": module.weight.shape[1],
        "out_features": module.weight.shape[0],
        "bias": module.bias is not None,
        "activation_function": module.activation,
    }
    _write_json(folder / "config.json", config)
    tensors = {"linear.weight": StoredTensor("float32", module.weight)}
    if module.bias is not None:
        tensors["linear.bias"] = StoredTensor("float32", module.bias)
    write_safetensors(tensors, folder / WEIGHT_FILES[0])


def _write_weights(model: EmbeddingModel, target: Path) -> None:
    """In float32 the published files, as they are; else one file."""
    weight_format = model.bert.format
    if weight_format.dtype == "float32":
        for source in _weight_files(model.transformer_folder):
            _replace(target / source.name, lambda part, source=source: shutil.copyfile(source, part))
        return
    weights = read_weights(model.transformer_folder, model.bert.config)
    write_safetensors(dict(_formatted(weights, weight_format)), target / weight_format.file)


def _weight_files(folder: Path) -> list[Path]:
    path = find_weights(folder)
    return [path, *shards_of(path)] if path.suffix == ".json" else [path]


def _formatted(weights: BertWeights, weight_format: WeightFormat) -> Iterator[tuple[str, StoredTensor]]:
    """The tensors of a file: matrices in a format, the rest as they are."""
    groups = [("", weights.embeddings), ("", weights.pooler or {})]
    groups += [(layer_prefix(number), layer) for number, layer in enumerate(weights.layers)]
    for prefix, tensors in groups:
        for name, tensor in tensors.items():
            if name in MATRICES:
                for suffix, part in weight_format.of(tensor).parts.items():
                    yield prefix + name + suffix, part
            elif isinstance(tensor, StoredTensor):
                yield prefix + name, tensor
            tensor.forget_pages()


def write_safetensors(tensors: dict[str, StoredTensor], path: Path) -> None:
    """Write a safetensors file, in one step for all who look."""
    arrays = {name: np.ascontiguousarray(tensor.data) for name, tensor in tensors.items()}
    specs = {
        name: TensorSpec(
            dtype=tensors[name].dtype, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes
        )
        for name, array in arrays.items()
    }
    _replace(path, lambda part: serialize_file(specs, part, metadata={"format": "pt"}))


def _replace(path: Path, write: Any) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        part.touch()
        mode = part.stat().st_mode  # what the user's files have: safetensors' are for nobody else to read
        write(part)
        part.chmod(mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
