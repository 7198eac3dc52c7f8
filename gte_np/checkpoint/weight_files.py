"""The files that hold weights: which of a folder is meant, and the tensors in it, as stored."""

from __future__ import annotations

import re
from pathlib import Path

from gte_np.checkpoint.json_file import read_json_object
from gte_np.checkpoint.safetensors import read_safetensors
from gte_np.errors import CheckpointError, ModelNotFoundError
from gte_np.formats import FORMATS
from gte_np.formats.stored_tensor import StoredTensor


def weight_files() -> list[str]:
    """Their names in the order of preference, which is transformers' too; then those of this package's formats."""
    names = ["model.safetensors", "pytorch_model.bin", *(weight_format.file for weight_format in FORMATS)]
    return list(dict.fromkeys(names))


def index_of(file: str) -> str:
    """The name of the index of a weights file that is in shards."""
    return f"{file}.index.json"


def _candidates() -> list[str]:
    return [name for file in weight_files() for name in (file, index_of(file))]


_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.(safetensors|bin)")


def find_weights(folder: Path) -> Path:
    """Return the weights file or index of a folder. Raise ModelNotFoundError if it has none."""
    for name in _candidates():
        if (folder / name).is_file():
            return folder / name
    raise ModelNotFoundError(f"{folder}: expected one of {', '.join(_candidates())}, found none of them.")


def weight_names(folder: Path) -> list[str]:
    """The names of the weights files of a folder, and of those that `find_weights` would prefer to them."""
    candidates = _candidates()
    for number, name in enumerate(candidates, 1):
        if (folder / name).is_file():
            shards = shards_of(folder / name) if name.endswith(".json") else []
            return [*candidates[:number], *(shard.name for shard in shards)]
    return candidates


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """Return name -> tensor of a .safetensors or .bin file, or of all files that an index.json lists."""
    if path.suffix == ".json":
        return _read_shards(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    from gte_np.checkpoint.torch_zip import read_torch_zip

    return read_torch_zip(path)


def _read_shards(index: Path) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for shard in shards_of(index):
        tensors |= read_tensors(shard)
    return tensors


def shards_of(index: Path) -> list[Path]:
    """The files that an index.json lists.

    Raises CheckpointError unless they lie beside it, and ModelNotFoundError if one is not there.
    """
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: expected an object weight_map of tensor name to file name, found none.")
    shards = []
    for name in sorted({str(file) for file in weight_map.values()}):
        if not _SHARD_NAME.fullmatch(name):
            raise CheckpointError(f"{index}: expected file names beside the index in weight_map, got {name!r:.80}.")
        shard = index.with_name(name)
        if not shard.is_file():
            raise ModelNotFoundError(f"{shard}: listed in {index.name}, but not there. Download it again.")
        shards.append(shard)
    return shards
