"""Vectors in fewer bits: the meaning of sentence_transformers.quantize_embeddings."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gte_np.arguments import check_choice
from gte_np.errors import InputError
from gte_np.similarity import as_float

logger = logging.getLogger("gte_np")

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
_FEW = 100  # embeddings, too few for good ranges


def quantize_embeddings(
    embeddings: ArrayLike,
    precision: str,
    ranges: ArrayLike | None = None,
    calibration_embeddings: ArrayLike | None = None,
) -> NDArray[Any]:
    """Quantise float vectors: (B, D) -> (B, D), or (B, D / 8) for the binary precisions.

    int8 and uint8 spread each dimension's range over 256 steps; `ranges` is (2, D), the least and the largest
    values, by default those of `calibration_embeddings`, or else of the embeddings themselves. binary and ubinary
    keep one bit for each dimension, set if the value is positive, packed into int8 or uint8.

    Raises InputError for an unknown precision, and for int8 and uint8 of a single vector without ranges.
    """
    check_choice("precision", precision, PRECISIONS)
    vectors = as_float(embeddings).astype(np.float32, copy=False)
    if precision == "float32":
        return vectors
    if precision == "ubinary":
        return np.packbits(vectors > 0, axis=-1)
    if precision == "binary":
        return (np.packbits(vectors > 0, axis=-1).astype(np.int16) - 128).astype(np.int8)
    if vectors.ndim == 2 and len(vectors) == 0:
        return vectors.astype(precision)
    if ranges is None:
        ranges = find_ranges(vectors if calibration_embeddings is None else calibration_embeddings, precision)
    ranges = as_float(ranges)
    if ranges.shape != (2, vectors.shape[-1]) or not (np.isfinite(ranges).all() and np.isfinite(vectors).all()):
        raise InputError(f"expected finite vectors and (2, {vectors.shape[-1]}) ranges, got {ranges.shape} or NaN.")
    least, largest = ranges.astype(np.float32)
    steps = (largest - least) / 255
    steps[steps == 0] = 1
    levels = np.clip(np.floor((vectors - least) / steps), 0, 255)
    return levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)


def find_ranges(embeddings: ArrayLike, precision: str) -> NDArray[np.float32]:
    """The least and the largest values of each dimension of vectors: (B, D) -> (2, D).

    Raises InputError for less than two vectors.
    """
    vectors = np.atleast_2d(as_float(embeddings).astype(np.float32, copy=False))
    if len(vectors) < 2:
        raise InputError(
            f"expected several vectors to find the ranges for {precision}, got one: quantise many at once, or call "
            "quantize_embeddings with ranges or calibration_embeddings."
        )
    if len(vectors) < _FEW:
        logger.warning("The ranges for %s come from %d vectors only.", precision, len(vectors))
    return np.stack([vectors.min(axis=0), vectors.max(axis=0)])
