"""Arrays as the document of an explanation has them: base64 in JSON."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_np.encoder_interface import FloatArray

ATTENTION_BYTES = 2_400_000  # of all texts, in base64 a third more: with the rest, the page has less than 5 MB


def packed_array(values: NDArray[Any], dtype: str, scale: float = 1.0) -> dict[str, Any]:
    """An array, little-endian in the order of its rows, whose values are the stored numbers times the scale."""
    stored = np.rint(values / scale) if dtype == "u1" else values / scale
    data = base64.b64encode(stored.astype(f"<{dtype}").tobytes()).decode()
    return {"shape": list(values.shape), "dtype": dtype, "scale": scale, "base64": data}


def attention_entries(attentions: Sequence[FloatArray]) -> list[dict[str, Any]]:
    """The attention of each text, (L, H, T, T), in blocks of tokens if a page would be too large with all."""
    return [_attention_entry(values, ATTENTION_BYTES // len(attentions)) for values in attentions]


def _attention_entry(values: FloatArray, most_bytes: int) -> dict[str, Any]:
    layers, heads, tokens, _ = values.shape
    side = min(tokens, max(1, int((most_bytes / (layers * heads)) ** 0.5)))
    return {
        "layers": layers,
        "heads": heads,
        "tokens": tokens,
        "pooled": side,
        "values": packed_array(pool_blocks(values, side), "u1", 1 / 255),
    }


def pool_blocks(values: FloatArray, side: int) -> FloatArray:
    """The largest value of each block: (..., T, T) -> (..., side, side). Block i begins at token i T // side."""
    starts = np.arange(side) * values.shape[-1] // side
    return np.maximum.reduceat(np.maximum.reduceat(values, starts, axis=-1), starts, axis=-2)
