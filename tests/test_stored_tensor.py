"""Tensors of mapped files: giving memory back to the system changes nothing."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import numpy as np
import pytest

from gte_np.checkpoint.safetensors import read_safetensors
from gte_np.checkpoint.torch_zip import read_torch_zip
from gte_np.formats.stored_tensor import StoredTensor
from tests.checkpoints import save_safetensors
from tests.torch_pickle import save_torch_zip

SHAPES = {"small": (7,), "first": (700, 1000), "empty": (0, 3), "second": (1000, 701)}
SMAPS = Path("/proc/self/smaps")


@pytest.fixture
def tensors() -> dict[str, StoredTensor]:
    """Tensors in float16, most of which begin and end within a page."""
    random = np.random.default_rng(0)
    return {
        name: StoredTensor("float16", random.standard_normal(shape, np.float32).astype(np.float16))
        for name, shape in SHAPES.items()
    }


def resident(file: Path) -> int:
    """How many bytes of a mapped file are in this process's memory."""
    parts = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", SMAPS.read_text("utf-8"), flags=re.MULTILINE)
    sizes = [re.search(r"^Rss: +(\d+) kB", part, re.MULTILINE) for part in parts if str(file) in part]
    return sum(int(size[1]) * 1024 for size in sizes if size)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_forgotten_pages_are_read_again(suffix: str, tensors: dict[str, StoredTensor], tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".safetensors":
        save_safetensors(path, tensors)
        read = read_safetensors(path)
    else:
        save_torch_zip(path, tensors)
        read = read_torch_zip(path)
    for _ in range(2):
        for name, tensor in tensors.items():
            assert np.array_equal(read[name].data, tensor.data)
        before = resident(path) if SMAPS.exists() else 0
        for tensor in read.values():
            tensor.forget_pages()
        if SMAPS.exists():
            size = sum(tensor.data.nbytes for tensor in tensors.values())
            assert before >= size
            assert resident(path) <= before - size + 3 * len(tensors) * mmap.PAGESIZE
    for name, tensor in tensors.items():
        assert np.array_equal(read[name].data, tensor.data)


def test_a_part_of_a_tensor(tensors: dict[str, StoredTensor], tmp_path: Path) -> None:
    save_safetensors(tmp_path / "model.safetensors", tensors)
    whole = read_safetensors(tmp_path / "model.safetensors")["first"].data
    for part in (whole[3:], whole[:, 5:600], whole[::2], whole.T, whole[:1, :1], whole[::-1]):
        StoredTensor("float16", part).forget_pages()
        assert np.array_equal(whole, tensors["first"].data)


def test_what_is_not_mapped_stays(tensors: dict[str, StoredTensor]) -> None:
    before = tensors["first"].data.copy()
    tensors["first"].forget_pages()
    StoredTensor("float16", before[::-1]).forget_pages()
    StoredTensor("float16", np.frombuffer(bytearray(1 << 16), np.float16)).forget_pages()
    assert np.array_equal(tensors["first"].data, before)
