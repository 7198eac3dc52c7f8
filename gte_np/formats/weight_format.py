"""What a weight format is: everything that differs between float32, float16, bfloat16 and int8 weights.

A format says how a matrix is stored and decoded, how the reference multiplies with it, and how the kernels' matrix
product does one step with it. `gte_np.formats` registers formats; nobody else asks which one it is.

Kernels read matrices in *words*: the smallest piece that one step of a product takes for one output feature. A word
holds one value of 16 or 32 bits, or several neighbouring input features in 32 bits:

    int8, 4 values a word              step 0           step 1
    W[o] = 1 -2 3 4   5 6 7 0   ->     [1 -2 3 4]       [5 6 7 0]

The methods of `ProductStep` emit code: `emit` is a `gte_np.kernels.language.emitter.Emitter`, and what they return
are LLVM values. So a format needs neither Numba nor LLVM until a kernel is compiled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.errors import InputError
from gte_np.formats.stored_tensor import NUMPY_DTYPES, StoredTensor

FloatArray = NDArray[np.float32]
Parts = Mapping[str, StoredTensor]
Value = Any  # of LLVM: a vector of 16 lanes, or several of them

ELEMENTS_AT_ONCE = 1 << 18  # of a matrix that is encoded: they stay in a cache


class FormattedMatrix(NamedTuple):
    """An (out, in) matrix in a format.

    `parts` are its arrays, keyed by what their names add to the tensor's name in a file: "" for the main one.
    """

    format: WeightFormat
    parts: dict[str, StoredTensor]

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in)."""
        return self.format.shape_of(self.parts)

    def to_float32(self) -> FloatArray:
        """The values, (out, in)."""
        return self.format.decode(self.parts)

    def rows(self, rows: Any) -> FormattedMatrix:
        """Some rows, by a slice or by their numbers."""
        return FormattedMatrix(self.format, {suffix: part.rows(rows) for suffix, part in self.parts.items()})

    def forget_pages(self) -> None:
        """Give the memory of a mapped file back, see `StoredTensor.forget_pages`."""
        for part in self.parts.values():
            part.forget_pages()


class WeightFormat(ABC):
    """How the matrices of linear layers, and the word table, are stored and multiplied.

    `name` is unique. `dtype` is what a user asks for: several formats of one dtype differ in `stored`, the precision
    of the checkpoint that they take as it is. `file` is the name of a weights file that holds the format.
    `activations` names what the kernels turn the rows of x into, see `gte_np.kernels.operations.activations`, and
    `word` is the NumPy dtype of a word of packed weights. `values_of_word` is how many values it holds, `is_far` says
    whether words come from memory and are to be asked for ahead, and `most_features` is the largest number of input
    features. `tile_product` is the name of its product among those of a matrix unit, see
    `gte_np.kernels.targets.matrix_units`, if they have it. `saves_panels` is whether a saved model has its packed
    weights, too, in words of 32 bits: see `gte_np.kernels.runtime.saved_panels`.
    """

    name: str
    dtype: str
    stored: str
    file: str = "model.safetensors"
    activations: str = "float32"
    word: np.dtype[Any]
    values_of_word: int = 1
    is_far: bool = True
    most_features: int = 2**31 - 1
    tile_product: str | None = None
    saves_panels: bool = False

    # --- as stored ------------------------------------------------------------------------------------------------

    def of(self, matrix: StoredTensor | FormattedMatrix) -> FormattedMatrix:
        """A matrix of a checkpoint in this format: as it is if it is so already, else encoded."""
        if isinstance(matrix, FormattedMatrix):
            return matrix if matrix.format is self else self.encode(StoredTensor("float32", matrix.to_float32()))
        is_so = self.part_dtypes == {"": matrix.dtype}
        return FormattedMatrix(self, {"": matrix}) if is_so else self.encode(matrix)

    def check_sizes(self, hidden_size: int, intermediate_size: int, heads: int) -> None:
        """Raise InputError for an encoder of sizes that the format cannot have."""
        if max(hidden_size, intermediate_size) > self.most_features:
            raise InputError(
                f"expected at most {self.most_features} features in a layer for {self.dtype}, got "
                f"{max(hidden_size, intermediate_size)}: use another dtype."
            )

    def encode(self, tensor: StoredTensor) -> FormattedMatrix:
        """Encode an (out, in) float tensor, a few rows at a time."""
        step = max(1, ELEMENTS_AT_ONCE // tensor.shape[1])
        blocks = [
            self.encode_rows(tensor.rows(slice(start, start + step)).to_float32())
            for start in range(0, tensor.shape[0], step)
        ]
        dtypes = self.part_dtypes
        joined = {suffix: np.concatenate([block[suffix] for block in blocks]) for suffix in dtypes}
        return FormattedMatrix(self, {suffix: StoredTensor(dtypes[suffix], joined[suffix]) for suffix in dtypes})

    @property
    def part_dtypes(self) -> dict[str, str]:
        """Suffix -> dtype, a key of `stored_tensor.NUMPY_DTYPES`, of the arrays of a matrix."""
        return {"": self.stored}

    def part_shapes(self, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        """Suffix -> shape of the arrays of an (outputs, inputs) matrix."""
        return {"": (outputs, inputs)}

    def shape_of(self, parts: Parts) -> tuple[int, ...]:
        """(out, in), from the arrays."""
        return parts[""].shape

    @abstractmethod
    def encode_rows(self, values: FloatArray) -> dict[str, NDArray[Any]]:
        """(out, in) float32 values -> suffix -> array. Each row is encoded by itself."""

    def decode(self, parts: Parts) -> FloatArray:
        """The arrays -> (out, in) float32 values."""
        return parts[""].to_float32()

    def gather(self, parts: Parts, rows: NDArray[np.integer], out: FloatArray) -> None:
        """Write the values of some rows, by their numbers, to `out`, (rows, in)."""
        out[:] = self.decode({suffix: part.rows(rows) for suffix, part in parts.items()})

    # --- in the reference -----------------------------------------------------------------------------------------

    @abstractmethod
    def multiplier(self, matrix: FormattedMatrix) -> Callable[[FloatArray], FloatArray]:
        """The function x -> x W^T, (N, in) -> (N, out), as the kernels compute it but for rounding."""

    # --- in the kernels -------------------------------------------------------------------------------------------

    def steps(self, features: int) -> int:
        """How many steps, and so words, a product of this many input features has; the last words may be zeros."""
        return -(-features // self.values_of_word)

    def words(self, parts: Parts, columns: slice) -> NDArray[Any]:
        """The input features `columns` of a matrix as words, (out, words), the last ones filled up with zeros."""
        data = parts[""].data[:, columns]
        padding = -data.shape[1] % self.values_of_word
        padded = np.pad(data, ((0, 0), (0, padding))) if padding else data
        # Rows without holes; a bfloat16 or int8 value is not alone in its word.
        return np.ascontiguousarray(padded).view(self.word) if self.values_of_word > 1 else padded

    def constant_rows(self, features: int) -> int:
        """How many rows of constants a matrix of so many input features has."""
        return 0

    def constants(self, parts: Parts) -> FloatArray:
        """The float32 values that belong to each output feature: (constant rows, out)."""
        return np.empty((0, self.shape_of(parts)[0]), np.float32)

    def columns(self, matrix: FormattedMatrix, columns: NDArray[np.intp]) -> FormattedMatrix:
        """Some input features of a matrix, by their numbers."""
        main = matrix.parts[""]
        return FormattedMatrix(self, matrix.parts | {"": StoredTensor(main.dtype, main.data[:, columns])})

    def from_words(self, words: NDArray[Any], constants: FloatArray, features: int) -> FormattedMatrix:
        """The inverse of `words` and `constants`: (out, steps), (constant rows, out) -> an (out, features) matrix."""
        values = np.ascontiguousarray(words).view(NUMPY_DTYPES[self.stored])[:, :features]
        return FormattedMatrix(self, {"": StoredTensor(self.stored, values)})

    def widened(self, target: Any) -> WeightFormat | None:
        """The format to which a panel is widened once for several tiles; None where that is not worth it."""
        return None

    def tile_rows(self, target: Any) -> int:
        """The most rows of a tile."""
        return int(target.tile_rows)

    def orders_features(self, target: Any) -> bool:
        """Whether each panel has an order of its input features: see `gte_np.kernels.operations.feature_pairs`."""
        return False

    @abstractmethod
    def step(self, target: Any) -> ProductStep:
        """The step of a product on a `gte_np.kernels.targets.Target`."""

    def pair_step(self, target: Any) -> ProductStep | None:
        """The step of a product in pairs of rows, see `gte_np.kernels.operations.row_pairs`, if a target has one."""
        return None


class ProductStep(ABC):
    """One step of a matrix product: a word of each row of x meets a word of each output feature of a panel.

    A panel is as wide as the target's tile, a few vectors of 16 output features. `x_words` is how many words of x one
    step takes.
    """

    x_words: int = 1

    def columns(self, emit: Any, panel: Any) -> list[Any]:
        """What a tile loads once for each vector of output features: by default their biases."""
        return [panel.bias_at(emit, first) for first in panel.vectors]

    def start(self, emit: Any, columns: list[Any]) -> list[Value]:
        """The accumulators of a row before the first step."""
        return columns

    @abstractmethod
    def load_weights(self, emit: Any, panel: Any, step: Value, first: int) -> Value:
        """The words of 16 output features, from number `first` of the panel on, ready to be multiplied."""

    def widened(self, emit: Any, weights: Value) -> list[Value]:
        """Loaded weights in the words of the format to which they are widened, each as floats."""
        return [weights]

    @abstractmethod
    def load_x(self, emit: Any, pointer: Value) -> Value:
        """The words of x at a pointer to float32, in all lanes."""

    @abstractmethod
    def multiply_add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """accumulator + x * weights."""

    def finish(self, emit: Any, accumulators: list[Value], columns: list[Any], panel: Any, factors: Value) -> Any:
        """The epilogue: the accumulators of a row -> its float32 results. `factors` points to those of the row."""
        return accumulators


class DotProductStep(ProductStep):
    """A step on words of several values: a target's `DotProduct` of a word of x with one of each output feature."""

    def __init__(self, dot_product: Any) -> None:
        self.dot_product = dot_product

    def load_weights(self, emit: Any, panel: Any, step: Value, first: int) -> Value:
        """As the dot product wants them."""
        return self.dot_product.weights(emit, emit.load_words(panel.weight_at(emit, step, first)))

    def load_x(self, emit: Any, pointer: Value) -> Value:
        """Broadcast, as the dot product wants it."""
        return self.dot_product.x(emit, emit.broadcast(emit.load_word(pointer)))

    def multiply_add(self, emit: Any, x: Value, weights: Value, accumulator: Value) -> Value:
        """By the dot product."""
        return self.dot_product.add(emit, x, weights, accumulator)
