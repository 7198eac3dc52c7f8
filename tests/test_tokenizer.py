"""The tokenizer: files in every form, cutting, long texts. Equality with transformers is in test_golden."""

from __future__ import annotations

import json
import random
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from gte_np import CheckpointError, InputError, ModelNotFoundError, Tokenizer, UnsupportedModelError
from gte_np.tokenization import text_pieces as text_pieces_module
from gte_np.tokenization import tokenizer as tokenizer_module
from tests.checkpoints import CHINESE, SMALL_VOCAB, write_json, write_vocab
from tests.texts import generated


@pytest.fixture(scope="module")
def chinese() -> Tokenizer:
    return Tokenizer.from_folder(CHINESE)


def tokenizer_json(vocab: dict[str, Any], **model: Any) -> dict[str, Any]:
    """A tokenizer.json that says lowercase false, which tokenizer_config.json overrides."""
    return {
        "version": "1.0",
        "added_tokens": [{"id": 2, "content": "[CLS]", "special": True, "normalized": False, "single_word": False}],
        "normalizer": {"type": "BertNormalizer", "lowercase": False},
        "model": {"type": "WordPiece", "vocab": vocab, **model},
    }


SPECIAL = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}


def write_tokenizer_json(folder: Path, content: Any) -> Path:
    """Write it and return the folder."""
    write_json(folder / "tokenizer.json", content)
    return folder


def test_vocab_txt_and_tokenizer_json_give_the_same(tmp_path: Path) -> None:
    write_vocab(tmp_path / "text", SMALL_VOCAB, do_lower_case=True)
    vocab = SPECIAL | {token: index for index, token in enumerate(SMALL_VOCAB, 5)}
    write_json(tmp_path / "json" / "tokenizer_config.json", {"do_lower_case": True})
    write_tokenizer_json(tmp_path / "json", tokenizer_json(vocab))
    texts = ["Happy PERSON, 中国!", "x" * 101, "héllo [SEP] [MASK]"]
    text, from_json = (Tokenizer.from_folder(tmp_path / name).tokenize(texts) for name in ("text", "json"))
    assert text.input_ids.tolist() == from_json.input_ids.tolist()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, ["[UNK]", "中", "happy"]),  # BertTokenizer's own default is to lowercase and to strip accents
        ({"do_lower_case": False}, ["[UNK]", "中", "[UNK]"]),
        ({"tokenize_chinese_chars": False}, ["[UNK]", "[UNK]"]),
        ({"strip_accents": False}, ["[UNK]", "中", "[UNK]"]),
    ],
)
def test_tokenizer_config_decides_how_a_text_is_normalised(
    tmp_path: Path, config: dict[str, Any], words: list[str]
) -> None:
    write_vocab(tmp_path, ["中", "happy"], **config)
    vocab = [*SPECIAL, "中", "happy"]
    ids = Tokenizer.from_folder(tmp_path).tokenize(["x 中HÁPPY"])[0]
    assert [vocab[token_id] for token_id in ids[1:-1]] == words


def test_added_tokens_json_is_read(tmp_path: Path) -> None:
    write_vocab(tmp_path, ["a", "foo"])
    write_json(tmp_path / "added_tokens.json", {"foo": 6})
    assert Tokenizer.from_folder(tmp_path).tokenize(["afooa"])[0].tolist() == [2, 5, 6, 5, 3]


def test_special_tokens_of_other_names(tmp_path: Path) -> None:
    write_vocab(tmp_path, ["<s>", "</s>", "a"], cls_token="<s>", sep_token={"content": "</s>"})
    assert Tokenizer.from_folder(tmp_path).tokenize(["a <s>"])[0].tolist() == [5, 7, 5, 6]
    write_vocab(tmp_path, ["<s>", "</s>", "a"])
    write_json(tmp_path / "special_tokens_map.json", {"cls_token": "<s>", "sep_token": "</s>"})
    assert Tokenizer.from_folder(tmp_path).tokenize(["a"])[0].tolist() == [5, 7, 6]


def test_sentence_transformers_lowercases_before_a_cased_tokenizer(tmp_path: Path) -> None:
    write_vocab(tmp_path, ["happy", "é"], do_lower_case=False)
    tokenizer = Tokenizer.from_folder(tmp_path, lowercase_first=True)
    assert tokenizer.tokenize(["HAPPY É"])[0].tolist() == [2, 5, 6, 3]  # accents are kept


def test_the_card_s_call(chinese: Tokenizer) -> None:
    texts = ["中国的首都是哪里", "北京"]
    batch = chinese(texts, max_length=512, padding=True, truncation=True, return_tensors="pt")
    assert {name: array.shape for name, array in batch.items()} == dict.fromkeys(
        ("input_ids", "token_type_ids", "attention_mask"), (2, 10)
    )
    assert batch["attention_mask"].tolist()[1] == [1] * 4 + [0] * 6
    assert {array.dtype.name for array in batch.values()} == {"int64"}


def test_lists_without_padding(chinese: Tokenizer) -> None:
    batch = chinese(["北京", "北"])
    assert batch["input_ids"] == [[101, 1266, 776, 102], [101, 1266, 102]]
    assert batch["attention_mask"] == [[1] * 4, [1] * 3]
    assert chinese("北京")["input_ids"] == [101, 1266, 776, 102]
    assert chinese([], padding=True)["input_ids"].shape == (0, 0)
    assert chinese("北京", max_length=3)["input_ids"] == [101, 1266, 102]
    assert len(chinese("北京", max_length=3, truncation=False)["input_ids"]) == 4


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        (["北京", "北"], {"return_tensors": "np"}, InputError, "padding=True"),
        (["北京"], {"return_tensors": "tf"}, InputError, "'np' or 'pt'"),
        (["北京"], {"padding": "max_length"}, InputError, "padding to be one of True, 'longest'"),
        (["北京"], {"truncation": "only_first"}, InputError, "truncation to be one of"),
        (["北京"], {"truncation": True, "max_length": 0}, InputError, "at least 2"),
        (["北京"], {"truncation": True, "max_length": 1}, InputError, "at least 2"),
        (["北京"], {"truncation": True, "max_length": 2.5}, TypeError, "max_length to be an int"),
    ],
)
def test_calls_that_cannot_be(
    chinese: Tokenizer, texts: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        chinese(texts, **options)


@pytest.mark.parametrize("length", [2, 3, 8, 511, 512, 513])
def test_cutting_keeps_both_ends(chinese: Tokenizer, length: int) -> None:
    batch = chinese.tokenize(["中" * 510, "中" * 9000], length)
    for text, count in enumerate((512, 9002)):
        assert batch[text][0] == 101
        assert batch[text][-1] == 102
        assert len(batch[text]) == min(length, count)
        assert batch.token_counts[text] == count


@pytest.mark.parametrize("length", [2, 3, 5, 10, 11])
def test_cutting_the_beginning_keeps_both_ends(chinese: Tokenizer, length: int) -> None:
    whole = chinese.tokenize(["中国的首都是哪里"])[0]
    expected = [101, *whole[1:-1].tolist()[max(0, 10 - length) :], 102]
    assert chinese.cut_beginning(whole, length).tolist() == expected


def test_tokens_of_a_text(chinese: Tokenizer) -> None:
    text = "Paris 北京!"
    tokens = chinese.tokens_of(text)
    assert [token.id for token in tokens] == chinese.tokenize([text])[0].tolist()
    assert (tokens[0], tokens[-1]) == ((101, "[CLS]", True, None, None), (102, "[SEP]", True, None, None))
    bare = chinese.tokens_of(text, special_tokens=False)
    assert bare == tokens[1:-1]
    assert [text[token.start : token.stop] for token in bare] == [token.text for token in bare]
    assert [token.text for token in bare][-3:] == ["北", "京", "!"]
    with pytest.raises(TypeError, match="expected texts that are str, got int"):
        chinese.tokens_of(7)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lone surrogate"):
        chinese.tokens_of("\ud800")


def test_ids_to_tokens_and_back(chinese: Tokenizer) -> None:
    ids = chinese.tokenize(["北京 paris"])[0]
    tokens = chinese.convert_ids_to_tokens(ids)
    assert tokens == ["[CLS]", "北", "京", "paris", "[SEP]"]
    assert chinese.convert_ids_to_tokens(ids.tolist(), skip_special_tokens=True) == tokens[1:-1]
    assert chinese.convert_tokens_to_ids(tokens) == ids.tolist()
    assert chinese.convert_ids_to_tokens(101) == "[CLS]"
    assert chinese.convert_tokens_to_ids("[SEP]") == 102
    assert chinese.convert_tokens_to_ids("no token") == chinese.unk_token_id
    assert chinese.convert_ids_to_tokens([]) == []
    assert chinese.convert_tokens_to_ids([]) == []
    with pytest.raises(TypeError, match="texts that are str, got int"):
        chinese.convert_tokens_to_ids([7])  # type: ignore[list-item]


def test_decode(chinese: Tokenizer) -> None:
    ids = chinese.tokenize(["北京 paris"])[0]
    assert chinese.decode(ids) == "[CLS] 北 京 paris [SEP]"
    assert chinese.decode(ids.tolist(), skip_special_tokens=True) == "北 京 paris"
    assert chinese.decode(int(ids[1])) == "北"
    assert chinese.tokens_of("\u16a0")[1].id == chinese.unk_token_id


def test_decode_joins_words_and_punctuation(minilm_folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(minilm_folder)
    ids = tokenizer.tokenize(["Embeddings don't lie, do they?"])[0]
    tokens = "[CLS] em ##bed ##ding ##s don ' t lie , do they ? [SEP]"
    assert tokenizer.convert_ids_to_tokens(ids) == tokens.split()
    assert tokenizer.decode(ids, skip_special_tokens=True) == "embeddings don ' t lie, do they?"  # so in transformers


def test_the_size_of_the_vocabulary_leaves_added_tokens_out(tmp_path: Path) -> None:
    write_vocab(tmp_path, ["a"])
    write_json(tmp_path / "added_tokens.json", {"foo": 6})
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.vocab_size == 6
    assert tokenizer.largest_id == 6
    assert tokenizer.convert_ids_to_tokens([6, 2], skip_special_tokens=True) == ["foo"]


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1.5], TypeError, "token ids to be integers"),
        ([True], TypeError, "token ids to be integers"),
        ([-1], InputError, "token ids from 0"),
        (10**6, InputError, "token ids from 0"),
        ([[101], [102]], InputError, r"one text, got an array of shape \(2, 1\)"),
    ],
)
def test_ids_that_are_none(chinese: Tokenizer, ids: Any, error: type[Exception], message: str) -> None:
    for convert in (chinese.decode, chinese.convert_ids_to_tokens):
        with pytest.raises(error, match=message):
            convert(ids)


def test_an_id_that_the_vocabulary_leaves_out(tmp_path: Path) -> None:
    folder = write_tokenizer_json(tmp_path, tokenizer_json(SPECIAL | {"a": 9}))
    with pytest.raises(InputError, match="token ids of the vocabulary, got 7"):
        Tokenizer.from_folder(folder).convert_ids_to_tokens([9, 7])


def test_without_a_length_nothing_is_cut(chinese: Tokenizer) -> None:
    assert chinese.tokenize(["中" * 9000]).lengths.tolist() == [9002]


@pytest.mark.parametrize("size", [3, 50])
def test_pieces_give_the_tokens_of_the_whole(
    chinese: Tokenizer, minilm_folder: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = list(islice(generated(4000, seed=7), 1500))
    for tokenizer in (chinese, Tokenizer.from_folder(minilm_folder)):
        whole = tokenizer.tokenize(texts)
        monkeypatch.setattr(text_pieces_module, "PIECE_CHARACTERS", size)
        monkeypatch.setattr(tokenizer_module, "PIECE_CHARACTERS", size)
        pieces = tokenizer.tokenize(texts)
        cut = tokenizer.tokenize(texts, 12, count_all=False)
        monkeypatch.undo()
        assert [pieces[text].tolist() for text in range(len(texts))] == [
            whole[text].tolist() for text in range(len(texts))
        ]
        assert pieces.token_counts.tolist() == whole.token_counts.tolist()
        expected = tokenizer.tokenize(texts, 12)
        assert cut.input_ids.tolist() == expected.input_ids.tolist()
        assert (cut.token_counts > 12).tolist() == (expected.token_counts > 12).tolist()


@pytest.mark.parametrize(
    ("unit", "tokens"),
    [
        ("hello world, ", 512),
        ("中", 512),
        ("[CLS]", 512),
        ("[", 512),
        ("a", 3),  # one word, too long to be known
        (" ", 2),
        ("\0", 2),
        ("\u0301", 2),
    ],
)
def test_a_text_of_100_mb_is_read_as_far_as_needed(minilm_folder: Path, unit: str, tokens: int) -> None:
    text = unit * (100_000_000 // len(unit.encode()))
    tokenizer = Tokenizer.from_folder(minilm_folder)
    start = time.perf_counter()
    batch = tokenizer.tokenize([text], 512, count_all=False)
    assert len(batch[0]) == tokens
    if tokens == 512:  # the others are read to the end, or a token there would be missed
        assert batch.token_counts[0] < 10_000, f"{time.perf_counter() - start:.1f} s"


def test_a_word_that_never_ends_hides_nothing(chinese: Tokenizer) -> None:
    text = "a" * 50_000 + "\0\u0301" * 10_000 + "b" * 50_000 + " 北京 " + "[CL" + "S" * 9000 + "]" + "か" * 20_000
    batch = chinese.tokenize([text])
    assert batch[0].tolist() == [101, 100, 1266, 776, 138, 100, 140, 100, 102]


def test_pieces_with_added_tokens_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random.Random(0)
    contents = ["<q>", "[A_B]", "foo", "x y", "[[", "aa-bb", "]x", "happy", "中b", "--"]
    parts = [
        *contents,
        "[CLS]",
        "é",
        "中",
        "北京",
        "   ",
        "\0",
        "_",
        "HAPPY",
        "<Q>",
        "😀",
        "b" * 120,
        "\u0301",
        "]",
        "a",
    ]
    for number in range(25):
        tokens = source.sample(contents, source.randrange(1, 4))
        flags = ("special", "normalized", "single_word", "lstrip", "rstrip")
        added = {
            str(len(SPECIAL) + index): {"content": token} | {flag: source.random() < 0.3 for flag in flags}
            for index, token in enumerate(tokens)
        }
        write_vocab(tmp_path / str(number), [*tokens, *SMALL_VOCAB], added_tokens_decoder=added)
        tokenizer = Tokenizer.from_folder(tmp_path / str(number))
        texts = ["".join(source.choices(parts, k=source.randrange(1, 40))) for _ in range(40)]
        whole = tokenizer.tokenize(texts).input_ids.tolist()
        for size in (3, 8, 40):
            monkeypatch.setattr(text_pieces_module, "PIECE_CHARACTERS", size)
            monkeypatch.setattr(tokenizer_module, "PIECE_CHARACTERS", size)
            assert tokenizer.tokenize(texts).input_ids.tolist() == whole, tokens
            monkeypatch.undo()


def test_added_tokens_that_forbid_cutting(tmp_path: Path) -> None:
    write_vocab(tmp_path, ["aa", "a", "##a"], added_tokens_decoder={"5": {"content": "aa", "normalized": True}})
    batch = Tokenizer.from_folder(tmp_path).tokenize(["a" * 10_001])
    assert batch.token_counts.tolist() == [5003]


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("one text", TypeError, "an iterable of str, such as a list, got str"),
        (b"bytes", TypeError, "an iterable of str, such as a list, got bytes"),
        (None, TypeError, "an iterable of str, such as a list, got NoneType"),
        (3, TypeError, "got int"),
        ({"a": 1}, TypeError, "got dict"),
        (["a", 3], TypeError, "got int as text 1"),
        ([["a", "b"]], TypeError, "got list as text 0"),
        (["fine", "\ud800"], InputError, "lone surrogate in text 1, character 0"),
        (["中" * (1 << 20) + "\udfff"], InputError, "lone surrogate in text 0, character 1048576"),
    ],
)
def test_what_is_no_list_of_texts(chinese: Tokenizer, texts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        chinese.tokenize(texts)


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({}, ModelNotFoundError, "expected tokenizer.json or vocab.txt"),
        ({"tokenizer.json": "{"}, CheckpointError, "UTF-8 JSON"),
        ({"tokenizer.json": "[1]"}, CheckpointError, "expected a JSON object, got a list"),
        ({"tokenizer.json": "[" * 100_000}, CheckpointError, "UTF-8 JSON"),
        ({"tokenizer.json": '{"model": 3}'}, CheckpointError, "expected model to be an object, got 3"),
        ({"tokenizer.json": '{"model": {"vocab": []}}'}, CheckpointError, "token to id"),
        ({"tokenizer.json": json.dumps(tokenizer_json({"a": -1}))}, CheckpointError, "token to id"),
        ({"tokenizer.json": json.dumps(tokenizer_json({"a": True}))}, CheckpointError, "token to id"),
        ({"tokenizer.json": json.dumps(tokenizer_json({"a": 0}))}, CheckpointError, r"missing: \[UNK\], \[SEP\]"),
        (
            {"tokenizer.json": json.dumps(tokenizer_json({**SPECIAL, "\ud800": 9}))},
            CheckpointError,
            "vocabulary of tokens",
        ),
        ({"tokenizer.json": json.dumps(tokenizer_json({}, type="BPE"))}, UnsupportedModelError, "type 'BPE'"),
        (
            {"tokenizer.json": json.dumps(tokenizer_json({}, max_input_chars_per_word=9))},
            UnsupportedModelError,
            "max_input_chars_per_word 9",
        ),
        ({"vocab.txt": b"\xff\xfe"}, CheckpointError, "one token a line in UTF-8"),
        ({"vocab.txt": "a\nb\n"}, CheckpointError, "special tokens in the vocabulary"),
        (
            {"tokenizer_config.json": '{"tokenizer_class": "XLMRobertaTokenizer"}'},
            UnsupportedModelError,
            "'XLMRobertaTokenizer' is not implemented",
        ),
        (
            {"tokenizer_config.json": '{"do_lower_case": "yes"}', "vocab.txt": "a"},
            CheckpointError,
            "true or false, got 'yes'",
        ),
        (
            {"tokenizer_config.json": '{"cls_token": 3}', "vocab.txt": "a"},
            CheckpointError,
            "cls_token to be a string",
        ),
        ({"tokenizer_config.json": '{"model_max_length": -1}', "vocab.txt": "a"}, CheckpointError, "positive number"),
        (
            {"tokenizer_config.json": '{"added_tokens_decoder": {"x": 1}}', "vocab.txt": "a"},
            CheckpointError,
            "added tokens with id and content",
        ),
        (
            {"tokenizer_config.json": '{"eos_token": "<s>"}', "vocab.txt": "a"},
            UnsupportedModelError,
            "eos_token '<s>'",
        ),
        (
            {"special_tokens_map.json": '{"additional_special_tokens": ["<s>"]}', "vocab.txt": "a"},
            UnsupportedModelError,
            "additional_special_tokens '<s>'",
        ),
        ({"tokenizer_config.json": '{"added_tokens_decoder": 7}', "vocab.txt": "a"}, CheckpointError, "added tokens"),
        ({"tokenizer_config.json": '{"model_max_length": 1}', "vocab.txt": "a"}, CheckpointError, "at least 2"),
        ({"tokenizer.json": '{"model": {"type": ["WordPiece"]}}'}, UnsupportedModelError, "not implemented"),
    ],
)
def test_files_that_are_broken(
    tmp_path: Path, files: dict[str, str | bytes], error: type[Exception], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=message):
        Tokenizer.from_folder(tmp_path)
