"""The weights file or files of a folder -> BertWeights, every tensor checked against the table of names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gte_np.architectures import Architecture
from gte_np.architectures.config import BertConfig
from gte_np.architectures.tensors import (
    EMBEDDINGS,
    LAYER,
    POOLER,
    expected_shapes,
    layer_prefix,
)
from gte_np.checkpoint.weight_files import find_weights, read_tensors
from gte_np.errors import CheckpointError
from gte_np.formats import FORMATS, FormattedMatrix, WeightFormat
from gte_np.formats.stored_tensor import FLOAT_DTYPES, StoredTensor

_ELEMENTS_AT_ONCE = 1 << 20  # of the check for finite values: it bounds the memory that the check takes
_EXPONENT_BITS = {"float16": np.uint16(0x7C00), "bfloat16": np.uint16(0x7F80)}  # all set: infinite or NaN

Tensor = StoredTensor | FormattedMatrix


@dataclass(frozen=True)
class BertWeights:
    """The tensors of one encoder, as stored.

    `embeddings`, each of `layers` and `pooler` are keyed by the names in `gte_np.architectures.tensors`; `pooler` is
    None where the checkpoint has none. `folder` is where they were read from, or None.
    """

    embeddings: dict[str, Tensor]
    layers: tuple[dict[str, Tensor], ...]
    pooler: dict[str, Tensor] | None
    folder: Path | None = None

    def check(self, config: BertConfig) -> None:
        """Raise CheckpointError unless these are the tensors of an encoder of these sizes."""
        tensors = self.embeddings | (self.pooler or {})
        for number, layer in enumerate(self.layers):
            tensors = tensors | {layer_prefix(number) + name: tensor for name, tensor in layer.items()}
        _refuse(list(_differences(tensors, expected_shapes(config, self.pooler is not None))), "the weights", config)

    @property
    def format(self) -> WeightFormat | None:
        """The format that the matrices were saved in, if it is more than a precision."""
        matrices = (tensor for layer in self.layers for tensor in layer.values())
        return next((matrix.format for matrix in matrices if isinstance(matrix, FormattedMatrix)), None)

    def fingerprint(self) -> bytes:
        """SHA-256 of all vectors and of each matrix's first row: enough to tell these weights from others."""
        import hashlib  # OpenSSL, which takes some milliseconds to load

        digest = hashlib.sha256()
        for tensors in (self.embeddings, *self.layers):
            for tensor in tensors.values():
                for part in tensor.parts.values() if isinstance(tensor, FormattedMatrix) else [tensor]:
                    digest.update((part.data[:1] if part.data.ndim == 2 else part.data).tobytes())
        return digest.digest()


def read_weights(folder: Path, config: BertConfig) -> BertWeights:
    """Read and check the encoder's weights of a checkpoint folder.

    Raises ModelNotFoundError if there is no weights file, and CheckpointError, which lists all that is wrong at
    once, if tensors are missing, unexpected, of a wrong shape or dtype, or hold NaN or infinite values.
    """
    path = find_weights(folder)
    tensors = open_tensors(path, config.architecture)
    has_pooler = any(name in tensors for name in POOLER)
    shapes = expected_shapes(config, has_pooler)
    problems = [*_differences(tensors, shapes), *_not_finite(tensors)]
    _refuse(problems, str(path), config)
    return BertWeights(
        embeddings={name: tensors[name] for name in EMBEDDINGS},
        layers=tuple(
            {name: tensors[layer_prefix(layer) + name] for name in LAYER} for layer in range(config.num_hidden_layers)
        ),
        pooler={name: tensors[name] for name in POOLER} if has_pooler else None,
        folder=folder,
    )


def open_tensors(path: Path, architecture: Architecture) -> dict[str, Tensor]:
    """The tensors of a weights file by their canonical names, as stored, without a look at their values."""
    tensors: dict[str, Tensor] = dict(_canonical(read_tensors(path), architecture, path))
    for weight_format in FORMATS:
        if weight_format.file == path.name and len(weight_format.part_dtypes) > 1:
            tensors = _joined(tensors, weight_format)
    return tensors


def stored_precision(weights: BertWeights) -> str:
    """The precision of all matrices, or float32 if they differ."""
    matrices = [tensor for layer in weights.layers for tensor in layer.values() if len(tensor.shape) == 2]
    precisions = {tensor.dtype if isinstance(tensor, StoredTensor) else tensor.format.stored for tensor in matrices}
    return precisions.pop() if len(precisions) == 1 else "float32"


def to_float32(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    """The stored tensors as float32 arrays."""
    return {name: tensor.to_float32() for name, tensor in tensors.items()}


def _canonical(tensors: dict[str, StoredTensor], architecture: Architecture, path: Path) -> dict[str, StoredTensor]:
    renamed: dict[str, StoredTensor] = {}
    for stored_name, tensor in tensors.items():
        name = architecture.canonical_name(stored_name)
        if architecture.is_ignored(name):
            continue
        if name in renamed:
            raise CheckpointError(f"{path}: expected one tensor for {name}, got two ({stored_name} is another).")
        renamed[name] = tensor
    return renamed


def _joined(tensors: dict[str, Tensor], weight_format: WeightFormat) -> dict[str, Tensor]:
    """The parts of matrices of a format joined; parts that fit no matrix stay what they are, and are unexpected."""
    joined = dict(tensors)
    dtypes = weight_format.part_dtypes
    for name in tensors:
        parts = {suffix: part for suffix in dtypes if isinstance(part := tensors.get(name + suffix), StoredTensor)}
        if {suffix: part.dtype for suffix, part in parts.items()} != dtypes or len(parts[""].shape) != 2:
            continue
        shapes = weight_format.part_shapes(*weight_format.shape_of(parts))
        if {suffix: part.shape for suffix, part in parts.items()} == shapes:
            for suffix in dtypes:
                del joined[name + suffix]
            joined[name] = FormattedMatrix(weight_format, parts)
    return joined


def _differences(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> Iterable[str]:
    for name, shape in shapes.items():
        if name not in tensors:
            yield f"missing {name} {shape}"
        elif tensors[name].shape != shape:
            yield f"{name} has shape {tensors[name].shape}, not {shape}"
        elif isinstance(tensor := tensors[name], StoredTensor) and tensor.dtype not in FLOAT_DTYPES:
            yield f"{name} is {tensor.dtype}, not one of {', '.join(FLOAT_DTYPES)}"
    yield from (f"unexpected {name!r:.120}" for name in tensors if name not in shapes)


def _not_finite(tensors: dict[str, Tensor]) -> Iterable[str]:
    for name, tensor in tensors.items():
        finite = is_finite(tensor)
        tensor.forget_pages()  # else all of the file would be in memory at once
        if not finite:
            yield f"{name} holds NaN or infinite values"


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite. Integers are finite."""
    if isinstance(tensor, FormattedMatrix):
        return all(is_finite(part) for part in tensor.parts.values())
    elements = tensor.data.reshape(-1)
    parts = (elements[start : start + _ELEMENTS_AT_ONCE] for start in range(0, elements.size, _ELEMENTS_AT_ONCE))
    exponent = _EXPONENT_BITS.get(tensor.dtype)
    if exponent is None:
        return tensor.data.dtype.kind in "iub" or all(np.isfinite(part).all() for part in parts)
    return all((part.view(np.uint16) & exponent != exponent).all() for part in parts)


def _refuse(problems: list[str], where: str, config: BertConfig) -> None:
    if problems:
        raise CheckpointError(
            f"{where}: expected the tensors of a BERT encoder with {config.num_hidden_layers} layers of "
            f"{config.hidden_size}, got {len(problems)} difference(s): {_listing(problems)}."
        )


def _listing(problems: list[str], at_most: int = 20) -> str:
    more = f"; and {len(problems) - at_most} more" if len(problems) > at_most else ""
    return "; ".join(problems[:at_most]) + more
