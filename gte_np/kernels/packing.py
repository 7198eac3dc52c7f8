"""A checkpoint's weights -> what the kernels read: matrices in panels, all else as padded float32 vectors.

In bfloat16 and int8 a word of 32 bits holds 2 or 4 values of neighbouring input features, and words are packed as
float32 values are.

The features of each head are padded to whole panels, by rows and columns of zeros in the weights, so that attention
reads and writes whole panels; so are the hidden and the intermediate features that a matrix product writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.checkpoint.config import BertConfig
from gte_np.checkpoint.names import WORDS
from gte_np.checkpoint.stored_tensor import NUMPY_DTYPES, StoredTensor
from gte_np.checkpoint.weights import BertWeights
from gte_np.kernels.library import function
from gte_np.kernels.plan import LAYER, PLAN, WORD_PRECISIONS
from gte_np.kernels.processor import LANES, processor
from gte_np.kernels.threads import pool, take_turns
from gte_np.low_precision import to_dtype

PANEL = processor().panel

_WORD_BYTES = 4
# dtype -> the name of its matrices in gte_np.kernels.simd.MATRIX_TYPES, and the values of a word
_PACKED = {"bfloat16": ("bfloat16x2", 2), "int8": ("int8x4", 4)}

_VECTORS = {  # field of a LAYER record -> tensor
    "attention_output_bias": "attention.output.dense.bias",
    "attention_norm_weight": "attention.output.LayerNorm.weight",
    "attention_norm_bias": "attention.output.LayerNorm.bias",
    "intermediate_bias": "intermediate.dense.bias",
    "output_bias": "output.dense.bias",
    "output_norm_weight": "output.LayerNorm.weight",
    "output_norm_bias": "output.LayerNorm.bias",
}


def padded(size: int, multiple: int = PANEL) -> int:
    """The next multiple, of a panel's width unless told."""
    return -(-size // multiple) * multiple


@dataclass(frozen=True)
class Sizes:
    """The sizes of an encoder, and its widths: sizes that are padded."""

    hidden: int
    inner: int
    heads: int

    @property
    def head(self) -> int:
        """K, the features of a head."""
        return self.hidden // self.heads

    @property
    def head_width(self) -> int:
        """K, padded."""
        return padded(self.head)

    @property
    def attention_width(self) -> int:
        """The padded features of all heads."""
        return self.heads * self.head_width

    @property
    def hidden_width(self) -> int:
        """D, padded."""
        return padded(self.hidden)

    @property
    def inner_width(self) -> int:
        """F, padded."""
        return padded(self.inner)

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Linear layer -> the depth and the width of its packed matrix, in the order in which they lie."""
        return {
            "qkv": (self.hidden, 3 * self.attention_width),
            "attention_output": (self.attention_width, self.hidden_width),
            "intermediate": (self.hidden, self.inner_width),
            "output": (self.inner, self.hidden_width),
        }


class Piece(NamedTuple):
    """A part of an (out, in) tensor, and the input and output feature where it begins in the packed matrix."""

    rows: slice
    columns: slice
    input: int = 0
    output: int = 0


class PackedWeights:
    """The weights of one encoder as the kernels read them, for linear layers in a dtype.

    `kind` is what `matrices` holds, a name of `gte_np.kernels.simd.MATRIX_TYPES`; in float32 that is the precision of
    the checkpoint, or float32 if it has several. `layers` has a record of `LAYER` for each layer, and `plan` is a
    record of `PLAN` with the model's part filled in.
    """

    def __init__(self, config: BertConfig, weights: BertWeights, dtype: str, threads: int) -> None:
        self.sizes = Sizes(config.hidden_size, config.intermediate_size, config.num_attention_heads)
        self.dtype = dtype
        stored = stored_precision(weights)
        self.kind, self.values_of_word = _PACKED.get(dtype, (stored, 1))
        self._element = NUMPY_DTYPES[stored] if dtype == "float32" else np.dtype(np.float32)
        layer_size = sum(self.steps(depth) * width for depth, width in self.sizes.matrices.values())
        self.matrices = np.zeros(layer_size * len(weights.layers), self._element)
        self.layers = np.zeros(len(weights.layers), LAYER)
        self._vectors: list[NDArray[Any]] = []
        jobs: list[Callable[[], None]] = []
        for index, layer in enumerate(weights.layers):
            jobs += self._add_layer(self.layers[index : index + 1], layer, index * layer_size)
        self.plan = self._make_plan(config, weights)
        pool().call(partial(_run_all, jobs, threads))

    def steps(self, features: int) -> int:
        """How many steps a product has for so many input features."""
        return -(-features // self.values_of_word)

    def _add_layer(self, record: NDArray[Any], layer: Mapping[str, StoredTensor], start: int) -> Iterator[Any]:
        """Fill in a record of LAYER; yield the jobs that pack the matrices, which can be done in any order."""
        qkv = [self._by_head(layer[f"attention.self.{part}.bias"]) for part in ("query", "key", "value")]
        record["qkv_bias"] = self._keep(np.concatenate(qkv))
        for field, name in _VECTORS.items():
            record[field] = self._keep(_padded_vector(layer[name].to_float32()))
        for field, (depth, width) in self.sizes.matrices.items():
            record[f"{field}_weight"] = start
            scales = np.zeros((width // PANEL, 2, PANEL) if self.dtype == "int8" else 0, np.float32)
            record[f"{field}_scales"] = self._keep(scales)
            for name, pieces in self._sources(field):
                yield partial(self._pack, layer[name], pieces, start, self.steps(depth), scales)
            start += self.steps(depth) * width

    def _sources(self, field: str) -> Iterator[tuple[str, list[Piece]]]:
        """The tensors of a packed matrix and where their parts go."""
        everything = slice(None)
        sizes = self.sizes
        heads = [slice(head * sizes.head, (head + 1) * sizes.head) for head in range(sizes.heads)]
        starts = [head * sizes.head_width for head in range(sizes.heads)]
        if field == "qkv":
            for number, part in enumerate(("query", "key", "value")):
                first = number * sizes.attention_width
                pieces = [Piece(head, everything, output=first + at) for head, at in zip(heads, starts, strict=True)]
                yield f"attention.self.{part}.weight", pieces
        elif field == "attention_output":
            pieces = [Piece(everything, head, input=at) for head, at in zip(heads, starts, strict=True)]
            yield "attention.output.dense.weight", pieces
        else:
            yield f"{field}.dense.weight", [Piece(everything, everything)]

    def _pack(
        self, tensor: StoredTensor, pieces: list[Piece], start: int, steps: int, scales: NDArray[np.float32]
    ) -> None:
        converted = to_dtype(tensor, self.dtype)
        data = self._as_stored(tensor) if self.dtype == "float32" else converted.data
        pack = function("pack_float32" if self._element.itemsize == _WORD_BYTES else "pack_float16", arguments=6)
        sums = data.sum(axis=1, dtype=np.int32) if converted.scale is not None else None
        for piece in pieces:
            part = self._words(data[piece.rows, piece.columns])
            target = self.matrices[start + piece.output * steps + self.steps(piece.input) * PANEL :]
            stride = part.strides[0] // part.itemsize
            pack(part.ctypes.data, stride, *part.shape, target.ctypes.data, steps * PANEL)
            if sums is not None and converted.scale is not None:
                outputs = piece.output + np.arange(len(part))
                scales[outputs // PANEL, 0, outputs % PANEL] = converted.scale[piece.rows]
                scales[outputs // PANEL, 1, outputs % PANEL] = sums[piece.rows]
        tensor.forget_pages()

    def _words(self, part: NDArray[Any]) -> NDArray[Any]:
        """(out, in) values as (out, steps) words, the last one filled up with zeros."""
        if self.values_of_word == 1:
            return part
        padding = self.steps(part.shape[1]) * self.values_of_word - part.shape[1]
        return np.ascontiguousarray(np.pad(part, ((0, 0), (0, padding))) if padding else part).view(np.float32)

    def _as_stored(self, tensor: StoredTensor) -> NDArray[Any]:
        """The tensor in the common precision, in rows without holes."""
        data = tensor.data if tensor.dtype == self.kind else tensor.to_float32()
        return np.require(data, requirements=["C", "A"])

    def _word_fields(self, tensor: StoredTensor) -> dict[str, int]:
        """A copy of the word table in its own precision: the file may change afterwards."""
        table = to_dtype(tensor, self.dtype)
        words = len(table.data)
        # Rows are read up to a multiple of LANES: something must be behind the last.
        behind = 1 if self.sizes.hidden % LANES else 0
        data = np.zeros((words + behind, self.sizes.hidden), table.data.dtype)
        data[:words] = table.data
        tensor.forget_pages()
        self._vectors.append(data)
        fields = {"word_table": data.ctypes.data, "word_precision": WORD_PRECISIONS.index(table.dtype)}
        if table.scale is not None:
            fields["word_scales"] = self._keep(table.scale.copy())
        return fields

    def _by_head(self, bias: StoredTensor) -> NDArray[np.float32]:
        """(D,) -> (H head_width,)."""
        return _padded_rows(bias.to_float32().reshape(self.sizes.heads, self.sizes.head)).reshape(-1)

    def _keep(self, values: NDArray[np.float32]) -> int:
        """The address of an array, which lives as long as these weights."""
        self._vectors.append(np.ascontiguousarray(values))
        return self._vectors[-1].ctypes.data

    def _make_plan(self, config: BertConfig, weights: BertWeights) -> NDArray[Any]:
        plan = np.zeros(1, PLAN)
        plan["layers"] = len(weights.layers)
        plan["hidden_size"] = self.sizes.hidden
        plan["intermediate_size"] = self.sizes.inner
        plan["heads"] = self.sizes.heads
        plan["head_size"] = self.sizes.head
        plan["head_width"] = self.sizes.head_width
        plan["eps"] = config.layer_norm_eps
        tensors = weights.embeddings
        for field, value in self._word_fields(tensors[WORDS]).items():
            plan[field] = value
        for field, name in (
            ("token_type_table", "embeddings.token_type_embeddings.weight"),
            ("position_table", "embeddings.position_embeddings.weight"),
        ):
            plan[field] = self._keep(_padded_rows(tensors[name].to_float32()))
        plan["embedding_norm_weight"] = self._keep(
            _padded_vector(tensors["embeddings.LayerNorm.weight"].to_float32())
        )
        plan["embedding_norm_bias"] = self._keep(_padded_vector(tensors["embeddings.LayerNorm.bias"].to_float32()))
        return plan


def _run_all(jobs: Sequence[Callable[[], None]], threads: int) -> None:
    with pool().claim(threads) as count:
        take_turns(jobs, lambda job: job(), count)


def stored_precision(weights: BertWeights) -> str:
    """The precision of all matrices, or float32 if they differ."""
    precisions = {tensor.dtype for layer in weights.layers for tensor in layer.values() if len(tensor.shape) == 2}
    return precisions.pop() if len(precisions) == 1 else "float32"


def _padded_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.pad(rows, ((0, 0), (0, padded(rows.shape[1]) - rows.shape[1])))


def _padded_vector(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return _padded_rows(vector[None])[0]
