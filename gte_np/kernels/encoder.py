"""The encoder in Numba kernels: the `Encoder` that `backend="numba"` gives."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_np.checkpoint.config import BertConfig
from gte_np.checkpoint.weights import BertWeights
from gte_np.encoder import EncoderOutput, FloatArray
from gte_np.kernels.chunks import TOKENS_OF_A_CHUNK, Chunk, divide
from gte_np.kernels.library import function
from gte_np.kernels.packing import PackedWeights, padded
from gte_np.kernels.processor import LANES
from gte_np.kernels.threads import available_processors, pool, take_turns
from gte_np.kernels.workspace import Workspace
from gte_np.reference.attention import self_attention
from gte_np.reference.low_precision import prepare_weights
from gte_np.token_batch import TokenBatch, TokenRows


class KernelEncoder:
    """The encoder in float32, with weights in the precision of the checkpoint; or with linear layers in a `dtype`.

    `threads` is how many threads a call may use: by default one for each processor that this process may use. The
    bits of a hidden state depend on its text alone. Calls from several Python threads share the processors.
    """

    def __init__(
        self, config: BertConfig, weights: BertWeights, dtype: str = "float32", threads: int | None = None
    ) -> None:
        self.config = config
        self.dtype = dtype
        self.threads = available_processors() if threads is None else threads
        self.weights = PackedWeights(config, weights, dtype, self.threads)
        self._stored_layers = weights.layers
        self._encode = function(f"encode_{self.weights.kind}", arguments=4)
        self._idle: list[Workspace] = []

    def __call__(
        self, batch: TokenBatch, *, rows: TokenRows | None = None, keep_layers: bool = False
    ) -> EncoderOutput:
        """Run all layers on the batch; the contract is `gte_np.encoder.Encoder`."""
        job = _Job(batch, rows, self.weights, keep_layers)
        pool().call(lambda: self._run_all(job))
        if job.hidden_states is None:
            return EncoderOutput(job.output)
        hidden_states = list(job.hidden_states)
        return EncoderOutput(job.output, hidden_states, list(self._attentions(hidden_states, batch)))

    def _run_all(self, job: _Job) -> None:
        """Run all chunks of a batch, in a thread of the pool."""
        with pool().claim(self.threads) as threads:
            chunks, apart = divide(job.batch.offsets, threads)
            if apart:
                take_turns(chunks, lambda chunk: self._run(job, chunk, 1), min(threads, len(chunks)))
            else:
                for chunk in chunks:
                    self._run(job, chunk, threads)

    def _run(self, job: _Job, chunk: Chunk, threads: int) -> None:
        """Run a chunk in a team of so many threads, this one among them."""
        with self._workspace(job, chunk, threads) as workspace:
            fields, arrays = job.fields(chunk)
            plan = workspace.begin(threads=threads, yield_function=_yield_function(), **fields)
            arguments = [array.ctypes.data for array in (plan, self.weights.layers, self.weights.matrices)]
            if threads == 1:
                self._encode(*arguments, 0)
            else:
                pool().run(lambda rank: self._encode(*arguments, rank), threads)
            del arrays  # the compiled code had their addresses

    @contextmanager
    def _workspace(self, job: _Job, chunk: Chunk, threads: int) -> Iterator[Workspace]:
        lengths = job.batch.lengths[chunk.first : chunk.last]
        tokens, longest = int(lengths.sum()), int(lengths.max())
        try:
            workspace = self._idle.pop()
        except IndexError:
            workspace = None
        if workspace is None or not workspace.fits(tokens, longest, threads):
            # Memory that is not used costs nothing; the next chunk may be larger.
            tokens, longest = max(tokens, 2 * TOKENS_OF_A_CHUNK), max(longest, TOKENS_OF_A_CHUNK)
            workspace = Workspace(self.weights, tokens, longest, max(threads, self.threads))
        yield workspace
        self._idle.append(workspace)

    def _attentions(self, hidden_states: list[FloatArray], batch: TokenBatch) -> Iterator[list[FloatArray]]:
        """Attention probabilities of each layer, by the reference from what the kernels gave that layer."""
        for hidden, layer in zip(hidden_states, self._stored_layers, strict=False):
            weights = prepare_weights(layer, self.dtype)
            yield self_attention(hidden, batch, weights, self.config.num_attention_heads)[1]


class _Job:
    """A batch, and room for what is wanted of it."""

    def __init__(self, batch: TokenBatch, rows: TokenRows | None, weights: PackedWeights, keep_layers: bool) -> None:
        self.batch = batch
        self.rows = rows
        tokens = len(batch.input_ids)
        size = weights.sizes.hidden
        self._width = padded(size, LANES)
        # Kernels write whole vectors, so rows may be longer than D.
        self._output = np.empty((tokens if rows is None else len(rows), self._width), np.float32)
        self.output = self._output[:, :size]
        self.hidden_states = None
        if keep_layers:
            self._hidden_states = np.empty((len(weights.layers) + 1, tokens, self._width), np.float32)
            self.hidden_states = self._hidden_states[..., :size]

    def fields(self, chunk: Chunk) -> tuple[dict[str, int], list[NDArray[Any]]]:
        """What the plan of a chunk has to be told, and the arrays whose addresses it is told."""
        batch = self.batch
        start, end = int(batch.offsets[chunk.first]), int(batch.offsets[chunk.last])
        offsets = batch.offsets[chunk.first : chunk.last + 1] - np.int32(start)
        fields = {"texts": chunk.last - chunk.first, "tokens": end - start, "wanted": end - start}
        arrays = {"offsets": offsets}
        for name in ("input_ids", "position_ids", "token_type_ids"):
            arrays[name] = np.ascontiguousarray(getattr(batch, name)[start:end], np.int32)
        first = start
        if self.rows is not None:
            first, last = (int(at) for at in np.searchsorted(self.rows, (start, end)))
            arrays["wanted_rows"] = (self.rows[first:last] - start).astype(np.int32)
            arrays["wanted_offsets"] = np.searchsorted(arrays["wanted_rows"], offsets).astype(np.int32)
            fields["wanted"] = last - first
        arrays["output"] = self._output[first:]
        fields["output_stride"] = self._width
        fields["hidden_states"] = 0
        if self.hidden_states is not None:
            arrays["hidden_states"] = self._hidden_states[:, start:]
            fields["layer_stride"] = self._hidden_states[0].size
        fields |= {name: array.ctypes.data for name, array in arrays.items()}
        return fields, list(arrays.values())


@cache
def _yield_function() -> int:
    """The address of the system's function that lets other threads have the processor."""
    if sys.platform == "win32":
        function: Any = ctypes.WinDLL("kernel32").SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0
