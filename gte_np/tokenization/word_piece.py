"""tokenizer.json or vocab.txt, with tokenizer_config.json -> BERT's WordPiece in the tokenizers library.

transformers' BertTokenizer takes the vocabulary from tokenizer.json (else vocab.txt), and the way to normalise a
text from tokenizer_config.json, where an absent key means its own default, even if tokenizer.json says otherwise.
So does this. A tokenizer of another kind is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from gte_np.checkpoint.json_file import Fields
from gte_np.errors import CheckpointError, ModelNotFoundError, UnsupportedModelError
from gte_np.tokenization.text_encoder import TextEncoder
from gte_np.tokenization.text_pieces import MAX_WORD_CHARACTERS, TextPieces

TOKENIZER_CLASSES = ("BertTokenizer", "BertTokenizerFast")
SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
_NEEDED = ("unk_token", "sep_token", "pad_token", "cls_token")
_WORDPIECE = {"type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": MAX_WORD_CHARACTERS}


class TokenizerFiles(NamedTuple):
    """What the tokenizer files of a checkpoint say.

    `special_tokens` has the keys of `SPECIAL_TOKENS`. `added_tokens` are those that are found in a text as they
    stand, before it is split into words. `model_max_length` is 1e30 where the files set no limit.
    """

    vocab: dict[str, int]
    special_tokens: dict[str, str]
    added_tokens: list[AddedToken]
    do_lower_case: bool
    strip_accents: bool | None
    tokenize_chinese_chars: bool
    model_max_length: float


def read_tokenizer_files(folder: Path, tokenizer: Fields) -> TokenizerFiles:
    """Read the tokenizer files of a checkpoint folder, of which `tokenizer` is tokenizer.json.

    Raises ModelNotFoundError if there is neither tokenizer.json nor vocab.txt, CheckpointError for damaged files,
    and UnsupportedModelError for a tokenizer that is not BERT's WordPiece.
    """
    config = Fields.of_optional(folder / "tokenizer_config.json")
    config.expect("truncation_side", ("right", None))
    config.expect("padding_side", ("right", None))
    config.expect("split_special_tokens", (False, None))
    tokenizer_class = config.values.get("tokenizer_class") or TOKENIZER_CLASSES[0]
    if tokenizer_class not in TOKENIZER_CLASSES:
        raise UnsupportedModelError(
            f"{config.path}: tokenizer_class {tokenizer_class!r:.80} is not implemented; "
            f"gte_np implements {TOKENIZER_CLASSES[0]}."
        )
    special_values = _special_values(folder, config)
    special_tokens = _special_tokens(special_values)
    added_tokens = _added_tokens(config, tokenizer, special_tokens)
    _refuse_others(special_values, {token.content for token in added_tokens})
    return TokenizerFiles(
        vocab=_vocab_of_json(tokenizer) if tokenizer.values else _vocab_of_text(folder / "vocab.txt"),
        special_tokens=special_tokens,
        added_tokens=added_tokens,
        do_lower_case=config.boolean("do_lower_case", True),
        strip_accents=config.boolean("strip_accents", None),
        tokenize_chinese_chars=config.boolean("tokenize_chinese_chars", True),
        model_max_length=_limit(config),
    )


def read_word_piece(folder: Path, tokenizer: Fields, lowercase_first: bool) -> TextEncoder:
    """BERT's WordPiece with the files of a folder, of which `tokenizer` is tokenizer.json.

    Errors are those of `read_tokenizer_files` and `build_word_piece`.
    """
    files = read_tokenizer_files(folder, tokenizer)
    backend = build_word_piece(files, lowercase_first)
    ids = {key: files.vocab[token] for key, token in files.special_tokens.items() if token in files.vocab}
    limit = int(files.model_max_length) if files.model_max_length < 2**31 else None
    added = (backend.token_to_id(token.content) for token in files.added_tokens)  # None for a token without letters
    return TextEncoder(
        backend,
        before=(ids["cls_token"],),
        behind=(ids["sep_token"],),
        pad_id=ids["pad_token"],
        unk_id=ids["unk_token"],
        largest_id=max([*files.vocab.values(), *(number for number in added if number is not None)]),
        pieces=TextPieces(backend, files.added_tokens).of,
        model_max_length=limit,
    )


def build_word_piece(files: TokenizerFiles, lowercase_first: bool) -> Tokenizer:
    """Make the tokenizer that the files describe, as transformers' BertTokenizer does.

    `lowercase_first` is sentence-transformers' own do_lower_case: it lowercases the text and nothing else, where
    BERT's would strip accents too. Raises CheckpointError if the vocabulary cannot be used.
    """
    missing = [token for key, token in files.special_tokens.items() if key in _NEEDED and token not in files.vocab]
    if missing:
        raise CheckpointError(f"expected the special tokens in the vocabulary, missing: {', '.join(missing)}.")
    try:
        backend = Tokenizer(WordPiece(files.vocab, unk_token=files.special_tokens["unk_token"]))
        backend.add_tokens(files.added_tokens)
    except Exception as error:  # the library raises Exception itself
        raise CheckpointError(f"expected a vocabulary of tokens and their ids, got: {error}.") from error
    bert = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=files.tokenize_chinese_chars,
        strip_accents=files.strip_accents,
        lowercase=files.do_lower_case,
    )
    lowercase = lowercase_first and not files.do_lower_case
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), bert]) if lowercase else bert
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    cls_token, sep_token = files.special_tokens["cls_token"], files.special_tokens["sep_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=[cls_token, "$A", sep_token],
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls_token, sep_token)],
    )
    return backend


def _limit(config: Fields) -> float:
    limit = config.number("model_max_length", default=1e30)
    if limit < 2:
        raise config.error("model_max_length", "at least 2, as every text has [CLS] and [SEP]", limit)
    return limit


def _vocab_of_json(tokenizer: Fields) -> dict[str, int]:
    model = tokenizer.values.get("model")
    if not isinstance(model, dict):
        raise tokenizer.error("model", "an object", model)
    for key, implemented in _WORDPIECE.items():
        if model.get(key, implemented) != implemented:
            raise UnsupportedModelError(
                f"{tokenizer.path}: model with {key} {model[key]!r:.80} is not implemented; "
                f"gte_np implements BERT's WordPiece ({key} {implemented!r})."
            )
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not _are_ids(vocab.values()):
        raise tokenizer.error("model.vocab", "an object of token to id", vocab)
    return vocab


def _are_ids(values: Collection[Any]) -> bool:
    return not values or ({*map(type, values)} == {int} and min(values) >= 0 and max(values) < 2**31)


def _vocab_of_text(path: Path) -> dict[str, int]:
    if not path.is_file():
        raise ModelNotFoundError(f"{path.parent}: expected tokenizer.json or vocab.txt, found neither of them.")
    try:
        vocab: dict[str, int] = WordPiece.read_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise CheckpointError(f"{path}: expected one token a line in UTF-8, got: {error}.") from error
    return vocab


def _special_values(folder: Path, config: Fields) -> Fields:
    """tokenizer_config.json, with special_tokens_map.json before it unless the former is of the newer kind."""
    if "added_tokens_decoder" in config.values:
        return config
    older = Fields.of_optional(folder / "special_tokens_map.json")
    return Fields(config.path, config.values | older.values)


def _special_tokens(values: Fields) -> dict[str, str]:
    contents = {key: _content(values.values.get(key)) for key in SPECIAL_TOKENS}
    found = Fields(values.path, {key: content for key, content in contents.items() if content})
    return {key: found.text(key, default) for key, default in SPECIAL_TOKENS.items()}


def _content(token: object) -> object:
    return token.get("content") if isinstance(token, Mapping) else token


def _refuse_others(values: Fields, known: set[str]) -> None:
    """Raise UnsupportedModelError for a special token that is none of BERT's and not among the added tokens."""
    others = {key: value for key, value in values.values.items() if key.endswith("_token")}
    others |= {key: values.values.get(key) for key in ("extra_special_tokens", "additional_special_tokens")}
    for key, tokens in others.items():
        for token in tokens if isinstance(tokens, list) else [tokens] if tokens else []:
            if _content(token) not in (None, *known):
                raise UnsupportedModelError(f"{values.path}: {key} {_content(token)!r:.80} is not implemented.")


def _added_tokens(config: Fields, tokenizer: Fields, special_tokens: Mapping[str, str]) -> list[AddedToken]:
    by_id: dict[int, Any] = {}
    try:
        if "added_tokens_decoder" in config.values:
            by_id = {int(token_id): token for token_id, token in config.values["added_tokens_decoder"].items()}
        else:
            older = Fields.of_optional(config.path.with_name("added_tokens.json")).values
            by_id = {int(token_id): {"content": content} for content, token_id in older.items()}
            by_id |= {int(token["id"]): token for token in tokenizer.values.get("added_tokens", [])}
        tokens = [_added_token(by_id[token_id]) for token_id in sorted(by_id)]
        named = sorted(set(special_tokens.values()) - {token.content for token in tokens})  # the rest
        return tokens + [AddedToken(content, special=True, normalized=False) for content in named]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{config.path.parent}: expected added tokens with id and content, got a value without them ({error!r})."
        ) from error


def _added_token(token: Mapping[str, Any]) -> AddedToken:
    flags = {key: bool(token.get(key, False)) for key in ("single_word", "lstrip", "rstrip", "special")}
    return AddedToken(token["content"], normalized=bool(token.get("normalized", not flags["special"])), **flags)
