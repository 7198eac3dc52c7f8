"""Arrays as the document of an explanation has them: base64 in JSON."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np.encoder_interface import FloatArray

ATTENTION_BYTES = 2_400_000  # of all texts, in base64 a third more: with the rest, the page has less than 5 MB


def packed_array(values: NDArray[Any], dtype: str, scale: float = 1.0) -> dict[str, Any]:
    """An array, little-endian in the order of its rows, whose values are the stored numbers times the scale."""
    stored = np.rint(values / scale) if dtype == "u1" else values / scale
    data = base64.b64encode(stored.astype(f"<{dtype}").tobytes()).decode()
    return {"shape": list(values.shape), "dtype": dtype, "scale": scale, "base64": data}


def attention_entries(layers: Iterable[Sequence[FloatArray]], count: int) -> list[dict[str, Any]]:
    """The attention of each text, in blocks of tokens if a page would be too large with all.

    `layers` gives, for each of `count` layers, one (H, T, T) for each text. It may make them as it goes: of long
    texts all of them together take a gigabyte.
    """
    pooled = [[_Pooled.of(values, ATTENTION_BYTES // len(texts) // count) for values in texts] for texts in layers]
    return [_attention_entry(text) for text in zip(*pooled, strict=True)]


class _Pooled(NamedTuple):
    """A layer's attention of a text of so many tokens, in blocks: (H, side, side)."""

    tokens: int
    blocks: FloatArray

    @classmethod
    def of(cls, values: FloatArray, most_bytes: int) -> _Pooled:
        """The attention (H, T, T) in as many blocks as fit, of a byte each."""
        heads, tokens, _ = values.shape
        side = min(tokens, max(1, int((most_bytes / heads) ** 0.5)))
        return cls(tokens, pool_blocks(values, side))


def _attention_entry(text: Sequence[_Pooled]) -> dict[str, Any]:
    pooled = np.stack([layer.blocks for layer in text])
    layers, heads, side, _ = pooled.shape
    return {
        "layers": layers,
        "heads": heads,
        "tokens": text[0].tokens,
        "pooled": side,
        "values": packed_array(pooled, "u1", 1 / 255),
    }


def pool_blocks(values: FloatArray, side: int) -> FloatArray:
    """The largest value of each block: (..., T, T) -> (..., side, side). Block i begins at token i T // side."""
    starts = np.arange(side) * values.shape[-1] // side
    return np.maximum.reduceat(np.maximum.reduceat(values, starts, axis=-2), starts, axis=-1)
