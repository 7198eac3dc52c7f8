"""The compiled encoder as a whole: its weights, against the reference, and to the last bit against itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import BertModel, EmbeddingModel, TokenBatch
from gte_np.architectures.config import BertConfig, read_config
from gte_np.architectures.tensors import WORDS
from gte_np.architectures.weights import BertWeights, Tensor, read_weights, stored_precision
from gte_np.formats import FORMATS, FormattedMatrix, WeightFormat, choose_format
from gte_np.formats.float_formats import FLOAT32
from gte_np.formats.stored_tensor import FLOAT_DTYPES, NUMPY_DTYPES, StoredTensor
from gte_np.kernels.runtime.feature_order import natural_order
from gte_np.kernels.runtime.kernel_encoder import KernelEncoder
from gte_np.kernels.runtime.packed_weights import LINEARS, PackedNorm, PackedWeights
from gte_np.kernels.targets import Target
from gte_np.reference import ReferenceEncoder
from gte_np.reference.attention import self_attention
from tests.checkpoints import random_tensors, save_safetensors, to_stored, write_config, write_weights
from tests.compiled import same_bits
from tests.samples import TOLERANCES
from tests.texts import ORDINARY, of_length

Ids = list[list[int]]


def loaded(folder: Path) -> tuple[BertConfig, BertWeights]:
    """What an encoder is made of."""
    config = read_config(folder)
    return config, read_weights(folder, config)


def write_shape(folder: Path, shape: tuple[int, int, int], dtype: str = "float32", **config: int) -> Path:
    """Write a checkpoint of a hidden size, heads and an inner size."""
    sizes = dict(zip(("hidden_size", "num_attention_heads", "intermediate_size"), shape, strict=True))
    write_config(folder, **(sizes | config))
    write_weights(folder, dtype=dtype)
    return folder


# --- packed weights -----------------------------------------------------------------------------------------------

PACKED_SHAPES = [(52, 2, 40), (64, 2, 96), (128, 2, 41)]  # head sizes 26, 32 and 64


def words_of(packed: PackedWeights, layer: int, name: str) -> Any:
    """A packed matrix, padded as it is, in the dtype in which it is stored: (out, in)."""
    linear, panel = packed.layers[layer].linears[name], packed.sizes.panel
    _, width = packed.sizes.matrices[name]
    panels = packed.matrices[linear.start : linear.start + linear.steps * width].reshape(-1, linear.steps, panel)
    if packed.is_ordered:
        panels = natural_order(panels, linear.constants[:, packed.format.constant_rows(0) :])
    words = np.ascontiguousarray(panels.transpose(0, 2, 1)).reshape(width, linear.steps)
    return words.view(NUMPY_DTYPES[packed.format.stored])


def constants_of(packed: PackedWeights, layer: int, name: str) -> Any:
    """A packed matrix's constants, padded as they are: (constant rows, out)."""
    linear, rows = packed.layers[layer].linears[name], packed.format.constant_rows(0)
    return linear.constants[:, :rows].transpose(1, 0, 2).reshape(rows, len(linear.bias))


def assert_holds(array: Any, expected: Any) -> None:
    """Fail unless the array is what is expected, padded with zeros."""
    inside = tuple(slice(size) for size in expected.shape)
    assert array.dtype == expected.dtype
    assert np.array_equal(array[inside], expected)
    assert np.count_nonzero(array) == np.count_nonzero(expected)


def assert_packed(packed: PackedWeights, config: BertConfig, weights: BertWeights) -> None:
    """Fail unless all weights are where they belong, to the last bit, among zeros."""
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    width, rows = packed.sizes.head_width, packed.format.constant_rows(config.hidden_size)

    def published(name: str) -> tuple[Any, Any, Any]:
        """The matrix, the constants and the bias of a linear layer."""
        parts = packed.format.of(weights.layers[layer][f"{name}.weight"]).parts
        bias = weights.layers[layer][f"{name}.bias"].to_float32()
        return parts[""].data, packed.format.constants(parts), bias

    for layer, packed_layer in enumerate(packed.layers):
        inputs = words_of(packed, layer, "qkv").reshape(3, heads, width, -1)
        constants = constants_of(packed, layer, "qkv").reshape(rows, 3, heads, width)
        biases = packed_layer.linears["qkv"].bias.reshape(3, heads, width)
        for number, part in enumerate(("query", "key", "value")):
            matrix, their_constants, bias = published(f"attention.self.{part}")
            assert_holds(inputs[number], matrix.reshape(heads, size, -1))
            assert_holds(constants[:, number], their_constants.reshape(rows, heads, size))
            assert_holds(biases[number], bias.reshape(heads, size))
        output = words_of(packed, layer, "attention_output").reshape(-1, heads, width)
        assert_holds(output, published("attention.output.dense")[0].reshape(-1, heads, size))
        for field, name in (("intermediate", "intermediate.dense"), ("output", "output.dense")):
            assert_holds(words_of(packed, layer, field), published(name)[0])
        for field, name in (
            ("attention_output", "attention.output.dense"),
            ("intermediate", "intermediate.dense"),
            ("output", "output.dense"),
        ):
            assert_holds(constants_of(packed, layer, field), published(name)[1])
            assert_holds(packed_layer.linears[field].bias, published(name)[2])
        for field, name in (("attention_norm", "attention.output.LayerNorm"), ("output_norm", "output.LayerNorm")):
            assert_norm_is_packed(packed_layer.norms[field], weights.layers[layer], name)
    assert_embeddings_are_packed(packed, weights)


def assert_norm_is_packed(norm: PackedNorm, tensors: Mapping[str, Tensor], name: str) -> None:
    """Fail unless a layer norm is as published, padded with zeros."""
    assert_holds(norm.weight, tensors[f"{name}.weight"].to_float32())
    assert_holds(norm.bias, tensors[f"{name}.bias"].to_float32())


def assert_embeddings_are_packed(packed: PackedWeights, weights: BertWeights) -> None:
    """Fail unless the tables and the first layer norm are as published, in padded rows."""
    assert_same_tensor(packed.words, packed.format.of(weights.embeddings[WORDS]))
    for table, name in ((packed.token_types, "token_type_embeddings"), (packed.positions, "position_embeddings")):
        assert_holds(table, weights.embeddings[f"embeddings.{name}.weight"].to_float32())
    assert_norm_is_packed(packed.embedding_norm, weights.embeddings, "embeddings.LayerNorm")


def assert_same_tensor(tensor: Any, expected: Any) -> None:
    """Fail unless two arrays, or the parts of two matrices, are the same to the last bit."""
    if isinstance(expected, FormattedMatrix):
        assert tensor.format is expected.format
        assert tensor.parts.keys() == expected.parts.keys()
        for suffix, part in expected.parts.items():
            assert tensor.parts[suffix].dtype == part.dtype
            assert same_bits(tensor.parts[suffix].data, part.data)
    else:
        assert same_bits(tensor, expected)


def packed_for(
    config: BertConfig, weights: BertWeights, weight_format: WeightFormat, target: Target
) -> PackedWeights:
    """The weights, packed by two threads."""
    packed = PackedWeights(config, weights, weight_format, target)
    packed.load(weights, threads=2)
    return packed


def format_for(dtype: str, weights: BertWeights) -> WeightFormat:
    """The format that a model of a dtype has."""
    return choose_format(dtype, stored_precision(weights))


@pytest.mark.parametrize("shape", PACKED_SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_are_packed_in_the_precision_of_the_checkpoint(
    shape: tuple[int, int, int], dtype: str, target_of_width: Target, tmp_path: Path
) -> None:
    config, weights = loaded(write_shape(tmp_path, shape, dtype))
    packed = packed_for(config, weights, format_for("float32", weights), target_of_width)
    assert packed.format.stored == dtype
    assert packed.format.dtype == "float32"
    assert_packed(packed, config, weights)


@pytest.mark.parametrize("shape", PACKED_SHAPES)
@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_weights_are_packed_in_fewer_bits(
    shape: tuple[int, int, int], stored: str, dtype: str, target_of_width: Target, tmp_path: Path
) -> None:
    config, weights = loaded(write_shape(tmp_path, shape, stored))
    packed = packed_for(config, weights, format_for(dtype, weights), target_of_width)
    assert packed.format.dtype == dtype
    assert_packed(packed, config, weights)


@pytest.mark.parametrize("shape", PACKED_SHAPES)
def test_weights_of_several_precisions_are_packed_in_float32(
    shape: tuple[int, int, int], target_of_width: Target, tmp_path: Path
) -> None:
    write_shape(tmp_path, shape)
    tensors = random_tensors(tmp_path)
    kinds = ("float16", "bfloat16", "float32")
    mixed = {name: to_stored(tensors[name].data, kinds[number % 3]) for number, name in enumerate(tensors)}
    save_safetensors(tmp_path / "model.safetensors", mixed)
    config, weights = loaded(tmp_path)
    packed = packed_for(config, weights, format_for("float32", weights), target_of_width)
    assert packed.format is FLOAT32
    assert_packed(packed, config, weights)


def by_columns(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with their columns one behind the other in memory."""
    return {
        name: StoredTensor(tensor.dtype, np.asfortranarray(tensor.data))
        for name, tensor in tensors.items()
        if isinstance(tensor, StoredTensor)
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_weights_that_lie_by_columns_are_packed_too(dtype: str, target_of_width: Target, tmp_path: Path) -> None:
    config, weights = loaded(write_shape(tmp_path, PACKED_SHAPES[0], "float16"))
    turned = replace(
        weights,
        embeddings=by_columns(weights.embeddings),
        layers=tuple(by_columns(layer) for layer in weights.layers),
    )
    packed = packed_for(config, turned, format_for(dtype, weights), target_of_width)
    assert_packed(packed, config, weights)


@pytest.mark.parametrize("shape", PACKED_SHAPES)
@pytest.mark.parametrize("weight_format", FORMATS, ids=lambda weight_format: weight_format.name)
def test_unpacked_weights_are_the_published_ones(
    shape: tuple[int, int, int], weight_format: WeightFormat, target_of_width: Target, tmp_path: Path
) -> None:
    stored = weight_format.stored if weight_format.stored in FLOAT_DTYPES else "float32"
    config, weights = loaded(write_shape(tmp_path, shape, stored))
    packed = packed_for(config, weights, weight_format, target_of_width)
    for layer, tensors in enumerate(weights.layers):
        unpacked = {key: value for name in LINEARS for key, value in packed.unpacked(layer, name).items()}
        assert unpacked.keys() == {name for name in tensors if "LayerNorm" not in name}
        for name, tensor in unpacked.items():
            published = tensors[name]
            expected = weight_format.of(published) if len(published.shape) == 2 else published.to_float32()
            assert_same_tensor(tensor, expected)


# --- against the reference ----------------------------------------------------------------------------------------

SHAPES = {  # (D, H, F) and the precision of the weights; head sizes 26, 32, 80, 64, 8
    (312, 12, 1200): "float32",
    (64, 2, 80): "float16",
    (160, 2, 48): "bfloat16",
    (256, 4, 1000): "float16",
    (32, 4, 48): "float32",
}
LENGTHS = {
    "one text of one token": [1],
    "all lengths to 40": [*range(40, 20, -1), *range(1, 21)],
    "a long text among short ones": [3] * 50 + [512] + [3] * 50,
    "about vectors and tiles": [1, 2, 5, 6, 7, 11, 12, 13, 14, 15, 16, 17, 27, 28, 29, 31, 32, 33, 34],
}


def batch_of(lengths: list[int], seed: int = 0) -> TokenBatch:
    """Random token ids and types of texts of these lengths."""
    random = np.random.default_rng(seed)
    batch = TokenBatch.from_ids([random.integers(0, 200, length).tolist() for length in lengths])
    return replace(batch, token_type_ids=random.integers(0, 2, batch.input_ids.shape, dtype=np.int32))


class Encoders:
    """The reference, and kernels in one thread and in two, with the same weights and linear layers in a dtype."""

    def __init__(self, folder: Path, dtype: str) -> None:
        config, weights = loaded(folder)
        self.dtype = dtype
        self.reference = BertModel(config, weights, backend="numpy", dtype=dtype)
        self.kernels = [
            BertModel(config, weights, backend="numba", dtype=dtype, threads=threads) for threads in (1, 2)
        ]
        assert isinstance(self.reference._encoder, ReferenceEncoder)
        self.layers = self.reference._encoder.layers
        assert all(isinstance(model._encoder, KernelEncoder) for model in self.kernels)


@pytest.fixture(
    scope="module",
    params=[(*item, dtype) for dtype in TOLERANCES for item in SHAPES.items()],
    ids=lambda param: "-".join(map(str, (*param[0], param[2]))),
)
def encoders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoders:
    """Encoders of each shape in each dtype."""
    shape, stored, dtype = request.param
    folder = write_shape(tmp_path_factory.mktemp("shape"), shape, stored, max_position_embeddings=512)
    return Encoders(folder, dtype)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_states_of_every_layer_are_those_of_the_reference(encoders: Encoders, lengths: list[int]) -> None:
    batch = batch_of(lengths)
    expected = encoders.reference.encode_batch(batch, keep_layers=True)
    outputs = [model.encode_batch(batch, keep_layers=True) for model in encoders.kernels]
    for output in outputs:
        assert output.last_hidden_state.dtype == np.float32
        assert len(output.hidden_states or []) == len(expected.hidden_states or []) == 3
        for layer, theirs in zip(output.hidden_states or [], expected.hidden_states or [], strict=True):
            assert layer.shape == theirs.shape
            assert np.abs(layer - theirs).max() <= TOLERANCES[encoders.dtype]
        assert same_bits(np.stack(output.hidden_states or []), np.stack(outputs[0].hidden_states or []))
        assert same_bits((output.hidden_states or [])[-1], output.last_hidden_state)


def test_attention_is_that_of_the_reference(encoders: Encoders) -> None:
    """What each layer's attention was when its hidden states were computed, from the states before it."""
    batch = batch_of([512, 3, 1])
    states = encoders.reference.encode_batch(batch, keep_layers=True).hidden_states or []
    prepared = encoders.layers
    for number, (hidden, weights) in enumerate(zip(states, prepared, strict=False)):
        _, expected = self_attention(hidden, batch, weights, encoders.reference.config.num_attention_heads)
        for model in (encoders.reference, *encoders.kernels):
            found = model.attention(number, hidden, batch)
            for probabilities, their_probabilities in zip(found, expected, strict=True):
                assert probabilities.shape == their_probabilities.shape
                assert np.abs(probabilities - their_probabilities).max() <= TOLERANCES[encoders.dtype]


def rows_to_want(batch: TokenBatch) -> Iterator[Any]:
    """Numbers of some tokens: the first and the last ones, both, those of some texts, a random half, one, all."""
    first, last = batch.offsets[:-1], batch.offsets[1:] - 1
    count = len(batch.input_ids)
    yield from (first, last, np.union1d(first, last), first[::3], first[-1:], last[:1], np.arange(count))
    yield np.flatnonzero(np.random.default_rng(1).integers(0, 2, count))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_wanted_rows_are_those_of_all_to_the_last_bit(encoders: Encoders, lengths: list[int]) -> None:
    batch = batch_of(lengths)
    for model in encoders.kernels:
        every = model.encode_batch(batch).last_hidden_state
        for rows in rows_to_want(batch):
            assert same_bits(model.encode_batch(batch, rows=rows).last_hidden_state, every[rows])


def spoil_memory(model: BertModel) -> None:
    """Fill the memory that the kernels work in with NaN, where a run left other numbers."""
    encoder = model._encoder
    assert isinstance(encoder, KernelEncoder)
    assert encoder._idle
    for workspace in encoder._idle:
        workspace._memory.fill(np.nan)


def test_what_memory_held_before_has_no_influence(encoders: Encoders) -> None:
    for lengths in LENGTHS.values():
        batch = batch_of(lengths)
        rows = batch.offsets[:-1]
        for model in encoders.kernels:
            every = model.encode_batch(batch).last_hidden_state
            spoil_memory(model)
            assert same_bits(model.encode_batch(batch).last_hidden_state, every)
            spoil_memory(model)
            assert same_bits(model.encode_batch(batch, rows=rows).last_hidden_state, every[rows])


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_no_texts(small_folder: Path, threads: int) -> None:
    model = BertModel.from_folder(small_folder, backend="numba", threads=threads)
    output = model.encode_batch(TokenBatch.from_ids([]), keep_layers=True)
    assert output.last_hidden_state.shape == (0, 32)
    assert np.stack(output.hidden_states or []).shape == (3, 0, 32)


# --- every bit depends on the text alone --------------------------------------------------------------------------

TEXTS = 40


class Alone:
    """Random texts, and models of several numbers of threads; `states` has what each text gives by itself."""

    def __init__(self, folder: Path, dtype: str) -> None:
        config, weights = loaded(folder)
        self.models = {
            threads: BertModel(config, weights, backend="numba", dtype=dtype, threads=threads)
            for threads in (1, 2, 4)
        }
        random = np.random.default_rng(0)
        self.ids = [random.integers(0, 200, int(random.integers(1, 65))).tolist() for _ in range(TEXTS)]
        self.states = [self.encode(self.models[1], [text]) for text in range(TEXTS)]

    def encode(self, model: BertModel, texts: Any, first_only: bool = False) -> Any:
        """Hidden states of some of the texts in one batch: of all tokens, or of the first of each."""
        batch = TokenBatch.from_ids([self.ids[text] for text in texts])
        return model.encode_batch(batch, rows=batch.offsets[:-1] if first_only else None).last_hidden_state

    def same_in_random_batches(self, model: BertModel, seed: int, *, first_only: bool) -> bool:
        """Whether all texts, in random order and cut into random batches, give what each gives alone."""
        random = np.random.default_rng(seed)
        order = random.permutation(TEXTS)
        cuts = random.choice(np.arange(1, TEXTS), size=random.integers(0, 6), replace=False)
        return all(
            same_bits(self.encode(model, texts, first_only), self.expected(texts, first_only))
            for texts in np.split(order, np.sort(cuts))
        )

    def expected(self, texts: Any, first_only: bool) -> Any:
        """What `encode` should give, from each text alone."""
        return np.concatenate([self.states[text][:1] if first_only else self.states[text] for text in texts])


@pytest.fixture(scope="module", params=TOLERANCES)
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Texts and models; weights of 16 bits, which are widened for many tokens only, or in fewer."""
    return Alone(write_shape(tmp_path_factory.mktemp("alone"), (64, 2, 80), "float16"), request.param)


def is_same(alone: Alone, seed: int) -> bool:
    """Whether random batches, of all tokens or the first ones, with 1, 2 or 4 threads, have the bits of each text."""
    return alone.same_in_random_batches(alone.models[(1, 2, 4)[seed % 3]], seed, first_only=seed % 4 == 0)


def test_a_thousand_random_batchings_change_no_bit(alone: Alone) -> None:
    for seed in range(1000):
        assert is_same(alone, seed), seed


def test_eight_callers_at_once_change_no_bit(alone: Alone) -> None:
    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(partial(is_same, alone), range(400)))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_vectors_do_not_depend_on_order_and_batch_size(small_folder: Path, threads: int) -> None:
    model = EmbeddingModel(small_folder, backend="numba", threads=threads)
    texts = [*ORDINARY, *(of_length(words, seed=words) for words in range(1, 30))]
    each = np.stack([model.encode(text) for text in texts])
    random = np.random.default_rng(threads)
    for batch_size in (1, 2, 3, 7, 32, 1000):
        order = random.permutation(len(texts))
        assert same_bits(model.encode([texts[text] for text in order], batch_size=batch_size), each[order])
