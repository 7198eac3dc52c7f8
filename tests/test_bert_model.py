"""BertModel: what it accepts, and that packing changes nothing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import BertModel, CheckpointError, GteError, InputError, MissingDependencyError, TokenBatch
from gte_np.architectures.config import read_config
from gte_np.architectures.weights import read_weights
from gte_np.encoder_interface import EncoderInput
from tests.checkpoints import write_weights
from tests.compiled import same_bits

IDS = np.array([[2, 9, 17, 3], [2, 11, 3, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])


@pytest.fixture(scope="module")
def bert(small_folder: Path) -> BertModel:
    return BertModel.from_pretrained(small_folder)


def test_padding_is_zeros_and_changes_nothing_else(bert: BertModel) -> None:
    output = bert(IDS, MASK)
    assert output.last_hidden_state.shape == (2, 4, 32)
    assert output.last_hidden_state.dtype == np.float32
    assert not output.last_hidden_state[1, 3].any()
    alone = bert(IDS[1:, :3]).last_hidden_state[0]
    assert np.abs(output.last_hidden_state[1, :3] - alone).max() < 1e-6


def test_a_folder_may_be_a_string(bert: BertModel, small_folder: Path) -> None:
    assert same_bits(BertModel.from_folder(str(small_folder))(IDS).pooler_output, bert(IDS).pooler_output)


@pytest.mark.parametrize(("layer", "hidden", "error", "message"), [
    (2, np.zeros((3, 32), np.float32), InputError, "layer .* 0 to 1, got 2"),
    (0.0, np.zeros((3, 32), np.float32), TypeError, "layer"),
    (0, np.zeros((4, 32), np.float32), InputError, r"of the tokens of this batch, \(3, 32\), got \(4, 32\)"),
    (0, np.zeros((3, 32)), TypeError, "float32 array, got float64"),
    (0, [[0.0]], TypeError, "float32 array, got list"),
])  # fmt: skip
def test_attention_checks_its_arguments(
    bert: BertModel, layer: Any, hidden: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bert.attention(layer, hidden, TokenBatch.from_ids([[2, 9, 3]]))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_token_batch_gives_padded_output(small_folder: Path, backend: str) -> None:
    bert = BertModel.from_pretrained(small_folder, backend=backend)
    batch = TokenBatch.from_ids([[2, 9, 17, 3], [2, 11, 3]])
    assert batch.attention_mask.tolist() == MASK.tolist()
    ours, padded = (
        bert(*arguments, output_hidden_states=True, output_attentions=True) for arguments in ((batch,), (IDS, MASK))
    )
    assert np.array_equal(ours.last_hidden_state, padded.last_hidden_state)
    assert ours.pooler_output is not None
    assert padded.pooler_output is not None
    assert np.array_equal(ours.pooler_output, padded.pooler_output)
    assert np.array_equal(np.stack(ours.hidden_states or ()), np.stack(padded.hidden_states or ()))
    assert np.array_equal(np.stack(ours.attentions or ()), np.stack(padded.attentions or ()))


def test_a_token_batch_is_padded_at_the_end(bert: BertModel) -> None:
    padded = TokenBatch.from_padded([[0, 2, 9, 3], [2, 11, 17, 3]], [[0, 1, 1, 1], [1] * 4], [[0] * 4] * 2)
    assert padded.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    output = bert(padded).last_hidden_state
    assert output[0, 0].any()
    assert not output[0, 3].any()
    assert bert(TokenBatch.from_ids([])).last_hidden_state.shape == (0, 0, 32)


def test_a_token_batch_comes_alone(bert: BertModel) -> None:
    batch = TokenBatch.from_ids(IDS.tolist())
    for mask, types in ((MASK, None), (None, MASK)):
        with pytest.raises(InputError, match="a TokenBatch alone"):
            bert(batch, mask, types)


def test_the_mask_and_types_have_defaults(bert: BertModel) -> None:
    output = bert(IDS.tolist())
    assert np.array_equal(output.last_hidden_state, bert(IDS, np.ones_like(IDS)).last_hidden_state)
    assert output.hidden_states is None
    assert output.attentions is None


def test_the_output_has_numbers_too(bert: BertModel) -> None:
    output = bert(IDS)
    assert output[0] is output.last_hidden_state
    assert output[1] is output["pooler_output"]


def test_packed_ids_are_checked(bert: BertModel) -> None:
    for ids, message in (
        ([[200]], "from 0 to 199, got 200"),
        ([[1] * 65], "at most 64"),
    ):
        with pytest.raises(InputError, match=message):
            bert.encode_batch(TokenBatch.from_ids(ids))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([0, 4], InputError, "rows from 0 to 3, got 0 to 4"),
        ([-1], InputError, "rows from 0 to 3, got -1"),
        ([2**32], InputError, "rows from 0 to 3, got 4294967296"),
        ([1, 1], InputError, "ascending order, each of them once"),
        ([2, 1], InputError, "ascending order"),
        ([[0], [1]], InputError, "ascending order"),
        ([0.0], TypeError, "rows to be integers"),
    ],
)
def test_wrong_rows(small_folder: Path, backend: str, rows: Any, error: type[Exception], message: str) -> None:
    bert = BertModel.from_pretrained(small_folder, backend=backend)
    with pytest.raises(error, match=message):
        bert.encode_batch(TokenBatch.from_ids([[2, 9], [2, 3]]), rows=rows)


def test_rows_or_layers(bert: BertModel) -> None:
    batch = TokenBatch.from_ids([[2, 9], [2, 3]])
    with pytest.raises(InputError, match="either rows or keep_layers"):
        bert.encode_batch(batch, rows=[0], keep_layers=True)
    with pytest.raises(TypeError, match="expected a TokenBatch, got list"):
        bert.encode_batch([[2, 9]])  # type: ignore[arg-type]


def test_token_types_count(bert: BertModel) -> None:
    other = bert(IDS, MASK, np.array([[0, 0, 1, 1], [0, 1, 1, 0]])).last_hidden_state
    assert np.abs(other - bert(IDS, MASK).last_hidden_state).max() > 0.01


def test_hidden_states_and_attentions_on_request(bert: BertModel) -> None:
    output = bert(IDS, MASK, output_hidden_states=True, output_attentions=True)
    assert output.hidden_states is not None
    assert output.attentions is not None
    assert len(output.hidden_states) == 3
    assert np.array_equal(output.hidden_states[-1], output.last_hidden_state)
    assert output.attentions[0].shape == (2, 4, 4, 4)
    assert output.attentions[0][1, :, :3, :3].sum(axis=-1) == pytest.approx(1, abs=1e-6)
    assert not output.attentions[0][1, :, :, 3].any()


def test_a_checkpoint_without_pooler(folder: Path) -> None:
    write_weights(folder, pooler=False)
    assert BertModel.from_pretrained(folder)(IDS).pooler_output is None


def test_no_texts(bert: BertModel) -> None:
    output = bert(np.zeros((0, 4), int), output_attentions=True)
    assert output.last_hidden_state.shape == (0, 4, 32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((IDS * 100,), InputError, "input_ids from 0 to 199, got 0 to 1700"),
        ((IDS - 1,), InputError, "input_ids from 0 to 2147483647, got -1 to 16"),
        ((IDS, MASK, MASK * 2), InputError, "token_type_ids from 0 to 1"),
        ((IDS[0],), InputError, r"expected input_ids to be \(B, T\), got shape \(4,\)"),
        ((IDS, MASK[:1]), InputError, "of the shape of input_ids"),
        ((IDS, MASK * 2), InputError, "1 for a token and 0 for padding"),
        (([[2**32 + 101, 102]],), InputError, "got 102 to 4294967397"),
        ((IDS, MASK, MASK + 2**32), InputError, "token_type_ids from 0 to 2147483647, got 4294967297"),
        ((IDS, MASK + 2**32), InputError, "1 for a token and 0 for padding"),
        ((np.full((1, 2), 2**64 - 1, np.uint64),), InputError, "got 18446744073709551615"),
        ((np.zeros((1, 65), int),), InputError, "at most 64 tokens, got 65"),
        (([[1, 2], [3]],), InputError, "rows of several lengths"),
        ((IDS, [[0, 0, 0, 0], [1, 1, 1, 0]]), InputError, "only padding"),
        ((np.zeros((2, 0), int),), InputError, "only padding"),
        ((IDS * 1.0,), TypeError, "input_ids to be integers, got float64"),
        ((["a b"],), TypeError, "integers"),
        ((None,), TypeError, "integers, got object"),
    ],
)
def test_wrong_input(bert: BertModel, arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bert(*arguments)


def test_backends_by_name(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numpy, numba, auto = (
        BertModel.from_pretrained(small_folder, backend=name) for name in ("numpy", "numba", "auto")
    )
    assert type(numpy._encoder).__name__ == "ReferenceEncoder"
    assert type(numba._encoder).__name__ == type(auto._encoder).__name__ == "KernelEncoder"
    with pytest.raises(InputError, match="one of auto, numpy, numba, got 'torch'"):
        BertModel.from_pretrained(small_folder, backend="torch")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    with pytest.raises(MissingDependencyError, match="NUMBA_DISABLE_JIT; unset it") as caught:
        BertModel.from_pretrained(small_folder, backend="numba")
    assert isinstance(caught.value, GteError)
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": "float16"}, InputError, "dtype to be one of float32"),
        ({"threads": 0}, InputError, "at least 1"),
        ({"threads": "two"}, TypeError, "threads to be an int"),
        ({"threads": True}, TypeError, "threads to be an int"),
    ],
)
def test_wrong_options(small_folder: Path, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BertModel.from_pretrained(small_folder, **options)


def test_threads_are_told_of(small_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    BertModel.from_pretrained(small_folder, backend="numpy", threads=2)
    assert "OPENBLAS_NUM_THREADS" in caplog.text


def test_the_reference_never_imports_numba(small_folder: Path) -> None:
    program = (
        "import sys, gte_np; gte_np.BertModel.from_pretrained(sys.argv[1], backend='numpy')([[2, 3]]);"
        "assert 'numba' not in sys.modules and 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(small_folder)], check=True)


def test_a_text_does_not_see_its_neighbours(bert: BertModel) -> None:
    ids = [[2, 9, 17, 3], [2], [2, 40, 41, 42, 43, 44, 3]]
    packed = bert.encode_batch(TokenBatch.from_ids(ids)).last_hidden_state
    alone = [bert.encode_batch(TokenBatch.from_ids([text])).last_hidden_state for text in ids]
    assert np.abs(packed - np.concatenate(alone)).max() < 2e-6


@pytest.mark.parametrize("name", ["config", "dtype"])
def test_what_was_loaded_is_not_set(bert: BertModel, name: str) -> None:
    with pytest.raises(AttributeError, match=f"{name} comes from the model's files and cannot be set"):
        setattr(bert, name, getattr(bert, name))


@pytest.mark.parametrize("change", [{"max_position_embeddings": 65}, {"vocab_size": 201}, {"num_hidden_layers": 3}])
def test_weights_of_other_sizes(small_folder: Path, change: dict[str, Any]) -> None:
    config = read_config(small_folder)
    weights = read_weights(small_folder, config)
    BertModel(config, weights)
    with pytest.raises(CheckpointError, match="the weights: expected the tensors of a BERT encoder"):
        BertModel(replace(config, **change), weights)
    with pytest.raises(CheckpointError, match="num_attention_heads to divide hidden_size, got 3 heads"):
        replace(config, num_attention_heads=3)


def test_an_input_for_another_encoder(bert: BertModel) -> None:
    inputs = EncoderInput(TokenBatch.from_ids([[2, 900, 3]]), replace(bert.config, vocab_size=1000))
    with pytest.raises(InputError, match="checked against this encoder's sizes"):
        bert._encoder(inputs)
