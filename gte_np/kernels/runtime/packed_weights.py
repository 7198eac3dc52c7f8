"""A checkpoint's weights -> what the kernels read: matrices in panels, all else as padded float32 vectors.

A matrix is (out, in), and its words lie in panels of as many output features as a tile of the target has:

    (out / panel, steps, panel)        e.g. panels of 2:   W = 1 2   ->  1 3  2 4   5 7  6 8
                                                               3 4
                                                               5 6
                                                               7 8

The features of each head are padded to whole panels, by rows and columns of zeros in the weights, so that attention
reads and writes whole panels; so are the hidden and the intermediate features that a matrix product writes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.architectures.config import BertConfig
from gte_np.architectures.tensors import WORDS
from gte_np.architectures.weights import BertWeights, Tensor
from gte_np.checkpoint.weight_files import find_weights
from gte_np.formats import FormattedMatrix, WeightFormat
from gte_np.formats.stored_tensor import StoredTensor
from gte_np.kernels.operations.records import LAYOUT
from gte_np.kernels.runtime.feature_order import are_orders, natural_order, order_panels, order_rows
from gte_np.kernels.runtime.kernel_functions import function
from gte_np.kernels.runtime.saved_panels import WatchedFile, map_panels, panels_error, panels_file
from gte_np.kernels.runtime.threads import pool, take_turns
from gte_np.kernels.targets import Target
from gte_np.kernels.targets.target import CACHE_LINE

FloatArray = NDArray[np.float32]

# Linear layer -> the tensors whose output features it has, one behind the other.
LINEARS = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention_output": ("attention.output.dense",),
    "intermediate": ("intermediate.dense",),
    "output": ("output.dense",),
}
NORMS = {"attention_norm": "attention.output.LayerNorm", "output_norm": "output.LayerNorm"}


def padded(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple


class Sizes(NamedTuple):
    """The sizes of an encoder, and its widths: sizes that are padded to whole panels."""

    hidden: int
    inner: int
    heads: int
    panel: int

    @property
    def head(self) -> int:
        """K, the features of a head."""
        return self.hidden // self.heads

    @property
    def head_width(self) -> int:
        """K, padded."""
        return padded(self.head, self.panel)

    @property
    def attention_width(self) -> int:
        """The padded features of all heads."""
        return self.heads * self.head_width

    @property
    def hidden_width(self) -> int:
        """D, padded."""
        return padded(self.hidden, self.panel)

    @property
    def inner_width(self) -> int:
        """F, padded."""
        return padded(self.inner, self.panel)

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Linear layer -> the depth, in features, and the width of its packed matrix, in the order of `LINEARS`."""
        return {
            "qkv": (self.hidden, 3 * self.attention_width),
            "attention_output": (self.attention_width, self.hidden_width),
            "intermediate": (self.hidden, self.inner_width),
            "output": (self.inner, self.hidden_width),
        }

    def head_slices(self) -> list[tuple[slice, int]]:
        """Where the features of each head are in the checkpoint, and where they begin in memory."""
        if self.head == self.head_width:
            return [(slice(0, self.hidden), 0)]  # all heads at once
        slices = (slice(head * self.head, (head + 1) * self.head) for head in range(self.heads))
        return [(features, number * self.head_width) for number, features in enumerate(slices)]


class Piece(NamedTuple):
    """A part of an (out, in) tensor, and the input and output feature where it begins in the packed matrix."""

    name: str
    rows: slice
    columns: slice
    input: int
    output: int


class PackedLinear(NamedTuple):
    """A linear layer as the kernels read it. `start` is where its panels begin in `PackedWeights.matrices`, in words.

    `bias` is (width,) and `constants` is (panels, constant rows, panel), both float32; the last rows may be an order.
    """

    start: int
    steps: int
    bias: FloatArray
    constants: FloatArray


class PackedNorm(NamedTuple):
    """The weight and the bias of a layer norm, (D,), padded."""

    weight: FloatArray
    bias: FloatArray


class PackedLayer(NamedTuple):
    """An encoder layer: linear layers by the names of `LINEARS`, norms by those of `NORMS`."""

    linears: dict[str, PackedLinear]
    norms: dict[str, PackedNorm]


class PackedWeights:
    """The weights of one encoder as the kernels for a target read them, in a format.

    `matrices` has the words of all linear layers, (words,), and `layers` a PackedLayer for each layer. `words` is the
    word table; the tables of token types and positions are float32, in rows of the hidden width.
    """

    def __init__(self, config: BertConfig, weights: BertWeights, weight_format: WeightFormat, target: Target) -> None:
        self.sizes = Sizes(config.hidden_size, config.intermediate_size, config.num_attention_heads, target.panel)
        self.format = weight_format
        self.target = target
        self.is_ordered = weight_format.orders_features(target)
        self.eps = config.layer_norm_eps
        tensors = weights.embeddings
        self.token_types = self._padded_rows(tensors["embeddings.token_type_embeddings.weight"])
        self.positions = self._padded_rows(tensors["embeddings.position_embeddings.weight"])
        self.embedding_norm = self._norm(tensors, "embeddings.LayerNorm")
        self._words_of_a_layer = sum(
            weight_format.steps(depth) * width for depth, width in self.sizes.matrices.values()
        )
        self.matrices = _zeros(self._words_of_a_layer * len(weights.layers), weight_format.word)
        self.address = self.matrices.ctypes.data
        self.layers = [self._layer(number, layer) for number, layer in enumerate(weights.layers)]
        self._watched: list[WatchedFile] = []

    @property
    def panels_file(self) -> str:
        """The name of the file in which a saved model has these weights packed."""
        return panels_file(self.format, self.sizes.panel, self.is_ordered)

    def load(self, weights: BertWeights, threads: int) -> None:
        """Map what was packed when the model was saved, or pack the weights in so many threads.

        Raises CheckpointError for a file of packed weights that is damaged, or does not belong to the weights.
        """
        folder = weights.folder if self.format.saves_panels else None
        if folder is not None and (folder / self.panels_file).is_file():
            self._map(folder / self.panels_file, weights)
        else:
            self._pack_all(weights, threads)

    def check_unchanged(self) -> None:
        """Raise CheckpointError if weights are mapped, and their files were written to since then."""
        for file in self._watched:
            file.check()

    def saved_parts(self) -> list[NDArray[Any]]:
        """What packing makes: the matrices, and the constants of each linear layer."""
        return [self.matrices, *(linear.constants for linear in self._linears())]

    def _map(self, panels: Path, weights: BertWeights) -> None:
        """Map the panels; the word table stays where it is, in the mapped file of the weights."""
        self._watched = [WatchedFile(path) for path in (panels, find_weights(panels.parent))]
        self.words = self.format.of(weights.embeddings[WORDS])
        sizes = [part.size for part in self.saved_parts()]
        matrices, *constants = map_panels(panels, sizes, weights.fingerprint())
        self.matrices = matrices.view(self.format.word)
        self.address = self.matrices.ctypes.data
        for linear, part in zip(self._linears(), constants, strict=True):
            linear.constants[...] = part.view(np.float32).reshape(linear.constants.shape)
            if self.is_ordered and not are_orders(self._orders(linear), linear.steps):
                raise panels_error(panels, "got input features in no order")

    def _linears(self) -> Iterator[PackedLinear]:
        for layer in self.layers:
            yield from layer.linears.values()

    def _pack_all(self, weights: BertWeights, threads: int) -> None:
        """Copy the word table, and the matrices into their panels."""
        jobs = [partial(self._copy_words, weights.embeddings[WORDS])] + [
            partial(self._pack, packed.linears[name], name, layer)
            for packed, layer in zip(self.layers, weights.layers, strict=True)
            for name in LINEARS
        ]
        pool().call(partial(_run_all, jobs, threads))

    def _copy_words(self, table: Tensor) -> None:
        self.words = _copied(self.format.of(table))
        table.forget_pages()

    def unpacked(self, layer: int, name: str) -> dict[str, Any]:
        """The tensors of one of `LINEARS` by their published names, from the panels; matrices are FormattedMatrix."""
        linear, tensors = self.layers[layer].linears[name], dict[str, Any]()
        depth, width = self.sizes.matrices[name]
        panels = self._panels(name, linear)
        if self.is_ordered:
            panels = natural_order(panels, self._orders(linear))
        constants = linear.constants[:, : self.format.constant_rows(depth)]
        words = panels.transpose(0, 2, 1).reshape(width, linear.steps)
        constants = constants.transpose(1, 0, 2).reshape(-1, width)
        matrix = self.format.from_words(words, constants, depth)
        for tensor in LINEARS[name]:
            outputs, inputs = self._places(name, tensor)
            tensors[f"{tensor}.weight"] = self.format.columns(matrix.rows(outputs), inputs)
            tensors[f"{tensor}.bias"] = linear.bias[outputs]
        return tensors

    def _places(self, name: str, tensor: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The numbers of the output and of the input features of a tensor in its packed matrix."""
        pieces = [piece for piece in self._pieces(name) if piece.name == tensor]
        outputs = [piece.output + np.arange(piece.rows.stop - piece.rows.start) for piece in pieces]
        inputs = [piece.input + np.arange(piece.columns.stop - piece.columns.start) for piece in pieces]
        return np.unique(np.concatenate(outputs)), np.unique(np.concatenate(inputs))

    def _layer(self, number: int, tensors: Mapping[str, Tensor]) -> PackedLayer:
        start, linears = number * self._words_of_a_layer, {}
        for name, (depth, width) in self.sizes.matrices.items():
            steps, rows = self.format.steps(depth), self.format.constant_rows(depth)
            if self.is_ordered:
                rows += order_rows(steps, self.sizes.panel)
            bias = np.zeros(width, np.float32)
            for piece in self._pieces(name):
                values = tensors[f"{piece.name}.bias"].to_float32()[piece.rows]
                bias[piece.output : piece.output + len(values)] = values
            shape = (width // self.sizes.panel, rows, self.sizes.panel)
            constants = _zeros(math.prod(shape), np.dtype(np.float32)).reshape(shape)
            linears[name] = PackedLinear(start, steps, bias, constants)
            start += steps * width
        return PackedLayer(linears, {name: self._norm(tensors, tensor) for name, tensor in NORMS.items()})

    def _pieces(self, name: str) -> Iterator[Piece]:
        """The parts of the tensors of a linear layer, and where they go."""
        hidden, inner = slice(0, self.sizes.hidden), slice(0, self.sizes.inner)
        if name == "qkv":
            for number, tensor in enumerate(LINEARS[name]):
                first = number * self.sizes.attention_width
                for rows, start in self.sizes.head_slices():
                    yield Piece(tensor, rows, hidden, 0, first + start)
        elif name == "attention_output":
            for columns, start in self.sizes.head_slices():
                yield Piece(LINEARS[name][0], hidden, columns, start, 0)
        elif name == "intermediate":
            yield Piece(LINEARS[name][0], inner, hidden, 0, 0)
        else:
            yield Piece(LINEARS[name][0], hidden, inner, 0, 0)

    def _pack(self, linear: PackedLinear, name: str, tensors: Mapping[str, Tensor]) -> None:
        panels = self._panels(name, linear)
        natural = np.zeros(panels.shape, panels.dtype) if self.is_ordered else panels
        for tensor in LINEARS[name]:
            source = tensors[f"{tensor}.weight"]
            matrix = _aligned(self.format.of(source))
            constants = self.format.constants(matrix.parts)
            for piece in (piece for piece in self._pieces(name) if piece.name == tensor):
                self._pack_piece(natural, piece, self.format.words(matrix.parts, piece.columns)[piece.rows])
                outputs = piece.output + np.arange(piece.rows.stop - piece.rows.start)
                places = outputs // self.sizes.panel, slice(len(constants)), outputs % self.sizes.panel
                linear.constants[places] = constants[:, piece.rows].T
            source.forget_pages()
        if self.is_ordered:
            order = function("order_features", self.target, arguments=5)
            order_panels(order, natural, panels, self._orders(linear))

    def _pack_piece(self, panels: NDArray[Any], piece: Piece, words: NDArray[Any]) -> None:
        pack = function(f"pack_{words.itemsize}_bytes", self.target, arguments=3)
        _, steps, panel = panels.shape
        target = panels.reshape(-1)[piece.output * steps + piece.input // self.format.values_of_word * panel :]
        layout = (*words.shape, words.strides[0] // words.itemsize, steps * panel, panel)
        record = np.array([layout], LAYOUT)
        pack(words.ctypes.data, target.ctypes.data, record.ctypes.data)

    def _panels(self, name: str, linear: PackedLinear) -> NDArray[Any]:
        """The words of a linear layer: (panels, steps, panel)."""
        _, width = self.sizes.matrices[name]
        words = self.matrices[linear.start : linear.start + linear.steps * width]
        return words.reshape(width // self.sizes.panel, linear.steps, self.sizes.panel)

    def _orders(self, linear: PackedLinear) -> FloatArray:
        """The orders of a linear layer, behind the constants of the format: (panels, order rows, panel)."""
        return linear.constants[:, -order_rows(linear.steps, self.sizes.panel) :]

    def _norm(self, tensors: Mapping[str, Tensor], name: str) -> PackedNorm:
        weight, bias = (tensors[f"{name}.{part}"].to_float32()[None] for part in ("weight", "bias"))
        return PackedNorm(self._padded(weight)[0], self._padded(bias)[0])

    def _padded_rows(self, table: Tensor) -> FloatArray:
        return self._padded(table.to_float32())

    def _padded(self, rows: FloatArray) -> FloatArray:
        """(n, D) -> (n, hidden width), a copy."""
        wide = np.zeros((len(rows), self.sizes.hidden_width), np.float32)
        wide[:, : rows.shape[1]] = rows
        return wide


def _zeros(size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros that begin with a cache line: else each vector of a panel would lie in two."""
    memory = np.zeros(size * dtype.itemsize + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size * dtype.itemsize].view(dtype)


def _aligned(matrix: FormattedMatrix) -> FormattedMatrix:
    """The matrix in rows without holes, at addresses that suit its elements."""
    return _mapped(matrix, lambda data: np.require(data, requirements=["C", "A"]))


def _copied(matrix: FormattedMatrix) -> FormattedMatrix:
    """The matrix in memory of its own: the file that it was read from may change."""
    return _mapped(matrix, np.array)


def _mapped(matrix: FormattedMatrix, change: Callable[[Any], Any]) -> FormattedMatrix:
    parts = {suffix: StoredTensor(part.dtype, change(part.data)) for suffix, part in matrix.parts.items()}
    return FormattedMatrix(matrix.format, parts)


def _run_all(jobs: Sequence[Callable[[], None]], threads: int) -> None:
    with pool().claim(threads) as count:
        take_turns(jobs, lambda job: job(), count)
