"""BertModel: token ids in, hidden states out, in the manner of transformers."""

from __future__ import annotations

import os
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gte_np.architectures.config import BertConfig, read_config
from gte_np.architectures.named_weights import NamedWeights
from gte_np.architectures.weights import BertWeights, read_weights, stored_precision, to_float32
from gte_np.arguments import check_choice, check_flag, check_integer, check_integers
from gte_np.backend import backend_of, check_backend, make_encoder
from gte_np.checkpoint.source import LoadedFiles, Source
from gte_np.checkpoint.weight_files import weight_names
from gte_np.encoder_interface import EncoderInput, EncoderOutput, FloatArray, check_finite
from gte_np.errors import InputError
from gte_np.formats import WeightFormat, choose_format, dtypes
from gte_np.kernels.runtime.kernel_encoder import KernelEncoder
from gte_np.kernels.runtime.saved_panels import PANELS_FILES, write_panels
from gte_np.loaded import Loaded
from gte_np.reference.pooler import pool_first_token
from gte_np.token_batch import TokenBatch


@dataclass(frozen=True)
class BertOutput:
    """What BertModel gives for (B, T) token ids; padded positions are zeros in all arrays.

    `last_hidden_state` is (B, T, D) float32. `pooler_output` is (B, D), or None where the checkpoint has no pooler.
    On request, `hidden_states` holds L + 1 arrays (B, T, D), the embeddings first, and `attentions` holds L arrays
    (B, H, T, T).
    """

    last_hidden_state: FloatArray
    pooler_output: FloatArray | None
    hidden_states: tuple[FloatArray, ...] | None = None
    attentions: tuple[FloatArray, ...] | None = None

    def __getitem__(self, key: int | str) -> Any:
        """A field by its name, or by its number among those that are there, as in transformers."""
        if isinstance(key, str):
            return vars(self)[key]
        return [value for value in vars(self).values() if value is not None][key]


class BertModel(Loaded):
    """A BERT encoder with the weights of one checkpoint.

    `config` has its sizes. `backend` is "numpy", "numba", or "auto" for the best one there is. `threads` is how many
    threads one call may use: by default as many as this process may use processors. `dtype` is that of the arithmetic
    in linear layers, "float32", "bfloat16" or "int8"; by default that in which the checkpoint was saved by
    `EmbeddingModel.save_pretrained`, or float32. Weights are rounded once, at load.

    Raises CheckpointError for weights that are not those of the config.
    """

    FIXED = ("config", "dtype", "format")

    def __init__(
        self,
        config: BertConfig,
        weights: BertWeights,
        *,
        backend: str = "auto",
        dtype: str | None = None,
        threads: int | None = None,
    ) -> None:
        check_options(backend, dtype, threads)
        weights.check(config)
        self.config = config
        self.format = _choose_format(dtype, config, weights)
        self.dtype = self.format.dtype
        self._options = {"backend": backend, "dtype": self.dtype, "threads": threads}
        self._encoder = make_encoder(backend, config, weights, self.format, threads)
        self._pooler = None if weights.pooler is None else to_float32(weights.pooler)

    @property
    def has_pooler(self) -> bool:
        """Whether the checkpoint has a pooler."""
        return self._pooler is not None

    @property
    def weights(self) -> NamedWeights:
        """The weights by their published names, read from the model's files when they are asked for.

        Raises InputError for a model that was not loaded from files.
        """
        if self._files is None:
            raise InputError(
                "expected a model that was loaded from files, since its weights are read from them, got one that was "
                "made of BertWeights: call to_float32 on their tensors."
            )
        return NamedWeights(self._files, self.config, self.has_pooler)

    @property
    def arithmetic(self) -> str:
        """What the bits of a vector depend on, beside the model and the text: see ARCHITECTURE.md."""
        if not isinstance(self._encoder, KernelEncoder):
            return "numpy"  # and on the batch: its matrix products are those of the system's BLAS
        weights = self._encoder.weights
        return weights.target.arithmetic(weights.format.tile_product)

    @property
    def merges(self) -> tuple[int, int] | None:
        """How many tokens of several calls are computed at once, and how many times that; None if bits depend on it.

        With so many tokens all threads are busy, and with so many batches all processors.
        """
        if not isinstance(self._encoder, KernelEncoder):
            return None
        return self._encoder.tokens_at_once, self._encoder.calls_at_once

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        backend: str = "auto",
        dtype: str | None = None,
        threads: int | None = None,
    ) -> BertModel:
        """Load the encoder of a folder, or of a repository on the hub.

        Raises ModelNotFoundError if it is not there, CheckpointError if its files are damaged, and
        UnsupportedModelError for another architecture.
        """
        check_options(backend, dtype, threads)  # before a download
        source = Source.find(
            name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
        )
        return cls.from_source(source, backend=backend, dtype=dtype, threads=threads)

    @classmethod
    def from_folder(
        cls,
        folder: str | os.PathLike[str],
        *,
        backend: str = "auto",
        dtype: str | None = None,
        threads: int | None = None,
    ) -> BertModel:
        """Load config.json and the weights of a local folder; errors as in `from_pretrained`."""
        return cls.from_source(Source.of_folder(folder), backend=backend, dtype=dtype, threads=threads)

    @classmethod
    def from_source(cls, source: Source, **options: Any) -> BertModel:
        """Load config.json and the weights of a source; options and errors are those of `from_folder`."""
        panels = sorted(path.name for path in source.folder.glob(PANELS_FILES))
        files = LoadedFiles(source, ["config.json", *weight_names(source.folder), *panels])
        config = read_config(source.folder)
        model = cls(config, read_weights(source.folder, config), **options)
        model._files = files
        return model

    def with_threads(self, threads: int) -> BertModel:
        """A copy, which shares the weights, whose calls use at most so many threads; so do its pickles.

        The NumPy backend has the threads of its BLAS, whatever is asked for.
        """
        check_integer("threads", threads, least=1)
        twin = copy(self)
        if isinstance(self._encoder, KernelEncoder):
            twin._encoder = self._encoder.with_threads(threads)
            twin._options = self._options | {"threads": threads}
        return twin

    def save_panels(self, folder: Path) -> None:
        """Write the weights as the kernels pack them beside the model that was saved in a folder, to be mapped there.

        Nothing is written for dtype "float32", nor by the NumPy backend, which packs nothing.
        """
        if self.format.saves_panels and isinstance(self._encoder, KernelEncoder):
            packed = self._encoder.weights
            saved = read_weights(folder, self.config)
            write_panels(folder / packed.panels_file, packed.saved_parts(), saved.fingerprint())

    def _facts(self) -> dict[str, object]:
        sizes = {"num_hidden_layers": self.config.num_hidden_layers, "hidden_size": self.config.hidden_size}
        return sizes | {"dtype": self.dtype, "backend": backend_of(self._encoder)}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        folder = state["_files"].source.folder
        config = read_config(folder)
        BertModel.__init__(self, config, read_weights(folder, config), **state["_options"])
        vars(self).update(state)

    def __call__(
        self,
        input_ids: ArrayLike | TokenBatch,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        *,
        output_hidden_states: bool | None = False,
        output_attentions: bool | None = False,
    ) -> BertOutput:
        """Run the encoder on padded token ids, as transformers' BertModel does, or on a TokenBatch.

        A TokenBatch, such as `Tokenizer.tokenize` gives, comes alone. Its output is padded too: a row for each text,
        from column 0 on, and its `attention_mask` tells the tokens of the output from padding.

        Otherwise all three arrays are (B, T) integers; `attention_mask` is 1 for a token and 0 for padding (all 1 by
        default), and `token_type_ids` are 0 by default. The texts are packed at once, so padding costs nothing, and
        what it would compute is not computed: padded positions of the output are zeros. The pooler reads column 0.

        Raises TypeError for arrays of anything but integers, InputError for a wrong shape, for ids outside of the
        tables, for more tokens than the model has positions, and for a mask or types beside a TokenBatch.
        """
        check_flag("output_hidden_states", output_hidden_states, optional=True)
        check_flag("output_attentions", output_attentions, optional=True)
        batch, kept = _pack(input_ids, attention_mask, token_type_ids)  # (B, T) -> N tokens
        output = self.encode_batch(batch, keep_layers=bool(output_hidden_states or output_attentions))
        states = output.hidden_states or []
        last = _unpack(output.last_hidden_state, kept)
        return BertOutput(
            last_hidden_state=last,
            pooler_output=None if self._pooler is None else pool_first_token(last, self._pooler),
            hidden_states=tuple(_unpack(hidden, kept) for hidden in states) if output_hidden_states else None,
            attentions=self._padded_attentions(states, batch, kept) if output_attentions else None,
        )

    def encode_batch(
        self, batch: TokenBatch, *, rows: ArrayLike | None = None, keep_layers: bool = False
    ) -> EncoderOutput:
        """Run the encoder on packed texts: N tokens -> (N, D). With `keep_layers`, also of every layer.

        With `rows`, numbers of tokens in ascending order, only these are computed to the end: -> (R, D). Of `rows`
        and `keep_layers` only one can be given.

        Raises TypeError for anything but a TokenBatch, and InputError for ids, token types, positions and rows that
        the model or the batch does not have; CheckpointError if the weights, although finite, give numbers that are
        not.
        """
        check_flag("keep_layers", keep_layers)
        if rows is not None and keep_layers:
            raise InputError(
                "expected either rows or keep_layers, got both: hidden states of layers are of all rows."
            )
        inputs = EncoderInput(batch, self.config, rows)
        with np.errstate(all="ignore"):  # what overflows is seen below
            output = self._encoder(inputs, keep_layers=keep_layers)
        check_finite(output.last_hidden_state)
        return output

    def attention(self, layer: int, hidden: FloatArray, batch: TokenBatch) -> list[FloatArray]:
        """The attention probabilities of a layer, from 0 on: for each text of the batch one array (H, T, T).

        `hidden` are the hidden states before that layer, (N, D), which `encode_batch` gives with `keep_layers`.

        Raises TypeError for anything but an int, a TokenBatch and a float32 array, and InputError for a layer that is
        not there, and for hidden states of another shape.
        """
        check_integer("layer", layer, 0, self.config.num_hidden_layers - 1)
        EncoderInput(batch, self.config)
        _check_states(hidden, (len(batch.input_ids), self.config.hidden_size))
        with np.errstate(all="ignore"):  # the states that came out were finite
            return self._encoder.attention(layer, hidden, batch)

    def _padded_attentions(
        self, states: list[FloatArray], batch: TokenBatch, kept: NDArray[np.bool_]
    ) -> tuple[FloatArray, ...]:
        heads = self.config.num_attention_heads
        layers = (self.attention(layer, hidden, batch) for layer, hidden in enumerate(states[:-1]))
        return tuple(_unpack_attention(texts, kept, heads) for texts in layers)


def check_options(backend: str, dtype: str | None, threads: int | None) -> None:
    """Raise InputError, TypeError or MissingDependencyError for options that no model can have."""
    check_backend(backend)
    if dtype is not None:
        check_choice("dtype", dtype, dtypes())
    if threads is not None:
        check_integer("threads", threads, least=1)


def _choose_format(dtype: str | None, config: BertConfig, weights: BertWeights) -> WeightFormat:
    saved = weights.format
    if saved is not None and dtype not in (None, saved.dtype):
        raise InputError(f"expected dtype {saved.dtype} or None for weights that were saved in it, got {dtype}.")
    if saved is None:
        saved = choose_format(dtype or config.dtype, stored_precision(weights))
    saved.check_sizes(config.hidden_size, config.intermediate_size, config.num_attention_heads)
    return saved


def _pack(
    input_ids: ArrayLike | TokenBatch, attention_mask: ArrayLike | None, token_type_ids: ArrayLike | None
) -> tuple[TokenBatch, NDArray[np.bool_]]:
    """The packed texts, and where in (B, T) their tokens are."""
    if not isinstance(input_ids, TokenBatch):
        return _pack_padded(input_ids, attention_mask, token_type_ids)
    if attention_mask is not None or token_type_ids is not None:
        raise InputError("expected a TokenBatch alone, got attention_mask or token_type_ids too: it has its own.")
    return input_ids, input_ids.attention_mask == 1


def _pack_padded(
    input_ids: ArrayLike, attention_mask: ArrayLike | None, token_type_ids: ArrayLike | None
) -> tuple[TokenBatch, NDArray[np.bool_]]:
    ids = _padded_integers(input_ids, "input_ids")
    mask = np.ones_like(ids) if attention_mask is None else _padded_integers(attention_mask, "attention_mask")
    types = np.zeros_like(ids) if token_type_ids is None else _padded_integers(token_type_ids, "token_type_ids")
    if mask.shape != ids.shape or types.shape != ids.shape:
        raise InputError(
            f"expected attention_mask and token_type_ids of the shape of input_ids, {ids.shape}, got "
            f"{mask.shape} and {types.shape}."
        )
    if not np.isin(mask, (0, 1)).all():
        raise InputError("expected attention_mask to hold 1 for a token and 0 for padding, got other values.")
    kept = mask == 1  # (B, T)
    return TokenBatch.from_padded(ids, kept, types), kept


def _padded_integers(values: ArrayLike, name: str) -> NDArray[np.integer]:
    array = check_integers(name, values)
    if array.ndim != 2:
        raise InputError(f"expected {name} to be (B, T), got shape {array.shape}.")
    return array


def _unpack(hidden: FloatArray, kept: NDArray[np.bool_]) -> FloatArray:
    padded = np.zeros((*kept.shape, hidden.shape[-1]), np.float32)
    padded[kept] = hidden  # (N, D) -> (B, T, D)
    return padded


def _check_states(hidden: FloatArray, shape: tuple[int, int]) -> None:
    if not isinstance(hidden, np.ndarray) or hidden.dtype != np.float32:
        got = hidden.dtype if isinstance(hidden, np.ndarray) else type(hidden).__name__
        raise TypeError(f"expected hidden states as a float32 array, got {got}.")
    if hidden.shape != shape:
        raise InputError(f"expected hidden states of the tokens of this batch, {shape}, got {hidden.shape}.")


def _unpack_attention(texts: list[FloatArray], kept: NDArray[np.bool_], heads: int) -> FloatArray:
    padded = np.zeros((len(kept), heads, kept.shape[1], kept.shape[1]), np.float32)
    for rows, columns, probabilities in zip(padded, kept, texts, strict=True):
        rows[:, np.outer(columns, columns)] = probabilities.reshape(heads, -1)  # (H, t, t) -> (H, T, T)
    return padded
