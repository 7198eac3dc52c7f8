"""quantize_embeddings, with sentence-transformers' meaning."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from gte_np import InputError, quantize_embeddings

VECTORS = np.random.default_rng(0).standard_normal((200, 16), dtype=np.float32)


def test_float32_is_kept() -> None:
    assert quantize_embeddings(VECTORS, "float32") is VECTORS


def test_uint8_spreads_the_range_over_256_steps() -> None:
    levels = quantize_embeddings(VECTORS, "uint8")
    assert levels.dtype == np.uint8
    assert levels.min(axis=0).tolist() == [0] * 16
    assert levels.max(axis=0).min() >= 254
    least, largest = VECTORS.min(axis=0), VECTORS.max(axis=0)
    assert (least + levels * (largest - least) / 255) == pytest.approx(VECTORS, abs=0.05)


def test_int8_is_uint8_less_128() -> None:
    signed, unsigned = quantize_embeddings(VECTORS, "int8"), quantize_embeddings(VECTORS, "uint8")
    assert signed.dtype == np.int8
    assert np.array_equal(signed.astype(int) + 128, unsigned.astype(int))


def test_ranges_and_calibration() -> None:
    ranges = np.stack([np.full(16, -1), np.full(16, 1)])
    assert quantize_embeddings(np.zeros((1, 16)), "uint8", ranges=ranges).tolist() == [[127] * 16]
    assert quantize_embeddings(np.ones((1, 16)) * 5, "uint8", ranges=ranges).tolist() == [[255] * 16]
    calibrated = quantize_embeddings(VECTORS[:1], "uint8", calibration_embeddings=VECTORS)
    assert np.array_equal(calibrated, quantize_embeddings(VECTORS, "uint8")[:1])


def test_a_dimension_that_never_changes() -> None:
    assert quantize_embeddings(np.full((120, 2), 3.0), "uint8").tolist() == [[0, 0]] * 120


def test_binary_packs_signs() -> None:
    signs = np.array([[1, -1, 1, 1, -1, -1, -1, 1], [-1, 0, -1, -1, -1, -1, -1, -1]], np.float32)
    assert quantize_embeddings(signs, "ubinary").tolist() == [[0b10110001], [0]]
    assert quantize_embeddings(signs, "binary").tolist() == [[0b10110001 - 128], [-128]]
    assert quantize_embeddings(signs, "binary").dtype == np.int8


@pytest.mark.parametrize(("precision", "width"), [("int8", 16), ("uint8", 16), ("binary", 2), ("ubinary", 2)])
def test_nothing(precision: str, width: int) -> None:
    assert quantize_embeddings(VECTORS[:0], precision).shape == (0, width)


def test_a_single_vector_has_no_range() -> None:
    with pytest.raises(InputError, match="several vectors"):
        quantize_embeddings(VECTORS[:1], "int8")


def test_few_vectors_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "gte_np"):
        quantize_embeddings(VECTORS[:5], "int8")
    assert "5 vectors" in caplog.text


def test_an_unknown_precision() -> None:
    with pytest.raises(InputError, match="float32, int8, uint8, binary, ubinary, got 'int4'"):
        quantize_embeddings(VECTORS, "int4")
