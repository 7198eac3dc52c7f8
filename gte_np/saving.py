"""A model -> a folder that loads again: in sentence-transformers too, unless its weights are int8."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, TensorSpec, serialize_file

from gte_np.architectures.config import DTYPE_KEY
from gte_np.architectures.tensors import MATRICES, layer_prefix
from gte_np.architectures.weights import BertWeights, read_weights
from gte_np.bert_model import BertModel
from gte_np.checkpoint.json_file import read_json_object
from gte_np.checkpoint.weight_files import find_weights, shards_of, weight_files
from gte_np.errors import InputError
from gte_np.files import naming, whole_file, whole_folder
from gte_np.formats import WeightFormat
from gte_np.formats.stored_tensor import StoredTensor
from gte_np.modules import Dense, Module
from gte_np.sentence_config import POOLING_FLAGS
from gte_np.tokenization.word_piece import TOKENIZER_FILES


class SavableModel(Protocol):
    """What is read of an `EmbeddingModel`."""

    folder: Path
    transformer_folder: Path
    bert: BertModel
    modules: tuple[Module, ...]
    pooling_modes: tuple[str, ...]
    do_lower_case: bool
    max_seq_length: int
    truncate_dim: int | None
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity_fn_name: str


# What belongs to the model in a model's folder, beside its tokenizer. All else is its user's.
_MODEL_PATH = (
    r"(config|modules|config_sentence_transformers|sentence_[\w-]+_config)\.json|"
    r"\d+_(Transformer|Pooling|Dense|Normalize)|panels_\w+\.npy"
)
_MARKS = ("config.json", "modules.json")  # of a model's folder
# The class names of all versions of sentence-transformers.
_MODULE_TYPE = "sentence_transformers.models.{}"


def save_model(model: SavableModel, folder: str | os.PathLike[str]) -> Path:
    """Write a model's files to a folder, which is made if it is not there. See `EmbeddingModel.save_pretrained`."""
    target = Path(os.path.realpath(folder))  # a link to a folder stays one
    _check_target(target, model, os.fspath(folder))
    with whole_folder(target, _is_of_a_model) as part, naming(target, part):
        _write_model(model, part)
    return target


def _check_target(target: Path, model: SavableModel, name: str) -> None:
    """Raise InputError unless the folder can be written, or replaced, without a loss."""
    sources = [Path(os.path.realpath(source)) for source in (model.folder, model.transformer_folder)]
    if any(_is_within(target, source) or _is_within(source, target) for source in sources):
        raise InputError(
            "expected another folder than the one that the model was loaded from, and neither one in it nor one "
            f"around it, got {name!r}."
        )
    if target.is_dir():
        _check_replaceable(target, name)
    elif target.exists():
        raise InputError(f"expected a folder to write to, got the file {name!r}.")


def _check_replaceable(target: Path, name: str) -> None:
    if _is_within(Path.cwd(), target) or os.path.ismount(target):
        raise InputError(
            "expected a folder that can be replaced, not the working directory, one around it or a mount point, got "
            f"{name!r}: name a new folder inside."
        )
    if any(target.iterdir()) and not any((target / file).is_file() for file in _MARKS):
        raise InputError(
            f"expected a new or an empty folder, or the folder of a model to replace, got {name!r}, which has other "
            "files and no config.json."
        )


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder, or lies in it, by whatever names."""
    return folder.exists() and any(outer.exists() and outer.samefile(folder) for outer in (path, *path.parents))


def _is_of_a_model(path: Path) -> bool:
    """Whether a path in a model's folder belongs to the model, and not to its user like README.md and .git."""
    name = path.as_posix()
    shards = (rf"{Path(file).stem}(-\d+-of-\d+)?\{Path(file).suffix}(\.index\.json)?" for file in weight_files())
    return name in TOKENIZER_FILES or any(re.fullmatch(each, name, re.ASCII) for each in (_MODEL_PATH, *shards))


def _write_model(model: SavableModel, target: Path) -> None:
    for name in TOKENIZER_FILES:
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


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _config(model: SavableModel) -> dict[str, Any]:
    config = read_json_object(model.transformer_folder / "config.json")
    config.pop(DTYPE_KEY, None)
    if model.bert.dtype != "float32":
        config[DTYPE_KEY] = model.bert.dtype
    if model.bert.dtype == "bfloat16":
        config["torch_dtype"] = "bfloat16"
    return config


def _sentence_config(model: SavableModel) -> dict[str, Any]:
    config: dict[str, Any] = {
        "prompts": model.prompts,
        "default_prompt_name": model.default_prompt_name,
        "similarity_fn_name": model.similarity_fn_name,
    }
    return config if model.truncate_dim is None else config | {"truncate_dim": model.truncate_dim}


def _pooling_config(model: SavableModel) -> dict[str, Any]:
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
    write_safetensors(tensors, folder / weight_files()[0])


def _write_weights(model: SavableModel, target: Path) -> None:
    """In float32 the published files, as they are; else one file."""
    weight_format = model.bert.format
    if weight_format.dtype == "float32":
        for source in _weight_files(model.transformer_folder):
            shutil.copyfile(source, target / source.name)
        return
    weights = read_weights(model.transformer_folder, model.bert.config)
    write_safetensors(dict(_formatted(weights, weight_format)), target / weight_format.file)
    model.bert.save_panels(target)


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
    with whole_file(path) as part:
        try:
            serialize_file(specs, part, metadata={"format": "pt"})
        except SafetensorError as error:  # which says what the system said, but has no errno
            raise OSError(errno.EIO, str(error), os.fspath(path)) from error
