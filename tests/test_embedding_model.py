"""EmbeddingModel: what encode accepts, what its options mean, what hostile input gives."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from copy import copy
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import (
    KNOWN_MODELS,
    EmbeddingModel,
    InputError,
    TokenBatch,
    cos_sim,
    paraphrase_mining,
    quantize_embeddings,
)
from gte_np import pipeline as pipeline_module
from gte_np.kernels.runtime.threads import pool
from tests.checkpoints import small_model, write_json
from tests.texts import ORDINARY, of_length

TEXTS = [*ORDINARY, *(of_length(words, seed=words) for words in (3, 8, 15, 40))]


@pytest.fixture(scope="module")
def vectors(small: EmbeddingModel) -> Any:
    return small.encode(TEXTS)


def test_shapes_and_types(small: EmbeddingModel) -> None:
    assert small.encode("happy").shape == (32,)
    assert small.encode(["happy"]).shape == (1, 32)
    assert small.encode([]).shape == (0, 32)
    assert small.encode(("happy", "person")).dtype == np.float32
    assert small.encode(np.array(["happy", "person"])).shape == (2, 32)
    assert small.encode([], truncate_dim=5).shape == (0, 5)
    assert small.encode([], precision="ubinary").shape == (0, 4)
    assert small.encode([], output_value="token_embeddings") == []


@pytest.mark.parametrize("batch_size", [1, 2, 5, 1000])
def test_batches_change_nothing(small: EmbeddingModel, vectors: Any, batch_size: int) -> None:
    assert np.abs(small.encode(TEXTS, batch_size=batch_size) - vectors).max() < 1e-6


def test_order_and_windows_change_nothing(
    small: EmbeddingModel, vectors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "TEXTS_AT_ONCE", 4)
    assert np.abs(small.encode(TEXTS[::-1])[::-1] - vectors).max() < 1e-6


def test_memory_follows_the_token_budget(small: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    encode_batch = small.bert.encode_batch

    def watched(batch: TokenBatch, **options: Any) -> Any:
        seen.append(len(batch.input_ids))
        return encode_batch(batch, **options)

    monkeypatch.setattr(small.bert, "encode_batch", watched)
    small.encode([of_length(100, seed=seed) for seed in range(300)], batch_size=1000)
    assert sum(seen) == 300 * 64
    assert max(seen) <= 4096


def test_repeated_texts_are_computed_once(small: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    encode_batch = small.bert.encode_batch

    def watched(batch: TokenBatch, **options: Any) -> Any:
        seen.append(len(batch))
        return encode_batch(batch, **options)

    monkeypatch.setattr(small.bert, "encode_batch", watched)
    texts = ["a", "b", "a", "c", "a"]
    vectors = small.encode(texts)
    assert sum(seen) == 3
    assert np.array_equal(vectors, np.stack([small.encode(text) for text in texts]))
    states = small.encode(texts, output_value="token_embeddings")
    assert not np.shares_memory(states[0], states[2])


def test_normalize_embeddings(small: EmbeddingModel, small_folder: Path, tmp_path: Path) -> None:
    raw = small.without_normalize().encode(TEXTS)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.1
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert small.encode(TEXTS) == pytest.approx(unit, abs=1e-6)  # the repository has a Normalize module
    assert np.array_equal(small.encode(TEXTS, normalize_embeddings=False), small.encode(TEXTS))  # and keeps it
    without = small_model(tmp_path / "without")
    (without / "modules.json").unlink()
    model = EmbeddingModel(without)
    assert model.encode(TEXTS) == pytest.approx(raw, abs=1e-5)
    assert model.encode(TEXTS, normalize_embeddings=True) == pytest.approx(unit, abs=1e-6)
    assert model.encode(TEXTS, normalize_embeddings=False) == pytest.approx(raw, abs=1e-5)


def test_a_model_without_normalize_stays_so(small: EmbeddingModel, tmp_path: Path) -> None:
    raw = small.without_normalize()
    vectors = raw.encode(TEXTS)
    assert np.abs(np.linalg.norm(small.encode(TEXTS), axis=1) - 1).max() < 1e-6
    assert raw.encode(TEXTS, normalize_embeddings=True) == pytest.approx(small.encode(TEXTS), abs=1e-6)
    raw.save_pretrained(tmp_path / "saved")
    for again in (
        pickle.loads(pickle.dumps(raw)),
        copy(raw),
        raw.with_threads(1),
        EmbeddingModel(tmp_path / "saved"),
    ):
        assert np.array_equal(again.encode(TEXTS), vectors)


def test_truncate_dim_cuts_after_the_modules_and_before_the_option(small: EmbeddingModel, small_folder: Path) -> None:
    full = small.encode(TEXTS)
    assert np.array_equal(small.encode(TEXTS, truncate_dim=8), full[:, :8])
    unit = full[:, :8] / np.linalg.norm(full[:, :8], axis=1, keepdims=True)
    assert small.encode(TEXTS, truncate_dim=8, normalize_embeddings=True) == pytest.approx(unit, abs=1e-6)
    model = EmbeddingModel(small_folder, truncate_dim=8)
    assert model.get_sentence_embedding_dimension() == 8
    assert np.array_equal(model.encode(TEXTS), full[:, :8])
    assert model.encode(TEXTS, truncate_dim=16).shape == (len(TEXTS), 16)


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_precision(small: EmbeddingModel, vectors: Any, precision: str) -> None:
    assert np.array_equal(small.encode(TEXTS, precision=precision), quantize_embeddings(vectors, precision))


def test_precision_of_one_text(small: EmbeddingModel) -> None:
    assert small.encode("happy", precision="binary").shape == (4,)
    with pytest.raises(InputError, match="several vectors"):
        small.encode("happy", precision="int8")


def test_encode_tokens_gives_the_vectors_of_encode(small: EmbeddingModel) -> None:
    batch = small.tokenize(ORDINARY)
    for options in ({}, {"normalize_embeddings": False}, {"normalize_embeddings": True, "truncate_dim": 5}):
        assert np.array_equal(small.encode_tokens(batch, **options), small.encode(ORDINARY, **options))
    states = small.encode_tokens(batch, output_value="token_embeddings")
    for found, expected in zip(states, small.encode(ORDINARY, output_value="token_embeddings"), strict=True):
        assert np.array_equal(found, expected)
    with pytest.raises(InputError, match="expected truncate_dim to be from 1 to 32, got 33"):
        small.encode_tokens(batch, truncate_dim=33)
    with pytest.raises(InputError, match="output_value"):
        small.encode_tokens(batch, output_value="logits")
    with pytest.raises(TypeError):
        small.encode_tokens(ORDINARY)  # type: ignore[arg-type]


def test_token_embeddings(small: EmbeddingModel) -> None:
    tokens = small.encode(TEXTS, output_value="token_embeddings")
    raw = small.without_normalize().encode(TEXTS)
    assert [len(text) for text in tokens] == small.tokenize(TEXTS).lengths.tolist()
    assert np.stack([text.mean(axis=0) for text in tokens]) == pytest.approx(raw, abs=1e-5)
    alone = small.encode(TEXTS[0], output_value="token_embeddings")
    assert alone == pytest.approx(tokens[0], abs=1e-5)


def test_all_values_of_a_text(small: EmbeddingModel) -> None:
    texts = [*TEXTS, TEXTS[0]]
    found = small.encode(texts, output_value=None, truncate_dim=8)
    tokens = small.tokenize(texts)
    for index, values in enumerate(found):
        assert values["input_ids"].tolist() == tokens[index].tolist()
        assert values["attention_mask"].tolist() == [1] * len(tokens[index])
    states = small.encode(texts, output_value="token_embeddings")
    assert all(np.array_equal(values["token_embeddings"], text) for values, text in zip(found, states, strict=True))
    vectors = np.stack([values["sentence_embedding"] for values in found])
    assert np.array_equal(vectors, small.encode(texts, truncate_dim=8))
    assert not np.shares_memory(found[0]["token_embeddings"], found[-1]["token_embeddings"])
    assert list(small.encode(TEXTS[0], output_value=None)) == list(found[0])
    with pytest.raises(InputError, match="precision float32 with None, got int8"):
        small.encode(texts, output_value=None, precision="int8")


def test_prompts(small_folder: Path, tmp_path: Path) -> None:
    folder = small_model(tmp_path / "model")
    prompts = {"query": "is ", "passage": "that "}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": "passage"})
    plain, model = EmbeddingModel(small_folder), EmbeddingModel(folder)
    expected = {prefix: plain.encode(prefix + "happy") for prefix in ("", "is ", "that ", "very ")}
    assert np.array_equal(model.encode("happy"), expected["that "])
    assert np.array_equal(model.encode("happy", prompt_name="query"), expected["is "])
    assert np.array_equal(model.encode("happy", prompt="very ", prompt_name="query"), expected["very "])
    assert np.array_equal(model.encode("happy", prompt=""), expected[""])
    assert np.array_equal(model.encode_query("happy"), expected["is "])
    assert np.array_equal(model.encode_document("happy"), expected[""])  # "document" is there, and empty
    assert np.array_equal(model.encode_document("happy", prompt="very "), expected["very "])
    given = EmbeddingModel(folder, prompts={"query": "very "}, default_prompt_name="query")
    assert np.array_equal(given.encode("happy"), expected["very "])
    with pytest.raises(InputError, match="a prompt name among query, document, passage, got 'nothing'"):
        model.encode("happy", prompt_name="nothing")
    with pytest.raises(InputError, match="got 'nothing'"):
        EmbeddingModel(folder, default_prompt_name="nothing")


def test_pooling_without_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = small_model(tmp_path / "model")
    (folder / "modules.json").unlink()
    with caplog.at_level(logging.WARNING, "gte_np"):
        assert EmbeddingModel(folder).pooling_modes == ("mean",)
    assert "no pooling files: mean pooling is used, as sentence-transformers does" in caplog.text
    caplog.clear()
    model = EmbeddingModel(folder, pooling="cls")
    assert not caplog.records
    tokens = model.encode("happy person", output_value="token_embeddings")
    assert model.encode("happy person") == pytest.approx(tokens[0], abs=1e-6)


def test_limits(folder: Path) -> None:
    assert EmbeddingModel(folder).max_seq_length == 64
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 20})
    model = EmbeddingModel(folder)
    assert model.max_seq_length == 20
    model.max_seq_length = 7
    assert model.tokenize(["happy " * 50]).lengths.tolist() == [7]
    with pytest.raises(InputError, match="from 2 to 64, got 65"):
        model.max_seq_length = 65
    with pytest.raises(TypeError, match="got str"):
        model.max_seq_length = "7"  # type: ignore[assignment]
    write_json(folder / "tokenizer_config.json", {"model_max_length": 11, "do_lower_case": True})
    assert EmbeddingModel(folder).max_seq_length == 11
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 1000})
    assert EmbeddingModel(folder).max_seq_length == 64


def test_cut_texts_are_counted_and_told_of_once(small: EmbeddingModel, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["happy " * words for words in (5, 62, 63, 500)]
    batch = small.tokenize(texts)
    assert batch.token_counts.tolist() == [7, 64, 65, 502]
    assert batch.lengths.tolist() == [7, 64, 64, 64]
    with caplog.at_level(logging.WARNING, "gte_np"):
        small.encode(texts, batch_size=1)
    assert [record.getMessage() for record in caplog.records] == ["2 of 4 texts were cut to 64 tokens."]


def test_similarity_is_the_repository_s(folder: Path, small: EmbeddingModel) -> None:
    vectors = small.encode(TEXTS)
    assert small.similarity_fn_name == "cosine"
    assert np.array_equal(small.similarity(vectors, vectors), cos_sim(vectors, vectors))
    write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "euclidean"})
    model = EmbeddingModel(folder)
    assert model.similarity(vectors[:1], vectors[1:])[0, 0] == pytest.approx(
        -np.linalg.norm(vectors[0] - vectors[1]), abs=1e-6
    )
    assert model.similarity_pairwise(vectors, vectors).shape == (len(TEXTS),)
    model.similarity_fn_name = "dot"
    assert model.similarity(vectors[0], vectors[0])[0, 0] == pytest.approx(1, abs=1e-6)
    with pytest.raises(InputError, match="cosine, dot, euclidean, manhattan, got 'angle'"):
        model.similarity_fn_name = "angle"


def test_paraphrase_mining(small: EmbeddingModel) -> None:
    best = paraphrase_mining(small, ["happy person", "中国的首都", "happy person", "今天"], max_pairs=1)
    assert best[0][1:] == (0, 2)
    assert best[0][0] == pytest.approx(1, abs=1e-6)


def test_progress(small: EmbeddingModel, capsys: pytest.CaptureFixture[str]) -> None:
    small.encode(TEXTS)
    assert capsys.readouterr().err == ""
    small.encode(TEXTS, show_progress_bar=True)
    assert "100%" in capsys.readouterr().err


class Word(str, Enum):  # what people have
    HAPPY = "happy person"


def test_a_str_of_another_class_is_its_characters(small: EmbeddingModel) -> None:
    assert np.array_equal(small.encode([Word.HAPPY]), small.encode(["happy person"]))


def test_memory_does_not_follow_the_texts(small_folder: Path) -> None:
    program = (
        "import sys, resource, gte_np\n"
        "model = gte_np.EmbeddingModel(sys.argv[1])\n"
        "model.max_seq_length = 8\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "model.encode(['happy'] * 100)\n"
        "before = peak()\n"
        "model.encode(['中国' * 1000] * 4096)\n"
        "print((peak() - before) // (2**20 if sys.platform == 'darwin' else 2**10))"  # bytes there, else KB
    )
    command = [sys.executable, "-W", "error", "-c", program, str(small_folder)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert int(done.stdout) < 250  # MB; it was 2200 when all texts were tokenized at once


# What a person, or someone worse, may hand to encode: the error, or None where it has a vector.
HOSTILE: list[tuple[Any, type[Exception] | None, str]] = [
    (None, TypeError, "an iterable of str, such as a list, got NoneType"),
    (3, TypeError, "an iterable of str, such as a list, got int"),
    (3.5, TypeError, "an iterable of str, such as a list, got float"),
    (b"bytes", TypeError, "an iterable of str, such as a list, got bytes"),
    ({"a": "b"}, TypeError, "an iterable of str, such as a list, got dict"),
    ([None], TypeError, "got NoneType as text 0"),
    (["fine", 3], TypeError, "got int as text 1"),
    ([b"bytes"], TypeError, "got bytes as text 0"),
    ([["a", "list"], ["of", "lists"]], TypeError, "got list as text 0"),
    ({"a", "b"}, TypeError, "such as a list, got set"),
    (np.zeros(3), TypeError, "got float64 as text 0"),
    ("\ud83d", InputError, "lone surrogate in text 0, character 0"),
    (["fine", "half a smile: \ude00"], InputError, "lone surrogate in text 1, character 14"),
    ("", None, ""),
    ("   \t\n", None, ""),
    ("\0", None, ""),
    ("a\0b", None, ""),
    ("[CLS] [SEP] [PAD] [MASK] [UNK]", None, ""),
    ("\u202e\u2066\ufeff\u200b", None, ""),
    ("e" + "\u0301" * 100_000, None, ""),
    ("a" * 100_000_000, None, ""),
    ("happy person " * 8_000_000, None, ""),
    (["x"] * 5000, None, ""),
]


@pytest.mark.parametrize(("sentences", "error", "message"), HOSTILE)
def test_hostile_input(small: EmbeddingModel, sentences: Any, error: type[Exception] | None, message: str) -> None:
    if error is not None:
        with pytest.raises(error, match=message):
            small.encode(sentences)
        return
    vectors = np.atleast_2d(small.encode(sentences))
    assert np.isfinite(vectors).all()
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)


def test_an_endless_text_has_the_vector_of_its_beginning(small: EmbeddingModel) -> None:
    endless = small.encode("happy person " * 8_000_000)
    assert np.array_equal(endless, small.encode("happy person " * 50))


@pytest.mark.parametrize("text", ["", "  \n", "\0"])
def test_a_text_of_nothing_is_its_two_special_tokens(small: EmbeddingModel, text: str) -> None:
    assert small.tokenize([text])[0].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, InputError, "batch_size to be at least 1"),
        ({"batch_size": "32"}, TypeError, "batch_size to be an int"),
        ({"precision": "float16"}, InputError, "precision to be one of"),
        ({"output_value": "hidden"}, InputError, "output_value to be one of sentence_embedding, token_embeddings"),
        ({"output_value": "token_embeddings", "precision": "int8"}, InputError, "float32 with token_embeddings"),
        ({"truncate_dim": 0}, InputError, "truncate_dim to be from 1 to 32"),
        ({"truncate_dim": 33}, InputError, "truncate_dim to be from 1 to 32, got 33"),
        ({"truncate_dim": 1.5}, TypeError, "truncate_dim to be an int"),
        ({"prompt": 3}, TypeError, "prompt to be a str"),
        ({"prompt_name": "x"}, InputError, "prompt name among"),
    ],
)
def test_options_that_cannot_be(
    small: EmbeddingModel, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        small.encode(["happy"], **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"truncate_dim": 99}, InputError, "truncate_dim to be from 1 to 32"),
        ({"prompts": ["a"]}, TypeError, "prompts to map names to texts"),
        ({"prompts": {"query": 3}}, TypeError, "prompt 'query' to be a str"),
        ({"pooling": "best"}, Exception, "pooling mode 'best' is not implemented"),
    ],
)
def test_models_that_cannot_be(
    small_folder: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        EmbeddingModel(small_folder, **options)


def test_the_table_of_known_models() -> None:
    assert len(KNOWN_MODELS) == 15
    for name, known in KNOWN_MODELS.items():
        assert known.name == name
        assert known.prompts.keys() <= {"query", "document"}
    assert KNOWN_MODELS["BAAI/bge-large-zh-v1.5"].prompts == {"query": "为这个句子生成表示以用于检索相关文章\uff1a"}
    assert KNOWN_MODELS["sensenova/piccolo-base-zh"].prompts == {"query": "查询\u003a ", "document": "结果\u003a "}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"normalize_embeddings": "no"}, TypeError, "normalize_embeddings to be True, False or None, got str"),
        ({"normalize_embeddings": 1}, TypeError, "got int"),
        ({"show_progress_bar": "no"}, TypeError, "show_progress_bar to be True, False or None, got str"),
        ({"prompt_name": ["query"]}, TypeError, "prompt_name to be a str, got list"),
        ({"prompt_name": 3}, TypeError, "prompt_name to be a str, got int"),
        ({"batch_size": True}, TypeError, "batch_size to be an int, got bool"),
        ({"precision": None}, TypeError, "precision to be a str"),
        ({"output_value": 3}, TypeError, "output_value to be a str"),
    ],
)
def test_options_of_another_type(
    small: EmbeddingModel, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        small.encode(["happy"], **options)


def test_numpy_s_truths_are_truths(small: EmbeddingModel) -> None:
    for truth in (True, False):
        numpy_s = np.bool_(truth)
        vectors = small.encode(TEXTS, normalize_embeddings=numpy_s, show_progress_bar=np.bool_(False))  # type: ignore[arg-type]
        assert np.array_equal(vectors, small.encode(TEXTS, normalize_embeddings=truth))


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("truncate_dim", 99999, InputError, "truncate_dim to be from 1 to 32, got 99999"),
        ("truncate_dim", 0, InputError, "from 1 to 32, got 0"),
        ("truncate_dim", "8", TypeError, "truncate_dim to be an int"),
        ("max_seq_length", 99999, InputError, "from 2 to 64"),
        ("max_seq_length", None, TypeError, "max_seq_length to be an int"),
        ("prompts", ["query"], TypeError, "prompts to map names to texts, got list"),
        ("prompts", {"query": 3}, TypeError, "prompt 'query' to be a str"),
        ("prompts", {3: "query"}, TypeError, "the name of a prompt to be a str, got int"),
        ("default_prompt_name", "nothing", InputError, "a prompt name among query, document, got 'nothing'"),
        ("default_prompt_name", 3, TypeError, "default_prompt_name to be a str"),
        ("similarity_fn_name", "angle", InputError, "got 'angle'"),
        ("similarity_fn_name", None, TypeError, "similarity_fn_name to be a str"),
    ],
)
def test_settings_that_cannot_be(folder: Path, name: str, value: Any, error: type[Exception], message: str) -> None:
    model = EmbeddingModel(folder)
    before = getattr(model, name)
    with pytest.raises(error, match=message):
        setattr(model, name, value)
    assert getattr(model, name) == before
    assert np.array_equal(model.encode("happy"), EmbeddingModel(folder).encode("happy"))


@pytest.mark.parametrize("name", ["tokenizer", "bert", "pooling_modes", "modules", "folder", "transformer_folder"])
def test_what_was_loaded_is_not_set(small: EmbeddingModel, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(small, name, getattr(small, name))


def test_what_may_be_set(folder: Path) -> None:
    model = EmbeddingModel(folder)
    full = model.encode("happy")
    model.truncate_dim = 8
    assert model.get_sentence_embedding_dimension() == 8
    assert np.array_equal(model.encode("happy"), full[:8])
    model.truncate_dim = None
    assert model.get_sentence_embedding_dimension() == 32
    given = {"query": "is ", "passage": "that "}
    model.prompts = given
    model.default_prompt_name = "passage"
    assert np.array_equal(model.encode("happy"), model.encode("that happy", prompt=""))
    assert given == {"query": "is ", "passage": "that "}
    given["passage"] = "very "
    assert model.prompts["passage"] == "that "
    model.prompts["passage"] = "very "
    assert np.array_equal(model.encode("happy"), model.encode("very happy", prompt=""))
    model.prompts["passage"] = 3  # type: ignore[assignment]
    with pytest.raises(TypeError, match="prompt 'passage' to be a str, got int"):
        model.encode("happy")
    del model.prompts["passage"]
    with pytest.raises(InputError, match="a prompt name among query, got 'passage'"):
        model.encode("happy")
    model.default_prompt_name = None
    assert np.array_equal(model.encode("happy"), full)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"local_files_only": "no"}, TypeError, "local_files_only to be True or False, got str"),
        ({"prompts": {3: "a"}}, TypeError, "the name of a prompt to be a str"),
        ({"default_prompt_name": 3}, TypeError, "default_prompt_name to be a str"),
        ({"pooling": 3}, TypeError, "pooling to be a str"),
        ({"pooling": ["cls"]}, TypeError, "pooling to be a str"),
    ],
)
def test_models_of_another_type(small_folder: Path, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EmbeddingModel(small_folder, **options)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_one_line_says_what_a_model_is(backend: str, folder: Path) -> None:
    model = EmbeddingModel(folder, backend=backend, dtype="int8", truncate_dim=8)
    model.max_seq_length = 20
    place = repr(str(folder))
    rest = f"dtype='int8', backend='{backend}')"
    assert repr(model) == f"EmbeddingModel({place}, dimension=8, pooling='mean', max_seq_length=20, {rest}"
    assert repr(model.bert) == f"BertModel({place}, num_hidden_layers=2, hidden_size=32, {rest}"
    words = len((folder / "vocab.txt").read_text("utf-8").splitlines())
    assert repr(model.tokenizer) == f"Tokenizer({place}, vocab_size={words}, model_max_length=64)"


# --- any iterable, and streams --------------------------------------------------------------------------------------


class ArrowColumn:
    """What a column of Arrow shows of itself: its elements are no str, unless asked for."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __iter__(self) -> Iterator[object]:
        return iter([object() for _ in self.texts])

    def to_pylist(self) -> list[str]:
        return self.texts


@pytest.mark.parametrize("kind", [tuple, iter, ArrowColumn, np.array, lambda texts: (text for text in texts)])
def test_texts_of_any_iterable(small: EmbeddingModel, kind: Callable[[list[str]], Any]) -> None:
    texts = ["happy person", "北京"]
    assert np.array_equal(small.encode(kind(texts)), small.encode(texts))


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of a few texts, so that a few texts make many of them."""
    monkeypatch.setattr(pipeline_module, "TEXTS_AT_ONCE", 5)


def nobody_works() -> bool:
    """Whether all threads of the pool are idle."""
    threads = [thread for thread in threading.enumerate() if thread.name == "gte_np"]
    return bool(threads) and len(pool()._idle) == len(threads)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("count", [0, 1, 5, 6, 10, 37])
def test_a_stream_gives_the_vectors_of_encode(small: EmbeddingModel, count: int) -> None:
    texts = [f"happy person {number % 23} " * (number % 7) for number in range(count)]
    vectors = list(small.encode_stream(iter(texts), prompt="very ", truncate_dim=7))
    assert len(vectors) == count
    if count:
        assert np.array_equal(np.stack(vectors), small.encode(texts, prompt="very ", truncate_dim=7))


@pytest.mark.usefixtures("small_windows")
def test_an_endless_stream_is_read_two_windows_ahead_and_leaves_nothing_running(small: EmbeddingModel) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"text {taken}"

    stream = small.encode_stream(endless())
    for _ in range(100):
        next(stream)
    assert taken <= 110
    stream.close()  # type: ignore[attr-defined]
    assert nobody_works()


@pytest.mark.usefixtures("small_windows")
def test_an_error_in_a_stream_leaves_nothing_running(small: EmbeddingModel) -> None:
    def texts() -> Iterator[str]:
        yield from (f"text {number}" for number in range(23))
        raise OSError("the disk is gone")

    vectors: list[np.ndarray] = []
    with pytest.raises(OSError, match="the disk is gone"):
        vectors.extend(small.encode_stream(texts()))
    assert len(vectors) == 15
    with pytest.raises(InputError, match="lone surrogate in text 17"):
        list(small.encode_stream(["fine"] * 17 + ["\ud800"]))
    assert nobody_works()


def test_mistakes_are_told_of_before_a_stream_begins(small: EmbeddingModel) -> None:
    for sentences, options, message in (
        ("text", {}, "an iterable of str, got str"),
        ([], {"batch_size": 0}, "batch_size to be at least 1"),
        ([], {"prompt_name": "x"}, "a prompt name among"),
    ):
        with pytest.raises((TypeError, InputError), match=message):
            small.encode_stream(sentences, **options)


def test_ranges_put_a_query_on_the_scale_of_a_corpus(small: EmbeddingModel) -> None:
    corpus = small.encode([f"happy person {number}" for number in range(200)])
    ranges = np.stack([corpus.min(axis=0), corpus.max(axis=0)])
    quantized = small.encode("happy person 7", precision="int8", ranges=ranges)
    assert np.array_equal(quantized, quantize_embeddings(corpus, "int8")[7])
