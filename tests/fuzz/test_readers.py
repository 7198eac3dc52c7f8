"""What Hypothesis makes of the files of a model: each reader gives tensors or settings, or a GteError."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gte_np import GteError, Tokenizer
from gte_np.architectures.config import read_config
from gte_np.checkpoint.safetensors import read_safetensors
from gte_np.checkpoint.torch_zip import read_torch_zip
from gte_np.formats.stored_tensor import NUMPY_DTYPES, StoredTensor
from gte_np.sentence_config import read_sentence_config
from tests.fuzz.damage import damaged_file
from tests.fuzz.models import files_of, write_changed, write_published
from tests.torch_pickle import integers, program, state_dict, storage, tensor, zipped

Reader = Callable[[Path], dict[str, StoredTensor]]
RANDOMS = st.randoms(use_true_random=False)


def read(reader: Reader, content: bytes, suffix: str) -> None:
    """Read a file; what is read must be readable to its last byte."""
    with tempfile.TemporaryDirectory() as folder, suppress(GteError):
        path = Path(folder, f"model{suffix}")
        path.write_bytes(content)
        for stored in reader(path).values():
            assert stored.data.dtype == NUMPY_DTYPES[stored.dtype]
            assert stored.data.nbytes <= len(content)
            stored.data.copy()


# --- weights ------------------------------------------------------------------------------------------------------

NUMBERS = st.integers() | st.sampled_from([-1, 0, 1, 2, 3, 6, 7, 2**31, 2**61, 2**62, 2**63 - 1, 2**63, 2**64])
FEW_NUMBERS = st.lists(NUMBERS, max_size=4)
HEADER = st.dictionaries(
    st.text(max_size=5) | st.just("__metadata__"),
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "BOOL", "U8", "F8_E4M3", "C64", "f32", ""]),
            "shape": st.lists(st.integers(0, 4), max_size=4) | FEW_NUMBERS,
            "data_offsets": st.lists(st.integers(0, 64), min_size=2, max_size=2).map(sorted) | FEW_NUMBERS,
        }
    ),
    max_size=3,
)


@given(HEADER, st.integers(0, 64), st.integers(-1, 1))
@example({"a": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}, 64, 0)
@example({"a": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}}, 0, 0)
def test_headers_of_safetensors(header: dict[str, Any], size: int, wrong: int) -> None:
    text = json.dumps(header).encode()
    read(read_safetensors, max(0, len(text) + wrong).to_bytes(8, "little") + text + bytes(size), ".safetensors")


@given(FEW_NUMBERS, FEW_NUMBERS, NUMBERS, NUMBERS)
@example([2, 3], [3, 1], 0, 6)
@example([1, 2], [2**62, 1], 0, 6)
@example([0], [2**70], 0, 6)
def test_tensors_of_torch(sizes: list[int], strides: list[int], start: int, count: int) -> None:
    value = state_dict(weight=tensor(tuple(sizes), tuple(strides), start, storage(count=count)))
    read(read_torch_zip, zipped({"m/data.pkl": program(value), "m/data/0": bytes(24)}), ".bin")


# Pieces of a pickle that lays out tensors, in any order.
PIECES = st.sampled_from(
    [*(bytes([code]) for code in b"()tRQsub}.0120aeNcq"), storage(), tensor(), integers((1, 2)), state_dict()]
) | st.binary(max_size=4)


@given(st.lists(PIECES, max_size=30))
def test_programs_of_torch(pieces: list[bytes]) -> None:
    read(read_torch_zip, zipped({"m/data.pkl": program(b"".join(pieces)), "m/data/0": bytes(24)}), ".bin")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(tmp_path_factory.mktemp("published"))


@given(RANDOMS)
def test_damaged_safetensors(published: Path, random: Random) -> None:
    content = (published / "2_Dense" / "model.safetensors").read_bytes()
    read(read_safetensors, damaged_file(random, "a.safetensors", content), ".safetensors")


@given(RANDOMS)
def test_damaged_torch_zips(random: Random) -> None:
    content = zipped({"m/data.pkl": program(state_dict(weight=tensor())), "m/data/0": bytes(24), "m/version": b"3\n"})
    read(read_torch_zip, damaged_file(random, "a.bin", content), ".bin")


# --- settings -----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
SETTINGS = (
    *("config.json", "modules.json", "1_Pooling/config.json", "2_Dense/config.json", "sentence_bert_config.json"),
    *("config_sentence_transformers.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    "added_tokens.json",
)


def read_settings(folder: Path) -> None:
    """Read all files but the weights."""
    for reader in (read_config, read_sentence_config, Tokenizer.from_folder):
        with suppress(GteError):
            reader(folder)


def paths(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each (object or list, key) in JSON, of a large one only the first few."""
    keys = list(value)[:30] if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        yield value, key
        yield from paths(value[key])


@pytest.mark.parametrize("name", SETTINGS)
@given(value=JSON, number=st.integers(-1, 60))
@example(value={"model": {"type": []}}, number=-1)  # a type that no table can be asked for
def test_any_value_anywhere(published: Path, name: str, value: Any, number: int) -> None:
    content = json.loads((published / name).read_bytes())
    found = list(paths(content))
    if 0 <= number < len(found):
        container, key = found[number]
        container[key] = value
    else:
        content = value
    with tempfile.TemporaryDirectory() as folder:
        read_settings(write_changed(Path(folder, "model"), published, {name: json.dumps(content).encode()}))


@given(RANDOMS)
def test_damaged_settings(published: Path, random: Random) -> None:
    files = files_of(published)
    name = random.choice((*SETTINGS, "vocab.txt"))
    with tempfile.TemporaryDirectory() as folder:
        changes = {name: damaged_file(random, name, files[name])}
        read_settings(write_changed(Path(folder, "model"), published, changes))


def test_what_is_read_undamaged(published: Path) -> None:
    """The tests above would show nothing if all were refused."""
    assert read_config(published).hidden_size == 32
    assert np.shape(read_sentence_config(published).modules[0].weight) == (45, 32)  # type: ignore[union-attr]
    assert Tokenizer.from_folder(published).pad_token_id == 0
