"""A model as it is served: texts are tokenized at the door, computed by the scheduler, and timed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gte_np.embedding_model import EmbeddingModel
from gte_np.encoder_interface import FloatArray
from gte_np.errors import InputError
from gte_np.modules import Normalize
from gte_np.serve.metrics import Metrics
from gte_np.serve.options import Limits
from gte_np.serve.problems import BATCH_SIZE, VALIDATION, RequestError
from gte_np.serve.scheduler import Scheduler
from gte_np.token_batch import TokenArray, TokenBatch

# The most tokens of a request whose answer has the hidden states of all of them, thousands of bytes each.
MOST_STATES = 16384
# So many characters are tokenized while other requests wait, which takes less time than asking another thread.
_CHARACTERS_AT_ONCE = 2000

Input = str | list[int]
Made = TypeVar("Made")


class Reading(NamedTuple):
    """How texts become tokens: cut at the end or the beginning, or refused if too long; and what goes before them."""

    truncate: bool = True
    cut_beginning: bool = False
    prompt_name: str | None = None


class Task(NamedTuple):
    """What is computed: a vector of each text, perhaps of length 1 and cut, or the hidden states of its tokens."""

    output_value: str = "sentence_embedding"
    normalize: bool = True
    dimension: int | None = None


class Computed(NamedTuple):
    """The results of a request, in order; tokens in all; seconds for tokenizing, waiting and computing."""

    results: list[FloatArray]
    tokens: int
    seconds: tuple[float, float, float]

    @property
    def matrix(self) -> FloatArray:
        """The vectors: (B, D)."""
        return np.stack(self.results)


class ServedModel:
    """A model, the name that clients call it, and its queue."""

    def __init__(self, name: str, model: EmbeddingModel, limits: Limits, metrics: Metrics) -> None:
        self.name, self.model, self.limits, self.metrics = name, model, limits, metrics
        self.scheduler = Scheduler(self._compute, limits.max_batch_tokens, limits.max_concurrent_requests, metrics)
        self._aside = ThreadPoolExecutor(1, "gte_np-serve-tokenizer")
        self._normalizes = any(isinstance(module, Normalize) for module in model.modules)
        self._raw = model.without_normalize()

    async def embed(self, inputs: Sequence[Input], reading: Reading, task: Task) -> Computed:
        """Tokenize the inputs, which are not empty, and compute them.

        Raises RequestError if the queue is full, for a text that is too long and may not be cut, for a prompt or ids
        that the model does not have; and whatever goes wrong in computing.
        """
        with self.scheduler.admitted():
            begin = perf_counter()
            ids = await self._tokenize(inputs, reading)
            lengths = [len(text) for text in ids]
            if task.output_value == "token_embeddings" and sum(lengths) > MOST_STATES:
                raise RequestError(BATCH_SIZE, f"expected at most {MOST_STATES} tokens in all, got {sum(lengths)}")
            self.metrics.inputs(lengths)
            tokenized = perf_counter() - begin
            answer = await self.scheduler.submit(ids, task)
        return Computed(answer.results, sum(lengths), (tokenized, answer.waited, answer.computed))

    async def aside(self, work: Callable[[], Made]) -> Made:
        """The result of work that takes a while; one at a time, so that what it keeps in memory is bounded."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, work)

    def close(self) -> None:
        """Let the threads end after what they do."""
        self.scheduler.close()
        self._aside.shutdown(wait=False, cancel_futures=True)

    async def is_healthy(self) -> bool:
        """Whether the model computes. If the last batch failed, a short text is tried."""
        if not self.scheduler.has_failed:
            return True
        try:
            await self.embed(["a"], Reading(), Task())
        except Exception:
            return False
        return True

    def check_dimension(self, dimension: int | None, param: str) -> None:
        """Raise RequestError if vectors do not have so many dimensions."""
        most = self.model.get_sentence_embedding_dimension()
        if dimension is not None and not 1 <= dimension <= most:
            raise RequestError(VALIDATION, f"expected `{param}` from 1 to {most}, got {dimension}", param=param)

    async def _tokenize(self, inputs: Sequence[Input], reading: Reading) -> list[TokenArray]:
        if sum(map(len, inputs)) <= _CHARACTERS_AT_ONCE:
            return self._read(inputs, reading)
        return await self.aside(lambda: self._read(inputs, reading))

    def _read(self, inputs: Sequence[Input], reading: Reading) -> list[TokenArray]:
        """The token ids of each input."""
        prefix = self.prefix(reading.prompt_name)
        texts = [prefix + text for text in inputs if isinstance(text, str)]
        of_texts = iter(self._read_texts(texts, reading))
        return [next(of_texts) if isinstance(text, str) else self._read_ids(text, reading) for text in inputs]

    def _read_texts(self, texts: list[str], reading: Reading) -> list[TokenArray]:
        tokenizer, most = self.model.tokenizer, self.model.max_seq_length
        if reading.cut_beginning and reading.truncate:
            whole = tokenizer.tokenize(texts)
            return [tokenizer.cut_beginning(whole[index], most) for index in range(len(whole))]
        tokens = tokenizer.tokenize(texts, most, count_all=not reading.truncate)
        if not reading.truncate:
            self._refuse_long(tokens.token_counts)
        return [tokens[index] for index in range(len(tokens))]

    def _read_ids(self, ids: list[int], reading: Reading) -> TokenArray:
        most, vocabulary = self.model.max_seq_length, self.model.bert.config.vocab_size
        if not 0 <= min(ids) <= max(ids) < vocabulary:
            raise RequestError(
                VALIDATION,
                f"expected token ids from 0 to {vocabulary - 1}, got {min(ids)} to {max(ids)}",
                param="input",
            )
        if not reading.truncate:
            self._refuse_long([len(ids)])
        return np.array(ids[-most:] if reading.cut_beginning else ids[:most], np.int32)

    def _refuse_long(self, counts: Sequence[int] | NDArray[np.int64]) -> None:
        longest = max(counts, default=0)
        if longest > self.model.max_seq_length:
            message = f"`inputs` must have less than {self.model.max_seq_length} tokens. Given: {longest}"
            raise RequestError(VALIDATION, f"Input validation error: {message}", param="input")

    def prefix(self, prompt_name: str | None) -> str:
        """The prompt of that name. Raises RequestError if the model has none."""
        try:
            return self.model.resolve_prompt(prompt_name, None)
        except InputError as error:
            raise RequestError(VALIDATION, f"Input validation error: {error}", param="prompt_name") from error

    def _compute(self, batch: TokenBatch, task: Task) -> Sequence[FloatArray]:
        """In the scheduler's thread. What the model does by itself is not done again: that would change bits."""
        by_itself = task.normalize and self._normalizes and task.dimension is None
        model = self.model if task.normalize else self._raw
        results: Sequence[FloatArray] = model.encode_tokens(
            batch,
            output_value=task.output_value,
            normalize_embeddings=task.normalize and not by_itself,
            truncate_dim=task.dimension,
        )
        return results
