"""The texts that are encoded: each by its token ids, and as text."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gte_np import Tokenizer
from scripts.fetch_sentences import FILE as SENTENCES

SINGLE = (7, 12, 13, 20, 32, 41, 512)
MIXED_TEXTS = {"gte-small": 512, "gte-base-zh": 512, "gte-large-zh": 64}


@dataclass(frozen=True)
class Workload:
    """Texts, and their token ids with [CLS] and [SEP]."""

    texts: list[str]
    ids: list[list[int]]

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(map(len, self.ids))


def workloads(model: str, folder: Path) -> dict[str, Workload]:
    """All workloads by name; no text is there twice. For a model with real weights, real sentences."""
    if model not in MIXED_TEXTS:
        return {"sentences": _sentences(folder)}
    words = source(model, folder)
    single = {f"1 x {tokens}": words.workload([tokens]) for tokens in SINGLE}
    batch = {"16 x 128": words.workload([128] * 16)}
    return single | batch | {"mixed": words.workload(mixed_lengths(MIXED_TEXTS[model]))}


def source(model: str, folder: Path) -> Source:
    """Where the words of a model's texts come from."""
    return Source(folder, chinese=model.endswith("zh"))


def _sentences(folder: Path) -> Workload:
    """What `scripts.fetch_sentences` fetched."""
    texts = json.loads(SENTENCES.read_text("utf-8"))
    tokens = Tokenizer.from_folder(folder).tokenize(texts, 256)
    return Workload(texts, [tokens[text].tolist() for text in range(len(texts))])


def mixed_lengths(count: int) -> list[int]:
    """Log-normal lengths with a mean of about 50 tokens, clipped to 512."""
    lengths: NDArray[np.float64] = np.random.default_rng(0).lognormal(3.6, 0.8, count)
    return np.clip(lengths, 3, 512).astype(int).tolist()


class Source:
    """Random words that are one token each."""

    def __init__(self, folder: Path, *, chinese: bool) -> None:
        vocabulary = (folder / "vocab.txt").read_text("utf-8").split("\n")
        self.ids = {token: number for number, token in enumerate(vocabulary)}
        self.between = "" if chinese else " "
        self.words = [word for word in vocabulary if (_is_chinese(word) if chinese else _is_english(word))]
        self.random = random.Random(0)

    def workload(self, lengths: list[int]) -> Workload:
        """A text for each of these lengths, in tokens."""
        texts = [self.random.choices(self.words, k=length - 2) for length in lengths]
        ids = [[self.ids["[CLS]"], *(self.ids[word] for word in text), self.ids["[SEP]"]] for text in texts]
        return Workload([self.between.join(text) for text in texts], ids)


def _is_chinese(word: str) -> bool:
    return len(word) == 1 and "\u4e00" <= word <= "\u9fa5"


def _is_english(word: str) -> bool:
    return len(word) > 2 and word.isascii() and word.isalpha() and word.islower()
