"""Compare gte_np with transformers and sentence-transformers, live: `make parity` or `make parity MODEL=...`.

Without a model: all-MiniLM-L6-v2's published weights, random weights of the exact shapes of the Chinese GTE models,
and a small checkpoint laid out as each known model's repository. With one: that folder or name on the hub. Exits
with status 1 if any difference is over its limit.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gte_np import KNOWN_MODELS, EmbeddingModel, TokenBatch, Tokenizer
from gte_np.checkpoint.hub import resolve_model
from scripts import oracle
from scripts.fetch_minilm import FOLDER as MINILM
from tests import samples
from tests.checkpoints import CHINESE
from tests.layouts import write_layout
from tests.texts import generated

BACKENDS = ("numpy", "numba")
STATES_LIMIT = 2e-5
VECTORS_LIMIT = 2e-6
SHAPES_LIMIT = 5e-6  # of vectors, for 24 random layers of 1024


@dataclass
class Row:
    """One comparison: the worst differences, None where nothing of the kind was compared."""

    name: str
    backend: str
    texts: int
    ids_equal: bool
    states: float | None = None
    vectors: float | None = None
    vectors_limit: float = VECTORS_LIMIT

    @property
    def passed(self) -> bool:
        """Whether everything is within its limit; NaN is not."""
        return (
            self.ids_equal
            and (self.states is None or self.states <= STATES_LIMIT)
            and (self.vectors is None or self.vectors <= self.vectors_limit)
        )

    def __str__(self) -> str:
        cells = (
            f"{self.name:<36}",
            f"{self.backend:<7}",
            f"{self.texts:>6}",
            f"{'yes' if self.ids_equal else 'NO':>9}",
            f"{_number(self.states):>9}",
            f"{_number(self.vectors):>9}",
            "pass" if self.passed else "FAIL",
        )
        return " | ".join(cells)


HEADER = f"{'model':<36} | backend |  texts | ids equal |    states |   vectors | result"


def main() -> int:
    """Print a table, a row for each comparison as it ends; return 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="a folder, or a name on the hub")
    args = parser.parse_args()
    folder = resolve_model(args.model) if args.model else None
    oracle.go_offline()
    logging.getLogger("gte_np").setLevel(logging.ERROR)  # that texts are cut is meant
    print(f"gte_np against {oracle.versions()}\n{HEADER}\n{'-' * len(HEADER)}")
    failed = 0
    rows = (compare_model(args.model, folder, backend) for backend in BACKENDS) if folder else compare_all()
    for row in rows:
        print(row, flush=True)
        failed += not row.passed
    print(f"{failed} of the comparisons failed." if failed else "All within the limits.")
    return 1 if failed else 0


def compare_all() -> Iterator[Row]:
    """Everything that needs no model hub."""
    for backend in BACKENDS:
        yield compare_model("all-MiniLM-L6-v2", MINILM, backend)
    yield compare_token_ids("all-MiniLM-L6-v2, generated texts", MINILM)
    yield compare_token_ids("bert-base-chinese, generated texts", CHINESE)
    with tempfile.TemporaryDirectory() as temporary:
        for dtype in ("float32", "bfloat16"):  # what was saved is a model that others read
            folder = Path(temporary) / dtype
            EmbeddingModel(MINILM, dtype=dtype).save_pretrained(folder)
            yield compare_vectors(f"all-MiniLM-L6-v2, saved in {dtype}", folder, "numba", samples.MINILM_TEXTS)
        for name in samples.SHAPES:
            texts = [samples.chinese_text(length) for length in samples.SHAPE_LENGTHS]
            folder = samples.write_shape(name, Path(temporary) / name)
            for backend in BACKENDS:
                yield compare_vectors(f"{name}, random weights", folder, backend, texts, SHAPES_LIMIT)
        for name in KNOWN_MODELS:
            folder = write_layout(name, Path(temporary) / name)
            for backend in BACKENDS:
                yield compare_vectors(f"{name}, small", folder, backend, samples.LAYOUT_TEXTS)


def compare_model(name: str, folder: Path, backend: str) -> Row:
    """Token ids and vectors of texts; hidden states of each layer, for these texts and for ids of many lengths."""
    model = EmbeddingModel(folder, backend=backend)
    row = compare_vectors(name, folder, backend, samples.MINILM_TEXTS)
    bert = oracle.load_bert(model.transformer_folder)
    row.states = 0.0
    lengths = [length for length in samples.MINILM_LENGTHS if length <= model.max_seq_length]
    ids = [samples.ids_of_length(length, model.bert.config.vocab_size) for length in lengths]
    texts = model.tokenize(samples.MINILM_TEXTS)
    ids += [texts[text].tolist() for text in range(len(texts))]
    together = hidden_states(model, ids)  # a mixed batch, and each text by itself
    for text_ids, states in zip(ids, together, strict=True):
        theirs = oracle.hidden_states(bert, text_ids)
        alone = hidden_states(model, [text_ids])[0]
        row.states = max(row.states, worst(states, theirs), worst(alone, theirs))
    return row


def hidden_states(model: EmbeddingModel, ids: list[list[int]]) -> list[oracle.FloatArray]:
    """The hidden states of each text of one batch: (L + 1, T, D)."""
    batch = TokenBatch.from_ids(ids)
    layers = model.bert.encode_batch(batch, keep_layers=True).hidden_states or []
    return [np.stack([layer[batch.slice(text)] for layer in layers]) for text in range(len(batch))]


def compare_vectors(name: str, folder: Path, backend: str, texts: Sequence[str], limit: float = VECTORS_LIMIT) -> Row:
    """Token ids and vectors of texts, in one batch and one by one; differences are relative to a vector's length."""
    model = EmbeddingModel(folder, backend=backend, dtype="float32")
    reference = oracle.load_sentence_transformer(folder)
    theirs = reference.encode(list(texts))
    lengths = np.linalg.norm(theirs, axis=1, keepdims=True)
    together = model.encode(texts)
    single = np.stack([model.encode(text) for text in texts])
    return Row(
        name,
        backend,
        len(texts),
        ids_are_equal(model.tokenizer, reference.tokenizer, texts),
        vectors=max(worst(ours / lengths, theirs / lengths) for ours in (together, single)),
        vectors_limit=limit,
    )


def compare_token_ids(name: str, folder: Path) -> Row:
    """Token ids of generated texts."""
    texts = list(generated(samples.GENERATED_TEXTS))
    return Row(
        name, "", len(texts), ids_are_equal(Tokenizer.from_folder(folder), oracle.load_tokenizer(folder), texts)
    )


def ids_are_equal(tokenizer: Tokenizer, reference: Any, texts: Sequence[str]) -> bool:
    """Whether all texts have transformers' token ids."""
    batch = tokenizer.tokenize(texts)
    expected = oracle.token_ids(reference, texts)
    return all(batch[text].tolist() == text_ids for text, text_ids in enumerate(expected))


def worst(ours: oracle.FloatArray, theirs: oracle.FloatArray) -> float:
    """The largest absolute difference; NaN if there is one."""
    return float(np.abs(ours - theirs).max())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


if __name__ == "__main__":
    sys.exit(main())
