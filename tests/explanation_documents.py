"""Documents of explanations, of random numbers, as large as wanted."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORDS = ("how", "many", "people", "live", "in", "london", "##s", "million", "不", "人")


@dataclass(frozen=True)
class Size:
    """How large a document is: `tokens` of each text, one of them or two, and `side` of a head's picture."""

    tokens: tuple[int, ...] = (9, 12)
    layers: int = 6
    heads: int = 12
    side: int = 64


LARGEST = Size((512, 512), layers=24, heads=16, side=58)


def sample_document(size: Size, *, exact: bool = True) -> dict[str, Any]:
    """A document of random numbers: of two texts, or of one; exact as for mean pooling, or approximate."""
    generator = np.random.default_rng(0)
    texts = [_text(tokens) for tokens in size.tokens]
    document = {
        "version": "0.1",
        "model": "sample",
        "pooling": "mean" if exact else "cls",
        "dtype": "float32",
        "cosine": None,
        "texts": texts,
        "contributions": None,
        "deletions": None,
        "layers": None,
        "attentions": [_attention(generator, size, tokens) for tokens in size.tokens],
        "walk": _walk(size.tokens[0]),
        "notes": ["The numbers of this page are random."],
    }
    return document if len(texts) == 1 else document | _pair(generator, size, exact)


def _text(tokens: int) -> dict[str, Any]:
    words = [WORDS[at % len(WORDS)] for at in range(tokens - 2)]
    ends = np.cumsum([len(word.removeprefix("##")) + 1 for word in words])
    spans = [
        [int(end) - len(word.removeprefix("##")) - 1, int(end) - 1] for word, end in zip(words, ends, strict=True)
    ]
    text = " ".join(word.removeprefix("##") for word in words)
    return {
        "text": text + " and what was cut off",
        "tokens": ["[CLS]", *words, "[SEP]"],
        "ids": [101, *range(2000, 2000 + len(words)), 102],
        "spans": [[0, 0], *spans, [0, 0]],
        "unknown": [3],
        "kept": len(text),
        "cut_tokens": 5,
    }


def packed(values: NDArray[Any], dtype: str, scale: float = 1.0) -> dict[str, Any]:
    """An array as the document has it."""
    stored = (values / scale).round() if dtype == "u1" else values / scale
    data = base64.b64encode(stored.astype(f"<{dtype}").tobytes()).decode()
    return {"shape": list(values.shape), "dtype": dtype, "scale": scale, "base64": data}


def _pair(generator: np.random.Generator, size: Size, exact: bool) -> dict[str, Any]:
    first, second = size.tokens
    values = generator.normal(size=(first, second)) ** 3 + 0.4
    values *= 0.75 / values.sum()
    most = float(np.abs(values).max())
    method = "exact" if exact else "approximate"
    return {
        "cosine": 0.75 if exact else 0.8,
        "contributions": {
            "method": method,
            "name": f"The {method} contributions of pairs of tokens",
            "values": packed(values, "f2", most),
            "totals": [values.sum(axis=1).tolist(), values.sum(axis=0).tolist()],
            "unexplained": 0.0 if exact else 0.05,
        },
        "deletions": [[None, *generator.normal(0, 0.05, count - 2).round(4).tolist(), None] for count in size.tokens],
        "layers": {
            "float32": np.linspace(0.3, 0.8, size.layers + 1).tolist(),
            "int8": np.linspace(0.31, 0.78, size.layers + 1).tolist(),
        },
    }


def _attention(generator: np.random.Generator, size: Size, tokens: int) -> dict[str, Any]:
    side = min(size.side, tokens)
    shape = (size.layers, size.heads, side, side)
    values = generator.dirichlet(np.full(side, 0.2), shape[:3]).reshape(shape)
    return {
        "layers": size.layers,
        "heads": size.heads,
        "tokens": tokens,
        "pooled": side,
        "values": packed(values, "u1", 1 / 255),
    }


def _walk(tokens: int) -> list[dict[str, Any]]:
    shapes = {"ids": f"(N,) = ({tokens},)", "output": f"(N, D) = ({tokens}, 384)"}
    step = {
        "function": "gte_np.reference.embeddings.embed",
        "href": "gte_np/reference/embeddings.py",
        "source": "def embed(inputs, weights, eps):\n    return words < types & positions",
        "shapes": shapes,
        "token": "how",
        "numbers": {"output": [0.5, -0.25, 0.125, 0.0, 1.0, -1.0, 0.75, 0.1]},
    }
    names = ("Word embeddings", "Self-attention", "Feed-forward", "Pooling")
    return [step | {"step": name, "note": f"{name} is one step."} for name in names]
