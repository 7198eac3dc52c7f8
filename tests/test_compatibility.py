"""sentence-transformers' arguments: accepted where they change nothing; else a sentence says what to write."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import EmbeddingModel, InputError, util
from gte_np.compatibility import ABSENT, ENCODE, LOAD, MODEL_KWARGS, PROCESSOR_KWARGS, SAVE, Habits
from tests.checkpoints import write_json

TEXTS = ["happy person", "北京", "the capital of China"]


class Device:
    """torch's device, by what it prints."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:  # which is part of a test's name, and has no address in it
        return f"device({self.name!r})"


HARMLESS: list[dict[str, Any]] = [
    {"convert_to_numpy": True},
    {"convert_to_numpy": np.True_, "convert_to_tensor": False},
    {"device": None},
    {"device": "cpu"},
    {"device": "cpu:0"},
    {"device": Device("cpu")},
    {"device": ["cpu", "cpu"]},
    {"pool": None, "chunk_size": None},
    {"chunk_size": 100},
    {"task": "query"},
    {"processing_kwargs": {}},
    {"normalize_embeddings": False},
]


@pytest.mark.parametrize("options", HARMLESS, ids=str)
@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_what_changes_nothing_is_accepted(small: EmbeddingModel, method: str, options: dict[str, Any]) -> None:
    encode = getattr(small, method)
    assert np.array_equal(encode(TEXTS, **options), encode(TEXTS))
    assert np.array_equal(encode(inputs=TEXTS, **options), encode(sentences=TEXTS))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"convert_to_numpy": False}, r"True or left out, got False: for a list of tensors, write \[torch.from_numpy"),
    ({"convert_to_numpy": None}, "True or left out, got None"),
    ({"convert_to_tensor": True}, r"False or left out, got True: for a tensor, write torch.from_numpy\(model.encode"),
    ({"convert_to_tensor": "False"}, "got 'False'"),
    ({"device": "cuda"}, "'cpu' or left out, got 'cuda': gte_np computes on the CPU"),
    ({"device": Device("cuda:0")}, "gte_np computes on the CPU"),
    ({"device": ["cpu", "cuda:1"]}, "gte_np computes on the CPU"),
    ({"pool": {"processes": []}}, "pool to be what start_multi_process_pool gives or left out"),
    (
        {"processing_kwargs": {"text": {}}},
        "an empty dict or left out, .*: to cut texts earlier, set model.max_seq_length",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_what_cannot_be_had_is_told(
    small: EmbeddingModel, method: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        getattr(small, method)(TEXTS, **options)


def test_arguments_in_sentence_transformers_order(small: EmbeddingModel) -> None:
    expected = small.encode(TEXTS, prompt="very ", precision="int8")
    for method in (small.encode, small.encode_query, small.encode_document):
        found = method(TEXTS, None, "very ", 2, False, "sentence_embedding", "int8")
        assert np.array_equal(found, expected)
    assert np.array_equal(small.encode(TEXTS, "query"), small.encode_query(TEXTS))


def test_arguments_that_nobody_has_are_python_s_own_error(small: EmbeddingModel, small_folder: Path) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'batchsize'"):
        small.encode(TEXTS, batchsize=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="multiple values for argument 'sentences'"):
        small.encode(TEXTS, inputs=TEXTS)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'folder'"):
        EmbeddingModel(folder=small_folder)  # type: ignore[call-arg]


def test_signatures_are_those_of_the_methods() -> None:
    assert list(inspect.signature(EmbeddingModel.encode).parameters)[:3] == ["self", "sentences", "prompt_name"]
    assert list(inspect.signature(EmbeddingModel).parameters)[:2] == ["name_or_path", "revision"]
    for method, habits in (
        (EmbeddingModel.encode, ENCODE),
        (EmbeddingModel.__init__, LOAD),
        (EmbeddingModel.save_pretrained, SAVE),
    ):
        own = set(inspect.signature(method).parameters)
        assert set(habits.renamed.values()) <= own
        assert not own & {*habits.renamed, *habits.foreign}


def test_prompts_that_take_the_place_of_document(folder: Path) -> None:
    model = EmbeddingModel(folder, prompts={"passage": "very "})
    assert np.array_equal(model.encode_document("happy"), model.encode("happy"))  # "document" is there, and empty
    model.prompts = {"corpus": "is ", "passage": "very "}
    assert np.array_equal(model.encode_document("happy"), model.encode("very happy"))
    model.default_prompt_name = "corpus"
    assert np.array_equal(model.encode_query("happy"), model.encode("is happy", prompt=""))


# --- loading and saving ---------------------------------------------------------------------------------------------

LOADED: list[dict[str, Any]] = [
    {"device": "cpu"},
    {"device": None, "modules": None, "model_card_data": None, "use_auth_token": None},
    {"cache_folder": "somewhere"},
    {"trust_remote_code": False},
    {"model_kwargs": None, "tokenizer_kwargs": {}, "processor_kwargs": None, "config_kwargs": {}},
    {"model_kwargs": {"torch_dtype": "auto", "attn_implementation": "sdpa", "device_map": "cpu"}},
    {"model_kwargs": {"dtype": Device("torch.float32"), "use_safetensors": True, "low_cpu_mem_usage": True}},
    {"tokenizer_kwargs": {"use_fast": True, "padding_side": "left"}},
]


@pytest.mark.parametrize("options", LOADED, ids=str)
def test_what_changes_nothing_is_accepted_in_loading(
    small: EmbeddingModel, small_folder: Path, options: dict[str, Any]
) -> None:
    model = EmbeddingModel(model_name_or_path=str(small_folder), **options)  # type: ignore[call-arg]
    assert np.array_equal(model.encode(TEXTS), small.encode(TEXTS))


def test_the_dtype_of_model_kwargs_is_dtype(small_folder: Path) -> None:
    for dtype in (Device("torch.bfloat16"), "bfloat16"):
        assert EmbeddingModel(small_folder, model_kwargs={"torch_dtype": dtype}).bert.dtype == "bfloat16"  # type: ignore[call-arg]
    given = EmbeddingModel(small_folder, dtype="int8", model_kwargs={"dtype": "float32"})  # type: ignore[call-arg]
    assert given.bert.dtype == "int8"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "cuda"}, InputError, "gte_np computes on the CPU"),
        ({"trust_remote_code": True}, InputError, "no code of a repository is ever run, so leave it out"),
        ({"modules": [3]}, InputError, "give the folder of a saved model"),
        ({"config_kwargs": {"a": 1}}, InputError, "change config.json in a copy"),
        ({"model_kwargs": {"torch_dtype": "float16"}}, InputError, "dtype to be one of float32, bfloat16, int8, got"),
        ({"model_kwargs": {"device_map": "auto"}}, InputError, "device_map to be 'cpu' or left out"),
        ({"model_kwargs": {"threads": 1}}, InputError, "model_kwargs with any of .*, got 'threads': leave it out"),
        ({"model_kwargs": ["a"]}, TypeError, "model_kwargs to be a dict, got list"),
        ({"tokenizer_kwargs": {"model_max_length": 8}}, InputError, "set model.max_seq_length after loading"),
        ({"backend": "onnx"}, InputError, "backend to be one of"),
        ({"similarity_fn_name": "angle"}, InputError, "similarity_fn_name to be one of"),
    ],
)
def test_what_cannot_be_had_is_told_in_loading(
    small_folder: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        EmbeddingModel(small_folder, **options)


def test_similarity_fn_name_overrides_the_repository_s(folder: Path) -> None:
    write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "euclidean"})
    assert EmbeddingModel(folder).similarity_fn_name == "euclidean"
    assert EmbeddingModel(folder, similarity_fn_name="dot").similarity_fn_name == "dot"


def test_save_and_load(small: EmbeddingModel, tmp_path: Path) -> None:
    small.save(tmp_path / "a")
    small.save(path=tmp_path / "b", safe_serialization=True, create_model_card=False, model_name=None)  # type: ignore[call-arg]
    for name in ("a", "b"):
        assert np.array_equal(EmbeddingModel.load(tmp_path / name).encode(TEXTS), small.encode(TEXTS))
    for options, message in (
        ({"safe_serialization": False}, "safetensors"),
        ({"create_model_card": True}, "no model card"),
    ):
        with pytest.raises(InputError, match=message):
            small.save_pretrained(tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


# --- a module of torch ----------------------------------------------------------------------------------------------


def test_methods_of_a_module(small: EmbeddingModel) -> None:
    assert small.device == "cpu"
    assert small.to("cpu") is small.to(Device("cpu")) is small.cpu() is small.eval() is small
    assert small.get_embedding_dimension() == small.get_sentence_embedding_dimension() == 32
    with pytest.raises(InputError, match="device to be 'cpu' or left out, got 'cuda': gte_np computes on the CPU"):
        small.to("cuda")


def test_a_pool_is_a_token(small: EmbeddingModel) -> None:
    pool = small.start_multi_process_pool()
    expected = small.encode(TEXTS, prompt="very ")
    assert np.array_equal(small.encode(TEXTS, prompt="very ", pool=pool, chunk_size=2), expected)  # type: ignore[call-arg]
    assert np.array_equal(small.encode_multi_process(TEXTS, pool, None, "very ", 2, 1), expected)
    assert np.array_equal(small.encode_multi_process(TEXTS, pool=pool, prompt="very "), expected)
    EmbeddingModel.stop_multi_process_pool(pool)
    assert small.start_multi_process_pool(["cpu"] * 2)
    with pytest.raises(InputError, match="target_devices to be 'cpu'"):
        small.start_multi_process_pool(["cuda:0"])
    with pytest.raises(InputError, match="pool to be what start_multi_process_pool gives"):
        small.stop_multi_process_pool({"processes": []})  # type: ignore[arg-type]


def test_truncate_embeddings(folder: Path) -> None:
    model = EmbeddingModel(folder, truncate_dim=16)
    with model.truncate_embeddings(8):
        assert model.encode("happy").shape == (8,)
    assert model.encode("happy").shape == (16,)
    with pytest.raises(InputError), model.truncate_embeddings(None):
        model.encode("happy", truncate_dim=33)
    assert model.truncate_dim == 16
    with pytest.raises(InputError, match="from 1 to 32, got 33"), model.truncate_embeddings(33):
        pass


@pytest.mark.parametrize("name", ABSENT)
def test_what_a_model_does_not_have(small: EmbeddingModel, name: str) -> None:
    assert not hasattr(small, name)
    with pytest.raises(AttributeError, match=f"no attribute '{name}': (write|gte_np|the kernels)"):
        getattr(small, name)


def test_other_attributes_are_python_s_own_error(small: EmbeddingModel) -> None:
    with pytest.raises(AttributeError, match=r"^'EmbeddingModel' object has no attribute 'nothing'$"):
        small.nothing  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("carry", [copy, deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_pickles_are_as_before(small: EmbeddingModel, carry: Callable[[Any], Any]) -> None:
    assert np.array_equal(carry(small).encode(TEXTS), small.encode(TEXTS))


# --- the tables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("habits", [ENCODE, LOAD, SAVE, MODEL_KWARGS, PROCESSOR_KWARGS])
def test_every_refusal_says_what_to_do(habits: Habits) -> None:
    for name, foreign in habits.foreign.items():
        if foreign.accepted.name != "anything":
            assert foreign.instead, name
            with pytest.raises(InputError, match=f"expected {name} to be {foreign.accepted.name} or left out, got"):
                foreign.check(name, object())


# --- util -----------------------------------------------------------------------------------------------------------


def test_util_has_what_it_exports_and_positions_are_those_of_sentence_transformers(small: EmbeddingModel) -> None:
    assert all(callable(getattr(util, name)) for name in util.__all__)
    vectors = small.encode(TEXTS)
    assert np.array_equal(util.pytorch_cos_sim(vectors, vectors), util.cos_sim(vectors, vectors))
    found = util.semantic_search(vectors, -vectors, 2, 1, 1, util.euclidean_sim)
    assert [len(hits) for hits in found] == [1, 1, 1]  # top_k
    assert all(hits[0]["score"] < 0 for hits in found)
    assert len(util.paraphrase_mining(small, TEXTS, False, 2, max_pairs=1)) == 1
    assert len(util.paraphrase_mining_embeddings(vectors, 2, 2, 1)) == 1


def test_normalize_and_truncate() -> None:
    assert util.normalize_embeddings([3.0, 4.0]) == pytest.approx([0.6, 0.8])
    matrix = np.arange(6).reshape(2, 3)
    assert util.truncate_embeddings(matrix, 2).tolist() == [[0, 1], [3, 4]]
    assert util.truncate_embeddings(matrix[0], None).tolist() == [0, 1, 2]
    assert util.truncate_embeddings(matrix, 9).tolist() == matrix.tolist()
    with pytest.raises(InputError, match="truncate_dim to be at least 1, got 0"):
        util.truncate_embeddings(matrix, 0)
