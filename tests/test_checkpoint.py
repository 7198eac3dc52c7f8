"""Files of a checkpoint: every form that is published is read, everything else is refused with one error."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import CheckpointError, EmbeddingModel, GteError, ModelNotFoundError, UnsupportedModelError
from gte_np.architectures.config import read_config
from gte_np.architectures.tensors import expected_shapes
from gte_np.architectures.weights import BertWeights, is_finite, read_weights
from gte_np.checkpoint.safetensors import read_safetensors
from gte_np.formats.stored_tensor import StoredTensor
from tests.checkpoints import (
    position_ids,
    random_tensors,
    save_safetensors,
    small_model,
    to_stored,
    write_config,
    write_json,
    write_modules,
    write_weights,
)
from tests.torch_pickle import save_torch_zip

SAFETENSORS = "model.safetensors"
TORCH = "pytorch_model.bin"


def load(folder: Path) -> BertWeights:
    """The weights of a folder."""
    return read_weights(folder, read_config(folder))


def change_config(folder: Path, **values: Any) -> None:
    """Change keys of config.json; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | values
    write_json(path, {key: value for key, value in config.items() if value is not None})


def change_weights(folder: Path, **tensors: StoredTensor | None) -> None:
    """Change tensors of model.safetensors; None removes one, and __ stands for a dot."""
    changed: dict[str, StoredTensor | None] = {**random_tensors(folder)}
    changed |= {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_safetensors(folder / SAFETENSORS, {name: tensor for name, tensor in changed.items() if tensor is not None})


# --- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [SAFETENSORS, TORCH])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_dtype_keeps_its_values_and_its_size(folder: Path, dtype: str, file: str) -> None:
    (folder / SAFETENSORS).unlink()
    write_weights(folder, dtype=dtype, files=[file])
    weights, expected = load(folder), random_tensors(folder, dtype)
    loaded = dict(weights.embeddings) | (weights.pooler or {})
    for layer, tensors in enumerate(weights.layers):
        loaded |= {f"encoder.layer.{layer}.{name}": tensor for name, tensor in tensors.items()}
    assert loaded.keys() == expected.keys()
    for name, tensor in loaded.items():
        assert isinstance(tensor, StoredTensor)
        assert tensor.dtype == dtype
        assert np.array_equal(tensor.data, expected[name].data)
        assert tensor.to_float32().dtype == np.float32


def test_bfloat16_is_the_upper_half_of_float32() -> None:
    values = np.array([1.5, -0.0, 3.140625, 1e-38], np.float32)
    assert to_stored(values, "bfloat16").to_float32()[:3].tolist() == [1.5, -0.0, 3.140625]


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_names_with_and_without_prefix_and_what_is_ignored(folder: Path, prefix: str) -> None:
    extra = {
        f"{prefix}embeddings.position_ids": position_ids(64),
        "cls.predictions.bias": StoredTensor("float32", np.zeros(200, np.float32)),
    }
    write_weights(folder, prefix=prefix, extra=extra)
    assert load(folder).layers[1].keys() == load(folder).layers[0].keys()


def test_names_of_tensorflow(folder: Path) -> None:
    def rename(name: str) -> str:
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    tensors = random_tensors(folder)
    save_safetensors(folder / SAFETENSORS, {rename(name): tensor for name, tensor in tensors.items()})
    loaded = load(folder).embeddings["embeddings.LayerNorm.weight"]
    assert isinstance(loaded, StoredTensor)
    assert np.array_equal(loaded.data, tensors["embeddings.LayerNorm.weight"].data)


@pytest.mark.parametrize(
    ("file", "save"), [("model.safetensors", save_safetensors), ("pytorch_model.bin", save_torch_zip)]
)
def test_shards(folder: Path, file: str, save: Callable[..., None]) -> None:
    (folder / SAFETENSORS).unlink()
    tensors = random_tensors(folder)
    stem, _, suffix = file.partition(".")
    shards = [f"{stem}-{number:05}-of-00002.{suffix}" for number in (1, 2)]
    weight_map = {name: shards[index % 2] for index, name in enumerate(tensors)}
    for shard in shards:
        save(folder / shard, {name: tensors[name] for name in tensors if weight_map[name] == shard})
    write_json(folder / f"{file}.index.json", {"weight_map": weight_map})
    assert len(load(folder).layers) == 2
    (folder / shards[1]).unlink()
    with pytest.raises(ModelNotFoundError, match="00002-of-00002"):
        load(folder)


def test_safetensors_come_before_torch(folder: Path) -> None:
    (folder / TORCH).write_bytes(b"not looked at")
    assert load(folder)


def test_weights_are_views_of_the_file(folder: Path) -> None:
    tensor = load(folder).layers[0]["attention.self.query.weight"]
    assert isinstance(tensor, StoredTensor)
    assert not tensor.data.flags.owndata
    assert not tensor.data.flags.writeable


def test_a_transformer_in_a_folder_of_its_own(tmp_path: Path) -> None:
    whole = small_model(tmp_path / "whole")
    nested = small_model(tmp_path / "nested")
    (nested / "0_Transformer").mkdir()
    for name in ("config.json", SAFETENSORS, "vocab.txt", "tokenizer_config.json"):
        (nested / name).rename(nested / "0_Transformer" / name)
    modules = json.loads((nested / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    write_json(nested / "modules.json", modules)
    assert np.array_equal(EmbeddingModel(nested).encode("happy"), EmbeddingModel(whole).encode("happy"))


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({"pooling_mode": "cls", "embedding_dimension": 32}, ("cls",)),
        ({"pooling_mode": ["cls", "mean"], "embedding_dimension": 32}, ("cls", "mean")),
        ({"pooling_mode": "mean", "include_prompt": True}, ("mean",)),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, ("cls", "mean")),
        ({"pooling_mode_cls_token": True}, ("cls",)),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, ("lasttoken",)),
        ({"word_embedding_dimension": 32}, ("mean",)),
    ],
)
def test_both_forms_of_the_pooling_file(folder: Path, config: dict[str, Any], modes: tuple[str, ...]) -> None:
    write_json(folder / "1_Pooling" / "config.json", config)
    model = EmbeddingModel(folder)
    assert model.pooling_modes == modes
    assert model.encode("happy").shape == (32 * len(modes),)


def test_module_names_of_sentence_transformers_6(folder: Path) -> None:
    kinds = ("base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling",
             "base.modules.normalize.Normalize")  # fmt: skip
    entries = [
        {"idx": index, "path": path, "type": f"sentence_transformers.{kind}"}
        for index, (kind, path) in enumerate(zip(kinds, ("", "1_Pooling", "2_Normalize"), strict=True))
    ]
    write_json(folder / "modules.json", entries)
    write_json(folder / "2_Normalize" / "config.json", {"module_input_name": "sentence_embedding"})
    assert np.linalg.norm(EmbeddingModel(folder).encode("happy")) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("file", [SAFETENSORS, TORCH])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("activation.Tanh", np.tanh),
        ("linear.Identity", lambda x: x),
        ("activation.ReLU", lambda x: np.maximum(x, 0)),
        ("activation.GELU", lambda x: x * (1 + np.vectorize(erf)(x / 2**0.5)) / 2),
    ],
)
def test_a_dense_module(folder: Path, file: str, bias: bool, activation: str, function: Callable[[Any], Any]) -> None:
    raw = EmbeddingModel(folder).without_normalize().encode(["happy", "person"])
    write_modules(folder, None, "Dense")
    weight, shift = (
        np.random.default_rng(0).standard_normal((7, 32), dtype=np.float32),
        np.arange(7, dtype=np.float32),
    )
    config = {"in_features": 32, "out_features": 7, "bias": bias}
    write_json(folder / "2_Dense" / "config.json", config | {"activation_function": f"torch.nn.modules.{activation}"})
    tensors = {"linear.weight": to_stored(weight, "float32")}
    if bias:
        tensors["linear.bias"] = to_stored(shift, "float32")
    (save_safetensors if file == SAFETENSORS else save_torch_zip)(folder / "2_Dense" / file, tensors)
    model = EmbeddingModel(folder)
    assert model.get_sentence_embedding_dimension() == 7
    expected = function(raw @ weight.T + (shift if bias else 0))
    assert model.encode(["happy", "person"]) == pytest.approx(expected, abs=1e-5)


# --- what is refused: (how the folder is broken, the error, what it says) -------------------------------------------


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    """Break a folder by writing a file."""

    def breaks(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return breaks


def configure(**values: Any) -> Callable[[Path], None]:
    """Break a folder by changing config.json."""
    return lambda folder: change_config(folder, **values)


def reweigh(**tensors: StoredTensor | None) -> Callable[[Path], None]:
    """Break a folder by changing tensors."""
    return lambda folder: change_weights(folder, **tensors)


def pooling(**values: Any) -> Callable[[Path], None]:
    """Break a folder by writing 1_Pooling/config.json."""
    return write("1_Pooling/config.json", json.dumps(values))


def modules(*kinds: str, path: str = "") -> Callable[[Path], None]:
    """Break a folder by writing modules.json."""
    entries = [{"type": kind, "path": path} for kind in kinds]
    return write("modules.json", json.dumps(entries))


def header(**tensors: Any) -> bytes:
    """A safetensors file of a header and 64 bytes."""
    content = json.dumps(tensors).encode()
    return struct.pack("<Q", len(content)) + content + bytes(64)


def constant(value: float, *shape: int, dtype: str = "float32") -> StoredTensor:
    """A tensor of one value."""
    return to_stored(np.full(shape, value, np.float32), dtype)


def folder_for_file(name: str) -> Callable[[Path], None]:
    """Break a folder by having a folder where a file should be."""

    def breaks(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return breaks


ST = "sentence_transformers.models."
EMPTY_BUT_HUGE = {"dtype": "U8", "shape": [0, 2**62, 9], "data_offsets": [0, 0]}
BROKEN: list[tuple[Callable[[Path], object], type[GteError], str]] = [
    # config.json
    (lambda folder: (folder / "config.json").unlink(), ModelNotFoundError, "config.json, found none"),
    (write("config.json", "{"), CheckpointError, "UTF-8 JSON"),
    (write("config.json", b"\xff"), CheckpointError, "UTF-8 JSON"),
    (write("config.json", "[]"), CheckpointError, "JSON object, got a list"),
    (write("config.json", "{}"), CheckpointError, "missing keys: model_type, vocab_size, hidden_size"),
    (configure(model_type="new"), UnsupportedModelError, "model_type 'new' is not implemented"),
    (configure(model_type="qwen2"), UnsupportedModelError, "model_type 'qwen2' is not implemented"),
    (configure(model_type=["bert"]), UnsupportedModelError, r"model_type \['bert'\]"),
    (configure(hidden_size=None), CheckpointError, "missing keys: hidden_size"),
    (configure(hidden_size="32"), CheckpointError, "hidden_size to be a whole number from 1 .* got '32'"),
    (configure(hidden_size=True), CheckpointError, "got True"),
    (configure(hidden_size=32.0), CheckpointError, "got 32.0"),
    (configure(num_attention_heads=0), CheckpointError, "num_attention_heads to be a whole number from 1"),
    (configure(num_attention_heads=5), CheckpointError, "divide hidden_size, got 5 heads and hidden_size 32"),
    (configure(num_hidden_layers=10**9), CheckpointError, "num_hidden_layers to be a whole number from 1 to 1000"),
    (configure(vocab_size=10**30), CheckpointError, "vocab_size to be a whole number"),
    (configure(layer_norm_eps=-1), CheckpointError, "layer_norm_eps to be a positive number"),
    (write("config.json", '{"model_type": "bert", "layer_norm_eps": NaN}'), CheckpointError, "missing keys"),
    (configure(hidden_act="gelu_new"), UnsupportedModelError, "hidden_act 'gelu_new'"),
    (configure(hidden_act="relu"), UnsupportedModelError, "hidden_act 'relu'"),
    (configure(position_embedding_type="relative_key"), UnsupportedModelError, "'relative_key'"),
    (configure(is_decoder=True), UnsupportedModelError, "is_decoder True"),
    (configure(quantization_config={"bits": 4}), UnsupportedModelError, "quantization_config"),
    # tensors
    (configure(hidden_size=64), CheckpointError, r"word_embeddings.weight has shape \(200, 32\), not \(200, 64\)"),
    (configure(num_hidden_layers=3), CheckpointError, r"16 difference\(s\): missing encoder.layer.2"),
    (configure(num_hidden_layers=1), CheckpointError, "unexpected 'encoder.layer.1.attention"),
    (reweigh(surprise=constant(0, 3)), CheckpointError, "unexpected 'surprise'"),
    (reweigh(pooler__dense__bias=None), CheckpointError, r"missing pooler.dense.bias \(32,\)"),
    (
        reweigh(embeddings__LayerNorm__bias=None, surprise=constant(0, 1), pooler__dense__bias=constant(np.nan, 31)),
        CheckpointError,
        r"4 difference\(s\): missing .*; pooler.dense.bias has shape .*; unexpected 'surprise'; pooler.* holds NaN",
    ),
    (reweigh(pooler__dense__bias=constant(np.inf, 32)), CheckpointError, "pooler.dense.bias holds NaN or inf"),
    (reweigh(pooler__dense__bias=constant(np.nan, 32, dtype="float16")), CheckpointError, "holds NaN"),
    (reweigh(pooler__dense__bias=constant(-np.inf, 32, dtype="bfloat16")), CheckpointError, "holds NaN"),
    (
        reweigh(pooler__dense__bias=StoredTensor("int8", np.zeros(32, np.int8))),
        CheckpointError,
        "pooler.dense.bias is int8, not one of float32, float16, bfloat16",
    ),
    (
        reweigh(bert__pooler__dense__bias=constant(0, 32)),
        CheckpointError,
        "one tensor for pooler.dense.bias, got two",
    ),
    # model.safetensors
    (lambda folder: (folder / SAFETENSORS).unlink(), ModelNotFoundError, "expected one of model.safetensors"),
    (write(SAFETENSORS, b""), CheckpointError, "complete safetensors file"),
    (write(SAFETENSORS, b"garbage" * 100), CheckpointError, "complete safetensors file"),
    (write(SAFETENSORS, struct.pack("<Q", 2**62) + b"{}"), CheckpointError, "complete safetensors file"),
    (write(SAFETENSORS, struct.pack("<Q", 90_000_000) + b"{}"), CheckpointError, "complete safetensors file"),
    (
        write(SAFETENSORS, header(a={"dtype": "F32", "shape": [99], "data_offsets": [0, 396]})),
        CheckpointError,
        "complete safetensors file",
    ),
    (
        write(SAFETENSORS, header(a={"dtype": "F32", "shape": [4], "data_offsets": [0, 64]})),
        CheckpointError,
        "complete safetensors file",
    ),
    (
        write(SAFETENSORS, header(a={"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 64]})),
        CheckpointError,
        "complete safetensors file",
    ),
    (
        write(SAFETENSORS, header(a={"dtype": "F8_E4M3", "shape": [64], "data_offsets": [0, 64]})),
        CheckpointError,
        "a in one of F64, .* got F8_E4M3",
    ),
    (
        write(SAFETENSORS, header(a={"dtype": "F99", "shape": [64], "data_offsets": [0, 64]})),
        CheckpointError,
        "complete safetensors file",
    ),
    # index.json
    (
        lambda folder: (folder / SAFETENSORS).rename(folder / "model.safetensors.index.json"),
        CheckpointError,
        "UTF-8 JSON",
    ),
    # modules.json and the folders that it names
    (write("modules.json", "{}"), CheckpointError, "a list of modules"),
    (write("modules.json", "[3]"), CheckpointError, "a list of modules"),
    (write("modules.json", "[{}]"), UnsupportedModelError, "module '' is not implemented"),
    (modules(), UnsupportedModelError, "got none"),
    (modules(ST + "Transformer"), UnsupportedModelError, "got Transformer"),
    (modules(ST + "Transformer", ST + "Pooling", ST + "LSTM"), UnsupportedModelError, "LSTM' is not implemented"),
    (modules(ST + "Transformer", "evil.Pooling"), UnsupportedModelError, "'evil.Pooling' is not implemented"),
    (
        modules(ST + "Transformer", ST + "Pooling", ST + "Pooling"),
        UnsupportedModelError,
        "any of Dense and Normalize",
    ),
    (modules(ST + "Transformer", path="../other"), CheckpointError, "path to be the name of a folder beside"),
    (modules(ST + "Transformer", path="/etc"), CheckpointError, "path to be the name of a folder beside"),
    (lambda folder: (folder / "1_Pooling" / "config.json").unlink(), ModelNotFoundError, "listed in modules.json"),
    (pooling(pooling_mode="attention"), UnsupportedModelError, "pooling mode 'attention' is not implemented"),
    (pooling(pooling_mode=[]), CheckpointError, "at least one pooling mode"),
    (pooling(pooling_mode=3), CheckpointError, "at least one pooling mode"),
    (pooling(pooling_mode=[["cls"]]), UnsupportedModelError, r"pooling mode \['cls'\]"),
    (pooling(pooling_mode_mean_tokens=False), CheckpointError, "at least one pooling mode"),
    (pooling(pooling_mode_mean_tokens="no"), CheckpointError, "true or false, got 'no'"),
    (pooling(pooling_mode="cls", include_prompt=False), UnsupportedModelError, "include_prompt False"),
    # sentence_bert_config.json, config_sentence_transformers.json
    (write("sentence_bert_config.json", '{"max_seq_length": "many"}'), CheckpointError, "max_seq_length"),
    (write("sentence_bert_config.json", '{"max_seq_length": -5}'), CheckpointError, "max_seq_length"),
    (write("sentence_bert_config.json", '{"transformer_task": "fill-mask"}'), UnsupportedModelError, "fill-mask"),
    (write("config_sentence_transformers.json", '{"prompts": ["a"]}'), CheckpointError, "prompts to be an object"),
    (write("config_sentence_transformers.json", '{"prompts": {"query": 3}}'), CheckpointError, "prompts"),
    (
        write("config_sentence_transformers.json", '{"similarity_fn_name": "maxsim"}'),
        UnsupportedModelError,
        "similarity_fn_name 'maxsim'",
    ),
    (write("config_sentence_transformers.json", '{"default_prompt_name": "x"}'), GteError, "prompt name among"),
    (
        write("config_sentence_transformers.json", '{"model_type": "SparseEncoder"}'),
        UnsupportedModelError,
        "SparseEnc",
    ),
    (
        write("sentence_bert_config.json", '{"config_kwargs": {"hidden_act": "relu"}}'),
        UnsupportedModelError,
        "config_k",
    ),
    (write("sentence_roberta_config.json", '{"max_seq_length": 0}'), CheckpointError, "max_seq_length"),
    (configure(layer_norm_eps=10**400), CheckpointError, "layer_norm_eps to be a positive number"),
    (modules(ST + "Transformer", path="a" * 5000), CheckpointError, "path to be the name of a folder"),
    (folder_for_file("modules.json"), CheckpointError, "expected a file, got something else"),
    (write(SAFETENSORS, header(a=EMPTY_BUT_HUGE)[:-64]), CheckpointError, "a possible shape|complete safetensors"),
    (reweigh(**{"new\nline": constant(0, 1)}), CheckpointError, r"unexpected 'new\\nline'"),
    # a tokenizer of another model
    (
        write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n" + "".join(f"w{i}\n" for i in range(300))),
        CheckpointError,
        "token ids below 200, .* with ids up to 304",
    ),
]


@pytest.mark.parametrize(("breaks", "error", "message"), BROKEN)
def test_broken_folders(folder: Path, breaks: Callable[[Path], object], error: type[GteError], message: str) -> None:
    breaks(folder)
    with pytest.raises(error, match=message) as caught:
        EmbeddingModel(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{}", "weight_map"),
        ('{"weight_map": {}}', "weight_map"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "beside the index"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "beside the index"),
        ('{"weight_map": {"a": 3}}', "beside the index"),
        ('{"weight_map": {"a": "model.safetensors.index.json"}}', "beside the index"),
    ],
)
def test_broken_indexes(folder: Path, index: str, message: str) -> None:
    (folder / SAFETENSORS).unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"in_features": 31}, "expected finite floats"),
        ({"activation_function": "os.system"}, "activation_function 'os.system'"),
        ({"use_residual": True}, "use_residual True"),
        ({"module_input_name": "token_embeddings"}, "module_input_name"),
        ({"out_features": 0}, "out_features"),
        ({"bias": "maybe"}, "true or false"),
    ],
)
def test_broken_dense_modules(folder: Path, config: dict[str, Any], message: str) -> None:
    write_modules(folder, None, "Dense")
    write_json(folder / "2_Dense" / "config.json", {"in_features": 32, "out_features": 4, "bias": False, **config})
    save_safetensors(folder / "2_Dense" / SAFETENSORS, {"linear.weight": constant(1, 4, 32)})
    with pytest.raises((CheckpointError, UnsupportedModelError), match=message):
        EmbeddingModel(folder)


def test_a_dense_module_for_other_vectors(folder: Path) -> None:
    write_modules(folder, None, "Dense")
    write_json(folder / "2_Dense" / "config.json", {"in_features": 9, "out_features": 4, "bias": False})
    save_safetensors(folder / "2_Dense" / SAFETENSORS, {"linear.weight": constant(1, 4, 9)})
    with pytest.raises(CheckpointError, match="for vectors of 32, got one for 9"):
        EmbeddingModel(folder)


def test_a_safetensors_file_cut_anywhere(tmp_path: Path) -> None:
    write_config(tmp_path, num_hidden_layers=1, vocab_size=10)
    write_weights(tmp_path)
    content = (tmp_path / SAFETENSORS).read_bytes()
    for length in (*range(0, 64), *range(64, len(content), 997), len(content) - 1):
        path = tmp_path / f"{length}.safetensors"
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_safetensors(path)


def test_a_safetensors_file_with_flipped_bytes(tmp_path: Path) -> None:
    write_config(tmp_path, num_hidden_layers=1, vocab_size=10)
    write_weights(tmp_path)
    content = bytearray((tmp_path / SAFETENSORS).read_bytes())
    random = np.random.default_rng(0)
    for number in range(500):
        damaged = content.copy()
        damaged[random.integers(0, 3000)] = random.integers(0, 256)
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(damaged)
        try:
            read_safetensors(path)
        except CheckpointError:
            continue


def test_a_nan_anywhere_is_found() -> None:
    values = np.zeros((3, 1 << 20), np.float32)
    assert is_finite(to_stored(values, "float16"))
    values[2, -1] = np.nan
    assert not any(is_finite(to_stored(values, dtype)) for dtype in ("float32", "float16", "bfloat16"))


def test_finite_weights_that_overflow(folder: Path) -> None:
    change_weights(folder, encoder__layer__0__output__dense__weight=constant(3e38, 32, 48))
    with pytest.raises(CheckpointError, match="finite numbers, got an overflow"):
        EmbeddingModel(folder).encode("happy")


def test_a_repository_without_modules_has_no_other_settings(folder: Path) -> None:
    (folder / "modules.json").unlink()
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 8})
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "is "}})
    model = EmbeddingModel(folder)
    assert (model.max_seq_length, model.prompts["query"]) == (64, "")  # as in sentence-transformers


def test_the_repository_s_truncate_dim(folder: Path) -> None:
    write_json(folder / "config_sentence_transformers.json", {"truncate_dim": 8})
    assert EmbeddingModel(folder).encode("happy").shape == (8,)
    assert EmbeddingModel(folder, truncate_dim=9).encode("happy").shape == (9,)


def test_the_table_of_names_has_every_axis(folder: Path) -> None:
    shapes = expected_shapes(read_config(folder), pooler=True)
    assert len(shapes) == 5 + 2 * 16 + 2
    assert shapes["encoder.layer.1.intermediate.dense.weight"] == (48, 32)
    assert shapes["encoder.layer.1.output.dense.weight"] == (32, 48)
