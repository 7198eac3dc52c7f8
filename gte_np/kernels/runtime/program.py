"""The program of an encoder: its layers, in the order of the reference, as steps with addresses.

It is written once for the weights and the buffers of a workspace; `gte_np.kernels.operations.program` runs it. The
encoder's dataflow, (rows, features), with the buffers that hold it:

    hidden -> qkv -> context -> attended -> hidden -> inner -> attended -> hidden
           LINEAR  ATTENTION  LINEAR     ADD_NORM  LINEAR    LINEAR     ADD_NORM

If only some tokens' last hidden states are wanted, the last layer computes keys and values of all tokens, and all
else for the wanted ones alone, in `wanted_hidden`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.kernels.operations.records import STEP, Operation
from gte_np.kernels.runtime.packed_weights import PackedLayer, PackedLinear, PackedNorm, PackedWeights


class Rows(NamedTuple):
    """A buffer of float32 rows: its address, and how far rows lie apart."""

    address: int
    stride: int


class Words(NamedTuple):
    """A buffer of what linear layers read of rows, in words, and of the factors of each row."""

    address: int
    stride: int
    factors: int


class Buffers(NamedTuple):
    """The buffers of a workspace. Words are None for formats that read float32 rows as they are.

    `inner` may lie where `qkv` and `context` do: a layer needs them no more when it writes there.
    """

    hidden: Rows  # (N, D)
    wanted_hidden: Rows  # (wanted, D)
    attended: Rows  # (N, D)
    qkv: Rows  # (N, 3 heads head_width): queries, keys, values
    context: Rows  # (N, heads head_width)
    inner: Rows  # (N, F)
    hidden_words: Words | None  # (N, D)
    inner_words: Words | None  # (N, the widest of D, F and heads head_width)


def write_program(weights: PackedWeights, buffers: Buffers, *, wanted: bool, keep_layers: bool) -> NDArray[Any]:
    """The steps of an encoder, records of STEP: for wanted rows or for all, with all layers' states or the last."""
    writer = _Writer(weights, buffers)
    writer.embed()
    for number, layer in enumerate(weights.layers):
        if keep_layers:
            writer.keep(buffers.hidden, number)
        is_last = number == len(weights.layers) - 1
        writer.layer(layer, wanted=wanted and is_last)
    if keep_layers:
        writer.keep(buffers.hidden, len(weights.layers))
    writer.keep(buffers.wanted_hidden if wanted else buffers.hidden, -1, wanted=wanted)
    program = np.zeros(len(writer.steps), STEP)
    for record, fields in zip(program, writer.steps, strict=True):
        for name, value in fields.items():
            record[name] = value
    return program


class _Writer:
    """Appends steps to a list. `wanted` says whether a step's rows are those of the wanted tokens."""

    def __init__(self, weights: PackedWeights, buffers: Buffers) -> None:
        self.weights = weights
        self.sizes = weights.sizes
        self.buffers = buffers
        self.steps: list[Mapping[str, Any]] = []

    def layer(self, layer: PackedLayer, wanted: bool) -> None:
        """An encoder layer: attention, then feed-forward, each added to what came in and normalised."""
        to = self.buffers
        states = to.wanted_hidden if wanted else to.hidden
        self.queries_keys_values(layer.linears["qkv"], wanted)
        self.attention(wanted)
        self.quantize(to.context, self.sizes.attention_width, wanted)
        self.linear(layer.linears["attention_output"], to.context, to.inner_words, to.attended, wanted)
        self.add_norm(layer.norms["attention_norm"], states, wanted)
        self.linear(layer.linears["intermediate"], states, to.hidden_words, to.inner, wanted, gelu=True)
        self.quantize(to.inner, self.sizes.inner, wanted)
        self.linear(layer.linears["output"], to.inner, to.inner_words, to.attended, wanted)
        self.add_norm(layer.norms["output_norm"], states, wanted)

    def queries_keys_values(self, qkv: PackedLinear, wanted: bool) -> None:
        """(N, D) -> (N, 3 D); of wanted rows (wanted, D) -> (wanted, D) and (N, D) -> (N, 2 D)."""
        to, width = self.buffers, self.sizes.attention_width
        if not wanted:
            self.linear(qkv, to.hidden, to.hidden_words, to.qkv, wanted)
            return
        query, key_value = _split(qkv, width // self.sizes.panel, self.sizes.panel)
        self.gather()
        self.linear(query, to.wanted_hidden, to.inner_words, to.qkv, wanted)
        columns = Rows(to.qkv.address + width * 4, to.qkv.stride)
        self.linear(key_value, to.hidden, to.hidden_words, columns, wanted=False)

    def embed(self) -> None:
        """Token types and positions are added to the word embeddings in `hidden`."""
        weights, hidden = self.weights, self.buffers.hidden
        tables = {
            "token_type_table": weights.token_types.ctypes.data,
            "position_table": weights.positions.ctypes.data,
            "table_stride": weights.sizes.hidden_width,
        }
        norm = self._norm(weights.embedding_norm)
        self._append(Operation.EMBED, False, _out(hidden), _words(self.buffers.hidden_words), norm, tables)

    def linear(
        self, linear: PackedLinear, x: Rows, words: Words | None, out: Rows, wanted: bool, gelu: bool = False
    ) -> None:
        """(rows, in) -> (rows, out); the format reads `words` instead of x if it quantises rows."""
        source = Words(x.address, x.stride, 0) if words is None else words
        fields = {
            "x": source.address,
            "x_stride": source.stride,
            "x_factors": source.factors,
            "weight": linear.start,
            "bias": linear.bias.ctypes.data,
            "constants": linear.constants.ctypes.data,
            "constant_rows": linear.constants.shape[1],
            "depth": linear.steps,
            "panels": linear.constants.shape[0],
            "gelu": gelu,
        }
        self._append(Operation.LINEAR, wanted, fields, _out(out))

    def attention(self, wanted: bool) -> None:
        """(N, 3 D) -> (rows, D)."""
        sizes = self.sizes
        fields = {"heads": sizes.heads, "head_size": sizes.head, "head_width": sizes.head_width}
        self._append(Operation.ATTENTION, wanted, _x(self.buffers.qkv), _out(self.buffers.context), fields)

    def quantize(self, x: Rows, width: int, wanted: bool) -> None:
        """What linear layers read of x, unless that is x."""
        if self.buffers.inner_words is not None:
            self._append(Operation.QUANTIZE, wanted, _x(x), _words(self.buffers.inner_words), {"width": width})

    def add_norm(self, norm: PackedNorm, states: Rows, wanted: bool) -> None:
        """states = layer_norm(states + attended)."""
        words = _words(self.buffers.hidden_words)
        self._append(Operation.ADD_NORM, wanted, _x(self.buffers.attended), _out(states), words, self._norm(norm))

    def gather(self) -> None:
        """(N, D) -> (wanted, D)."""
        to, width = self.buffers, {"width": self.sizes.hidden}
        self._append(Operation.GATHER, True, _x(to.hidden), _out(to.wanted_hidden), _words(to.inner_words), width)

    def keep(self, states: Rows, layer: int, wanted: bool = False) -> None:
        """Copy hidden states to where the caller gets them."""
        self._append(Operation.KEEP, wanted, _x(states), {"layer": layer})

    def _norm(self, norm: PackedNorm) -> dict[str, Any]:
        return {
            "weight": norm.weight.ctypes.data,
            "bias": norm.bias.ctypes.data,
            "width": self.sizes.hidden,
            "eps": self.weights.eps,
        }

    def _append(self, operation: Operation, wanted: bool, *fields: Mapping[str, Any]) -> None:
        step: dict[str, Any] = {"operation": operation, "wanted": wanted}
        for some in fields:
            step |= some
        self.steps.append(step)


def _split(linear: PackedLinear, panels: int, width: int) -> tuple[PackedLinear, PackedLinear]:
    """The first panels of a linear layer, of a width, and the rest."""
    features = panels * width
    first = PackedLinear(linear.start, linear.steps, linear.bias[:features], linear.constants[:panels])
    start = linear.start + features * linear.steps
    return first, PackedLinear(start, linear.steps, linear.bias[features:], linear.constants[panels:])


def _x(rows: Rows) -> dict[str, int]:
    return {"x": rows.address, "x_stride": rows.stride}


def _out(rows: Rows) -> dict[str, int]:
    return {"out": rows.address, "out_stride": rows.stride}


def _words(words: Words | None) -> dict[str, int]:
    if words is None:
        return {}
    return {"words": words.address, "words_stride": words.stride, "factors": words.factors}
