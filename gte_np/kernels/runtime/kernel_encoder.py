"""The encoder in Numba kernels: the `Encoder` that `backend="numba"` gives."""

from __future__ import annotations

from copy import copy

import numpy as np

from gte_np.architectures.config import BertConfig
from gte_np.architectures.weights import BertWeights
from gte_np.encoder_interface import EncoderInput, EncoderOutput, FloatArray
from gte_np.errors import InputError
from gte_np.formats import WeightFormat
from gte_np.kernels.runtime.chunks import TOKENS_OF_A_CHUNK, Chunk, divide, tokens_of_a_round, useful_threads
from gte_np.kernels.runtime.kernel_functions import chosen_target, function
from gte_np.kernels.runtime.packed_weights import PackedWeights, padded
from gte_np.kernels.runtime.threads import available_processors, pool, take_turns
from gte_np.kernels.runtime.workspace import Workspace
from gte_np.kernels.targets import Target
from gte_np.kernels.targets.target import LANES
from gte_np.reference.attention import attention_probabilities
from gte_np.reference.linear import prepare_weights
from gte_np.token_batch import TokenArray, TokenBatch, lengths_of


class KernelEncoder:
    """The encoder in float32, but for linear layers, which are in a format.

    `threads` is how many threads a call may use: by default one for each processor that this process may use.
    `target` is what the kernels are compiled for: by default `chosen_target()`. The bits of a hidden state depend
    on its text alone. Calls from several Python threads share the processors.
    """

    def __init__(
        self,
        config: BertConfig,
        weights: BertWeights,
        weight_format: WeightFormat,
        threads: int | None = None,
        target: Target | None = None,
    ) -> None:
        self.config = config
        self.threads = available_processors() if threads is None else threads
        target = target or chosen_target()
        self.weights = PackedWeights(config, weights, weight_format, target)
        self.weights.load(weights, self.threads)
        self._run_program = function(f"encode_{self.weights.format.name}", target, arguments=5)
        self._idle: list[Workspace] = []

    @property
    def tokens_at_once(self) -> int:
        """With how many tokens the threads of a call are busy."""
        return tokens_of_a_round(self.threads)

    @property
    def calls_at_once(self) -> int:
        """How many calls keep all processors busy."""
        return max(1, available_processors() // self.threads)

    def with_threads(self, threads: int) -> KernelEncoder:
        """An encoder with the same weights, which are shared, whose calls use at most so many threads."""
        twin = copy(self)
        twin.threads, twin._idle = threads, []  # a workspace has room for as many threads as its encoder uses
        return twin

    def __call__(self, inputs: EncoderInput, *, keep_layers: bool = False) -> EncoderOutput:
        """Run all layers on the batch; the contract is `gte_np.encoder_interface.Encoder`."""
        if inputs.config != self.config:
            raise InputError("expected an input that was checked against this encoder's sizes, got another's.")
        self.weights.check_unchanged()
        job = _Job(inputs, self.weights, keep_layers)
        pool().call(lambda: self._run_all(job))
        if job.hidden_states is None:
            return EncoderOutput(job.output)
        return EncoderOutput(job.output, list(job.hidden_states))

    def attention(self, layer: int, hidden: FloatArray, batch: TokenBatch) -> list[FloatArray]:
        """The attention probabilities of a layer, by the reference; the contract is that of `Encoder`."""
        self.weights.check_unchanged()
        weights = prepare_weights(self.weights.unpacked(layer, "qkv"), self.weights.format)
        return attention_probabilities(hidden, batch, weights, self.config.num_attention_heads)

    def _run_all(self, job: _Job) -> None:
        """Run all chunks of a batch, in a thread of the pool."""
        offsets = job.inputs.batch.offsets
        with pool().claim(useful_threads(offsets, self.threads, self.weights.matrices.size)) as threads:
            chunks, apart = divide(offsets, threads)
            if apart:
                take_turns(chunks, lambda chunk: self._run(job, chunk, 1), min(threads, len(chunks)))
            else:
                for chunk in chunks:
                    self._run(job, chunk, threads)

    def _run(self, job: _Job, chunk: Chunk, threads: int) -> None:
        """Run a chunk in a team of so many threads, this one among them."""
        workspace = self._workspace(job, chunk, threads)
        program = workspace.begin(threads, wanted=job.rows is not None, keep_layers=job.hidden_states is not None)
        ids = job.describe(chunk, workspace)
        self.weights.format.gather(self.weights.words.parts, ids, workspace.hidden[: len(ids)])  # -> (N, D)
        arguments = workspace.run_address, program.address, workspace.batch_address, self.weights.address
        if threads == 1:
            self._run_program(*arguments, 0)
        else:
            pool().run(lambda rank: self._run_program(*arguments, rank), threads)
        self._idle.append(workspace)

    def _workspace(self, job: _Job, chunk: Chunk, threads: int) -> Workspace:
        """A workspace that no other thread uses."""
        offsets = job.inputs.batch.offsets[chunk.first : chunk.last + 1]
        tokens, longest = int(offsets[-1] - offsets[0]), int(lengths_of(offsets).max())
        try:
            workspace = self._idle.pop()
        except IndexError:
            workspace = None
        if workspace is None or not workspace.fits(tokens, longest, threads):
            # Memory that is not used costs nothing; the next chunk may be larger.
            tokens, longest = max(tokens, 2 * TOKENS_OF_A_CHUNK), max(longest, TOKENS_OF_A_CHUNK)
            workspace = Workspace(self.weights, tokens, longest, max(threads, self.threads))
        return workspace


class _Job:
    """A batch, and room for what is wanted of it."""

    def __init__(self, inputs: EncoderInput, weights: PackedWeights, keep_layers: bool) -> None:
        self.inputs = inputs
        self.rows = None if keep_layers else inputs.rows
        tokens, size = len(inputs.batch.input_ids), weights.sizes.hidden
        self._width = padded(size, LANES)
        # Kernels write whole vectors, so rows may be longer than D.
        self._output = np.empty((tokens if self.rows is None else len(self.rows), self._width), np.float32)
        self._output_address = self._output.ctypes.data
        self.output = self._output[:, :size]
        self.hidden_states = None
        if keep_layers:
            self._hidden_states = np.empty((len(weights.layers) + 1, tokens, self._width), np.float32)
            self.hidden_states = self._hidden_states[..., :size]

    def describe(self, chunk: Chunk, workspace: Workspace) -> TokenArray:
        """Tell a workspace of a chunk; return the ids of its tokens."""
        batch = self.inputs.batch
        offsets = batch.offsets[chunk.first : chunk.last + 1]
        start, end = int(offsets[0]), int(offsets[-1])
        offsets = offsets - np.int32(start)
        arrays = {
            "position_ids": self.inputs.position_ids[start:end],
            "token_type_ids": batch.token_type_ids[start:end],
            "offsets": offsets,
        }
        first, last = start, end  # rows of the output
        if self.rows is not None:
            first, last = self.rows.searchsorted((start, end)).tolist()
            rows = arrays["wanted_rows"] = self.rows[first:last] - np.int32(start)
            arrays["wanted_offsets"] = rows.searchsorted(offsets)
        fields = {"tokens": end - start, "texts": len(offsets) - 1, "wanted": last - first}
        fields |= {"output": self._output_address + 4 * self._width * first, "output_stride": self._width}
        if self.hidden_states is not None:
            fields["hidden_states"] = self._hidden_states[:, start:].ctypes.data
            fields["layer_stride"] = self._hidden_states[0].size
        workspace.describe(arrays, fields)
        return batch.input_ids[start:end]
