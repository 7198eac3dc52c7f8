"""What arithmetic and memory allow on this processor, and how near the engine comes: python -m benchmarks.limits.

The limit of a workload is the roofline of its matrix products: of each linear layer, the larger of the time of its
multiply-adds at the peak and that of reading its weights at the bandwidth; and of attention, the time of its two
products at the peak of what they are computed in. All else counts as nothing. Peak, bandwidth and engine are measured
in short turns, and compared within a turn; figures are medians over all turns, with quartiles for the percentages.
The last line is JSON, which is also written to benchmarks/results/limits.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import peaks
from benchmarks.compare import FOLDERS, RESULTS, environment
from benchmarks.limit_tables import bound_by
from benchmarks.models import ensure_checkpoint
from gte_np import BertConfig, EmbeddingModel, TokenBatch
from gte_np.encoder_interface import EncoderInput
from gte_np.formats import WeightFormat, choose_format, dtypes
from gte_np.formats.float_formats import FLOAT32
from gte_np.kernels.runtime.kernel_encoder import KernelEncoder
from gte_np.kernels.runtime.threads import available_processors
from gte_np.pooling import rows_read

MODELS = {"small": "gte-small", "base": "gte-base-zh", "large": "gte-large-zh"}
LENGTHS = {f"1 x {tokens}": [tokens] for tokens in (7, 12, 20, 32, 512)} | {"16 x 128": [128] * 16}
FEWEST_TURNS = 5
HEADER = (
    f"{'model':6}{'dtype':10}{'tokens':10}{'limit, ms':>10}{'bound by':>12}{'encoder, ms':>13}"
    f"{'% of limit (quartiles)':>26}{'call, ms':>10}{'overhead, ms':>14}{'% of limit (quartiles)':>26}"
)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--dtypes", nargs="+", default=dtypes(), choices=dtypes())
    parser.add_argument("--seconds", type=float, default=5.0, help="of each workload")
    parser.add_argument("--threads", type=int, default=available_processors())
    options = parser.parse_args()
    results: dict[str, Any] = {"environment": environment(options.threads), "models": {}}
    print(HEADER)
    for model in options.models:
        name = MODELS[model]
        folder = FOLDERS / name
        ensure_checkpoint(name, folder)
        results["models"][name] = {}
        for dtype in options.dtypes:
            results["models"][name][dtype] = by_workload = {}
            subject = Subject(folder, dtype, options.threads)
            for workload, lengths in LENGTHS.items():
                by_workload[workload] = subject.measure(lengths, options.seconds)
                print(f"{model:6}{dtype:10}{workload:10}{cells(by_workload[workload])}", flush=True)
    (RESULTS / "limits.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results))


def cells(figures: Mapping[str, Any]) -> str:
    """A row of the table, below HEADER."""
    encoder, call = (
        "{1:.1f} ({0:.1f} to {2:.1f})".format(*figures[name]) for name in ("encoder_percent", "call_percent")
    )
    return (
        f"{figures['limit_ms']:10.3f}{bound_by(figures):>12}{figures['encoder_ms']:13.3f}{encoder:>26}"
        f"{figures['call_ms']:10.3f}{figures['overhead_ms']:14.3f}{call:>26}"
    )


class Linear(NamedTuple):
    """A linear layer of so many rows: (rows, depth), (depth, width) -> (rows, width)."""

    rows: int
    depth: int
    width: int

    @property
    def multiply_adds(self) -> int:
        """Of the whole product."""
        return self.rows * self.depth * self.width

    def weight_bytes(self, weight_format: WeightFormat) -> int:
        """Of the matrix in words, without the format's constants and what it fills up with zeros."""
        return -(-self.depth // weight_format.values_of_word) * self.width * weight_format.word.itemsize


class Work(NamedTuple):
    """The matrix products of a workload: its linear layers, and the multiply-adds of attention in all layers."""

    linears: list[Linear]
    attention: int


class Rates(NamedTuple):
    """What the processor can do in a second: multiply-adds of the dtype and of attention, and bytes of weights."""

    peak: float
    attention_peak: float
    bandwidth: float


class Limit(NamedTuple):
    """Seconds of what arithmetic bounds, and of what memory bounds."""

    arithmetic: float
    memory: float


def work_of(config: BertConfig, lengths: Sequence[int], *, one_token: bool) -> Work:
    """The products for texts of these lengths; the last layer ends with a token of each, if pooling reads but one."""
    tokens, last = sum(lengths), config.num_hidden_layers - 1
    work = Work([], 0)
    for layer in range(config.num_hidden_layers):
        is_one = one_token and layer == last
        linears = list(_linears_of_a_layer(config, tokens, len(lengths) if is_one else tokens))
        queries_and_keys = tokens if is_one else sum(length * length for length in lengths)
        work = Work(work.linears + linears, work.attention + 2 * queries_and_keys * config.hidden_size)
    return work


def _linears_of_a_layer(config: BertConfig, tokens: int, wanted: int) -> Iterator[Linear]:
    """Keys and values of all tokens, and all else of the wanted ones."""
    hidden, inner = config.hidden_size, config.intermediate_size
    yield Linear(tokens, hidden, 2 * hidden)
    yield Linear(wanted, hidden, hidden)  # queries
    yield Linear(wanted, hidden, hidden)  # the output of attention
    yield Linear(wanted, hidden, inner)
    yield Linear(wanted, inner, hidden)


def limit_of(work: Work, weight_format: WeightFormat, rates: Rates) -> Limit:
    """The roofline, layer by layer."""
    arithmetic, memory = work.attention / rates.attention_peak, 0.0
    for linear in work.linears:
        multiplying = linear.multiply_adds / rates.peak
        reading = linear.weight_bytes(weight_format) / rates.bandwidth
        if multiplying > reading:
            arithmetic += multiplying
        else:
            memory += reading
    return Limit(arithmetic, memory)


class Subject:
    """A model to be measured, and the peaks and the bandwidth of the processor for its dtype and its weights."""

    def __init__(self, folder: Path, dtype: str, threads: int) -> None:
        self.model = EmbeddingModel(folder, backend="numba", dtype=dtype, threads=threads)
        encoder = self.model.bert._encoder
        assert isinstance(encoder, KernelEncoder), "the backend is numba"
        self.encoder, self.config, self.format = encoder, self.model.bert.config, encoder.weights.format
        target, multiplied = encoder.weights.target, choose_format(dtype, stored=dtype)  # once weights are widened
        self.peak = peaks.peak(multiplied, target, threads)
        is_alike = multiplied is FLOAT32 or target.rounds_in_tiles(multiplied.tile_product)
        self.attention_peak = self.peak if is_alike else peaks.peak(FLOAT32, target, threads)
        self.bandwidth = peaks.bandwidth(encoder.weights.matrices, self.format, target, threads)

    def measure(self, lengths: Sequence[int], seconds: float) -> dict[str, Any]:
        """The figures of texts of these lengths."""
        random = np.random.default_rng(0)
        ids = [random.integers(0, self.config.vocab_size, length, dtype=np.int32) for length in lengths]
        batch = TokenBatch.from_ids(ids)
        rows = rows_read(batch.offsets, self.model.pooling_modes)
        inputs = EncoderInput(batch, self.config, rows)
        self.encoder(inputs)  # the first call is slower than all others
        turn = max(peaks.TURN_SECONDS, seconds_of(lambda: self.encoder(inputs)) / 4)
        measured: dict[str, Callable[[], float]] = {
            "peak": lambda: self.peak(turn),
            "attention_peak": lambda: self.attention_peak(turn),
            "bandwidth": lambda: self.bandwidth(turn),
            "encoder": lambda: seconds_of(lambda: self.encoder(inputs)),
            "call": lambda: seconds_of(lambda: self.model.encode_tokens(batch)),
        }
        turns = take_turns(measured, seconds)
        work = work_of(self.config, lengths, one_token=rows is not None)
        return figures(turns, [limit_of(work, self.format, rates) for rates in rates_of(turns)])


def seconds_of(call: Callable[[], object]) -> float:
    """The mean of as many calls as take some milliseconds, at least one."""
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < peaks.TURN_SECONDS:
        call()
        calls += 1
    return (time.perf_counter() - start) / calls


def take_turns(measured: Mapping[str, Callable[[], float]], seconds: float) -> dict[str, list[float]]:
    """What each of them gives in every turn, for so many seconds; every other turn is in the opposite order."""
    turns: dict[str, list[float]] = {name: [] for name in measured}
    order, end = list(measured), time.perf_counter() + seconds
    while time.perf_counter() < end or len(turns[order[0]]) < FEWEST_TURNS:
        for name in order:
            turns[name].append(measured[name]())
        order.reverse()
    return turns


def rates_of(turns: Mapping[str, list[float]]) -> Iterator[Rates]:
    """The rates of each turn."""
    return map(Rates, *(turns[name] for name in Rates._fields))


def figures(turns: Mapping[str, list[float]], limits: list[Limit]) -> dict[str, Any]:
    """Medians over all turns; of the percentages also the quartiles, the median between them."""
    limit, encoder, call = (np.array(values) for values in (limits, turns["encoder"], turns["call"]))
    seconds = limit.sum(axis=1)  # (turns, 2) -> (turns,)
    return {
        "turns": len(limits),
        **{name: statistics.median(turns[name]) for name in Rates._fields},
        "limit_ms": float(np.median(seconds) * 1e3),
        "memory_share": float(np.median(limit[:, 1] / seconds)),
        "encoder_ms": float(np.median(encoder) * 1e3),
        "encoder_percent": np.percentile(100 * seconds / encoder, (25, 50, 75)).tolist(),
        "call_ms": float(np.median(call) * 1e3),
        "overhead_ms": float(np.median(call - encoder) * 1e3),
        "call_percent": np.percentile(100 * seconds / call, (25, 50, 75)).tolist(),
    }


if __name__ == "__main__":
    main()
