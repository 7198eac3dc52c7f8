"""What is counted, by text-embeddings-inference's names, so that dashboards made for it work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import UnknownMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = [1e-5 * 1.5**step for step in range(1, 36)]
_REQUEST_TIMES = ("duration", "tokenization_duration", "queue_duration", "inference_duration")
_COUNTS = {
    "te_request_count": ("Requests, by method: a single input, or a batch of them", "method"),
    "te_request_success": ("Requests that were answered", "method"),
    "te_request_failure": ("Requests that got an error, by its kind", "err"),
    "te_embed_count": ("Inputs of requests", None),
    "te_embed_success": ("Inputs that were computed", None),
}


class Metrics(Collector):
    """The metrics of one server. A counter's name has no ending `_total`, so its type cannot be told."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTS}
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        self._queue = Gauge("te_queue_size", "Requests that wait", registry=self.registry)
        self._times = {
            f"te_{what}_{time}": self._histogram(f"te_{what}_{time}", "Seconds", _SECONDS)
            for what in ("request", "embed")
            for time in _REQUEST_TIMES
        }
        self._length = self._histogram("te_request_input_length", "Tokens of an input", _powers(14))
        self._texts = self._histogram("te_batch_next_size", "Texts of a batch", _powers(13))
        self._tokens = self._histogram("te_batch_next_tokens", "Tokens of a batch", _powers(21))

    def _histogram(self, name: str, description: str, buckets: list[float]) -> Histogram:
        return Histogram(name, description, buckets=buckets, registry=self.registry)

    def collect(self) -> Iterator[UnknownMetricFamily]:
        """The counters, for the registry."""
        for name, (description, label) in _COUNTS.items():
            family = UnknownMetricFamily(name, description, labels=[label] if label else [])
            for value, count in self._counts[name].items() if label else [("", self._counts[name].total())]:
                family.add_metric([value] if label else [], count)
            yield family

    def text(self) -> bytes:
        """All metrics in Prometheus' format."""
        return generate_latest(self.registry)

    def queue(self, requests: int) -> None:
        """So many requests wait now."""
        self._queue.set(requests)

    def batch(self, texts: int, tokens: int) -> None:
        """A batch begins."""
        self._texts.observe(texts)
        self._tokens.observe(tokens)

    def request(self, method: str) -> None:
        """A request came whose inputs are to be computed."""
        self._counts["te_request_count"][method] += 1

    def inputs(self, lengths: list[int]) -> None:
        """These inputs, of so many tokens, are in the queue."""
        self._counts["te_embed_count"][""] += len(lengths)
        for length in lengths:
            self._length.observe(length)

    def success(self, method: str, inputs: int, seconds: tuple[float, ...]) -> None:
        """A request was answered, in so many seconds: in all, tokenizing, waiting, computing."""
        self._counts["te_request_success"][method] += 1
        self._counts["te_embed_success"][""] += inputs
        for what in ("request", "embed"):
            for time, value in zip(_REQUEST_TIMES, seconds, strict=True):
                self._times[f"te_{what}_{time}"].observe(value)

    def failure(self, label: str) -> None:
        """A request got an error."""
        self._counts["te_request_failure"][label] += 1


def _powers(count: int) -> list[float]:
    return [2.0**power for power in range(count)]
