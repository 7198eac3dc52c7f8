"""Texts in, token ids out: BERT's WordPiece, identical to transformers' for the same files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gte_np.arguments import check_flag, check_integer, check_integers, find_surrogate
from gte_np.checkpoint.source import LoadedFiles, Source
from gte_np.errors import CheckpointError, InputError
from gte_np.forks import ForkGuard
from gte_np.loaded import Loaded
from gte_np.token_batch import TokenArray, TokenBatch
from gte_np.tokenization import TextEncoder, read_text_encoder
from gte_np.tokenization.text_pieces import PIECE_CHARACTERS
from gte_np.tokenization.word_piece import TOKENIZER_FILES

Texts = Iterable[str] | NDArray[np.str_]


class Token(NamedTuple):
    """A token of a text, and the characters, from `start` up to `stop`, that it stands for; None for [CLS]."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


CHARACTERS_AT_ONCE = 1 << 18
_guard = ForkGuard("tokenizing texts")


class Tokenizer(Loaded):
    """The tokenizer of one checkpoint.

    `model_max_length` is the most tokens a text may have by tokenizer_config.json, [CLS] and [SEP] included, or
    None where it sets no limit.

    >>> tokenizer = Tokenizer.from_pretrained("tests/data/bert-base-chinese")
    >>> tokenizer(["中国的首都是哪里", "北京"], padding=True)["input_ids"]
    array([[ 101,  704, 1744, 4638, 7674, 6963, 3221, 1525, 7027,  102],
           [ 101, 1266,  776,  102,    0,    0,    0,    0,    0,    0]])
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._lowercase_first = False
        self.model_max_length = encoder.model_max_length

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Tokenizer:
        """Load the tokenizer of a folder, or of a repository on the hub.

        Raises ModelNotFoundError if it is not there, CheckpointError if its files are damaged, and
        UnsupportedModelError if it is not BERT's.
        """
        source = Source.find(
            name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            weights=False,
        )
        return cls.from_source(source)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str], *, lowercase_first: bool = False) -> Tokenizer:
        """Load the tokenizer files of a local folder; errors as in `from_pretrained`."""
        return cls.from_source(Source.of_folder(folder), lowercase_first=lowercase_first)

    @classmethod
    def from_source(cls, source: Source, *, lowercase_first: bool = False) -> Tokenizer:
        """Load the tokenizer files of a source; errors as in `from_pretrained`."""
        files = LoadedFiles(source, TOKENIZER_FILES)
        tokenizer = cls(read_text_encoder(source.folder, lowercase_first))
        tokenizer._files, tokenizer._lowercase_first = files, lowercase_first
        return tokenizer

    def _facts(self) -> dict[str, object]:
        return {"vocab_size": self.vocab_size, "model_max_length": self.model_max_length}

    def __getstate__(self) -> dict[str, Any]:
        settings = {"_lowercase_first": self._lowercase_first, "model_max_length": self.model_max_length}
        return super().__getstate__() | settings

    def __setstate__(self, state: dict[str, Any]) -> None:
        Tokenizer.__init__(self, read_text_encoder(state["_files"].source.folder, state["_lowercase_first"]))
        vars(self).update(state)

    @property
    def vocab_size(self) -> int:
        """How many tokens the vocabulary has, without those that were added to it, as in transformers."""
        size: int = self._encoder.backend.get_vocab_size(with_added_tokens=False)
        return size

    @property
    def pad_token_id(self) -> int:
        """The id of [PAD]."""
        return self._encoder.pad_id

    @property
    def special_count(self) -> int:
        """How many tokens each text has beside its own: two, [CLS] and [SEP]."""
        return self._encoder.special_count

    @property
    def unk_token_id(self) -> int:
        """The id of [UNK], which stands for words without any other token."""
        return self._encoder.unk_id

    @property
    def largest_id(self) -> int:
        """The largest token id that a text can give: the embedding table must have more rows."""
        return self._encoder.largest_id

    def __call__(
        self,
        text: str | Texts,
        *,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        return_tensors: str | None = None,
    ) -> dict[str, Any]:
        """Return input_ids, token_type_ids and attention_mask, as transformers' tokenizers do.

        With `padding` (or `return_tensors`), int64 arrays of (B, T), padded to the longest text; without, one list
        of ids for each text. `truncation`, by default if there is a `max_length`, cuts texts to that many tokens
        (else to `model_max_length`), [CLS] and [SEP] included. `return_tensors` may be "np" or "pt": there is no
        torch here, so both give NumPy arrays.

        Raises TypeError for anything but texts, and InputError for texts of unequal length in arrays without
        padding.
        """
        pad = _one_of("padding", padding, yes=(True, "longest"), no=(False, "do_not_pad"))
        truncation = max_length is not None if truncation is None else truncation
        cut = _one_of("truncation", truncation, yes=(True, "longest_first"), no=(False, "do_not_truncate"))
        if return_tensors is not None and (not isinstance(return_tensors, str) or return_tensors not in ("np", "pt")):
            raise InputError(f"expected return_tensors to be 'np' or 'pt', got {return_tensors!r:.80}.")
        limit = self.model_max_length if max_length is None else max_length
        batch = self.tokenize([text] if isinstance(text, str) else text, limit if cut else None)
        if pad or return_tensors:
            return self._padded(batch, pad)
        ids = [batch[index].tolist() for index in range(len(batch))]
        output = {
            "input_ids": ids,
            "token_type_ids": [[0] * len(text_ids) for text_ids in ids],
            "attention_mask": [[1] * len(text_ids) for text_ids in ids],
        }
        return {key: rows[0] for key, rows in output.items()} if isinstance(text, str) else output

    def _padded(self, batch: TokenBatch, padding: bool) -> dict[str, NDArray[np.int64]]:
        if not padding and len(set(batch.lengths.tolist())) > 1:
            raise InputError("expected texts of one length in tokens, got several: give padding=True for arrays.")
        mask = batch.attention_mask  # (B, T)
        input_ids = np.full(mask.shape, self.pad_token_id, np.int64)
        input_ids[mask == 1] = batch.input_ids  # (N,) -> (B, T)
        return {
            "input_ids": input_ids,
            "token_type_ids": np.zeros_like(input_ids),
            "attention_mask": mask,
        }

    def tokenize(self, texts: Texts, max_length: int | None = None, *, count_all: bool = True) -> TokenBatch:
        """Return the token ids of texts, packed, each cut to `max_length` tokens with [CLS] and [SEP] kept.

        `token_counts` of the result tells how many tokens each text has. Counting takes time and no memory; with
        `count_all` false, a text is read only until it is known to be cut, and its count is then too low.

        Raises TypeError for anything but texts, and InputError for a text that is not valid Unicode.

        >>> tokenizer = Tokenizer.from_pretrained("tests/data/bert-base-chinese")
        >>> batch = tokenizer.tokenize(["今天中午吃什么"], max_length=5)
        >>> batch[0].tolist(), batch.token_counts.tolist()
        ([101, 791, 1921, 704, 102], [9])
        """
        texts = check_texts(texts)
        most = None if max_length is None else check_integer("max_length", max_length, least=self.special_count)
        ids: list[TokenArray] = []
        counts: list[int] = []
        for group in _groups(texts):
            for group_ids, count in self._tokenize_group(group, most, count_all):
                ids.append(np.asarray(group_ids, np.int32))
                counts.append(count)
        return TokenBatch.from_ids(ids, np.array(counts, np.int64))

    def tokens_of(self, text: str, *, special_tokens: bool = True) -> list[Token]:
        """Return all tokens of one text, and where in it they are, without [CLS] and [SEP] if they are not wanted.

        Raises TypeError for anything but a str, and InputError for one that is not valid Unicode.
        """
        text = check_unicode(text, 0)
        with _guard.no_fork():
            found = self._encoder.backend.encode(text, add_special_tokens=special_tokens)
        rows = zip(found.ids, found.tokens, found.special_tokens_mask, found.offsets, strict=True)
        return [
            Token(number, name, True, None, None) if special else Token(number, text[start:stop], False, start, stop)
            for number, name, special, (start, stop) in rows
        ]

    @overload
    def convert_ids_to_tokens(self, ids: int, *, skip_special_tokens: bool = False) -> str: ...

    @overload
    def convert_ids_to_tokens(
        self, ids: Sequence[int] | NDArray[np.integer], *, skip_special_tokens: bool = False
    ) -> list[str]: ...

    def convert_ids_to_tokens(
        self, ids: int | Sequence[int] | NDArray[np.integer], *, skip_special_tokens: bool = False
    ) -> str | list[str]:
        """Return the token of each id, or the one token of one id, as transformers does.

        With `skip_special_tokens`, [CLS] and its like are left out of a list. Raises TypeError for anything but
        integers, and InputError for ids that the tokenizer does not have.

        >>> tokenizer = Tokenizer.from_pretrained("tests/data/bert-base-chinese")
        >>> tokenizer.convert_ids_to_tokens([101, 1266, 776, 102])
        ['[CLS]', '北', '京', '[SEP]']
        """
        check_flag("skip_special_tokens", skip_special_tokens)
        numbers = self._check_ids(ids)
        tokens = [self._token(number) for number in numbers.reshape(-1).tolist()]
        if numbers.ndim == 0:
            return tokens[0]
        return [token for token in tokens if not (skip_special_tokens and token in self._special_tokens)]

    @overload
    def convert_tokens_to_ids(  # type: ignore[overload-overlap]  # a str is an iterable of str, too
        self, tokens: str
    ) -> int: ...

    @overload
    def convert_tokens_to_ids(self, tokens: Iterable[str]) -> list[int]: ...

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> int | list[int]:
        """Return the id of each token, or of one; that of [UNK] for a string that is no token.

        Raises TypeError for anything but str.

        >>> tokenizer = Tokenizer.from_pretrained("tests/data/bert-base-chinese")
        >>> tokenizer.convert_tokens_to_ids(["北", "no token"])
        [1266, 100]
        """
        if isinstance(tokens, str):
            return self._id(tokens)
        return [self._id(token) for token in check_texts(tokens)]

    def decode(self, ids: int | Sequence[int] | NDArray[np.integer], *, skip_special_tokens: bool = False) -> str:
        """Return a text of which these could be the token ids, as transformers does without its clean-up.

        Pieces of a word are joined, and no space is left before a comma or a full stop. transformers also joins
        "don ' t" where the files set clean_up_tokenization_spaces; this does not. What the tokenizer has lowercased
        or dropped does not come back. With `skip_special_tokens`, [CLS] and its like are left out.

        Raises TypeError for anything but integers, and InputError for ids that the tokenizer does not have.

        >>> tokenizer = Tokenizer.from_pretrained("tests/data/bert-base-chinese")
        >>> tokenizer.decode([101, 1266, 776, 102])
        '[CLS] 北 京 [SEP]'
        """
        check_flag("skip_special_tokens", skip_special_tokens)
        numbers = self._check_ids(ids).reshape(-1).tolist()
        with _guard.no_fork():
            return self._encoder.backend.decode(numbers, skip_special_tokens=skip_special_tokens)

    def _check_ids(self, ids: ArrayLike) -> NDArray[np.integer]:
        numbers = check_integers("token ids", ids, 0, self.largest_id, booleans=False)
        if numbers.ndim > 1:
            raise InputError(f"expected the token ids of one text, got an array of shape {numbers.shape}.")
        return numbers

    def _token(self, number: int) -> str:
        token: str | None = self._encoder.backend.id_to_token(number)
        if token is None:
            raise InputError(f"expected token ids of the vocabulary, got {number}, which it leaves out.")
        return token

    def _id(self, token: str) -> int:
        number: int | None = self._encoder.backend.token_to_id(token)
        return self.unk_token_id if number is None else number

    @property
    def _special_tokens(self) -> set[str]:
        added = self._encoder.backend.get_added_tokens_decoder().values()
        return {token.content for token in added if token.special}

    def cut_beginning(self, ids: TokenArray, most: int) -> TokenArray:
        """Cut the token ids of one whole text to `most` by leaving out its beginning, with [CLS] and [SEP] kept."""
        before = len(self._encoder.before)
        return ids if len(ids) <= most else np.concatenate([ids[:before], ids[len(ids) - most + before :]])

    def _tokenize_group(self, texts: list[str], most: int | None, count_all: bool) -> Iterator[tuple[list[int], int]]:
        """Token ids of each text, cut to `most`, and how many there were."""
        short = [text if len(text) <= PIECE_CHARACTERS else "" for text in texts]
        with _guard.no_fork():
            encodings = self._encoder.backend.encode_batch_fast(short)
        for text, encoding in zip(texts, encodings, strict=True):
            if len(text) > PIECE_CHARACTERS:
                yield self._tokenize_long(text, most, count_all)
                continue
            ids: list[int] = encoding.ids
            count = len(ids)
            if most is not None and count > most:
                ids = [*ids[: most - len(self._encoder.behind)], *self._encoder.behind]
            yield ids, count

    def _tokenize_long(self, text: str, most: int | None, count_all: bool) -> tuple[list[int], int]:
        behind = self._encoder.behind
        kept, count = list(self._encoder.before), self.special_count
        for piece in self._encoder.pieces(text):
            with _guard.no_fork():
                ids = self._encoder.backend.encode(piece, add_special_tokens=False).ids
            kept += ids if most is None else ids[: most - len(behind) - len(kept)]
            count += len(ids)
            if most is not None and count > most and not count_all:
                break
        return [*kept, *behind], count


def _groups(texts: list[str]) -> Iterator[list[str]]:
    """Texts that go to the tokenizers library together: its results take much more memory than texts or ids."""
    group: list[str] = []
    characters = 0
    for text in texts:
        group.append(text)
        characters += min(len(text), PIECE_CHARACTERS)
        if characters > CHARACTERS_AT_ONCE:
            yield group
            group, characters = [], 0
    yield group


def _one_of(name: str, value: object, yes: tuple[object, ...], no: tuple[object, ...]) -> bool:
    """Whether the value is one of `yes`. Raise InputError if it is in neither."""
    for answer, choices in ((True, yes), (False, no)):
        if any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
            return answer
    raise InputError(f"expected {name} to be one of {', '.join(map(repr, yes + no))}, got {value!r:.80}.")


def check_texts(texts: object) -> list[str]:
    """Return the texts of any iterable as a list: a generator too, or a column of pandas, polars or Arrow.

    Raises TypeError for anything but an iterable of str that has an order, and InputError for a lone surrogate.
    """
    if hasattr(texts, "to_pylist"):  # an Arrow array, whose elements are no str
        texts = texts.to_pylist()
    if isinstance(texts, str | bytes | Mapping | Set) or not isinstance(texts, Iterable):
        raise TypeError(f"expected an iterable of str, such as a list, got {type(texts).__name__}.")
    if isinstance(texts, np.ndarray) and texts.ndim == 0:
        raise TypeError("expected an iterable of str, such as a list, got an array of no dimension.")
    return [check_unicode(text, index) for index, text in enumerate(texts)]


def check_unicode(text: object, index: int) -> str:
    """Return text number `index`. Raise TypeError if it is no str, InputError if it has a lone surrogate."""
    if not isinstance(text, str):
        raise TypeError(f"expected texts that are str, got {type(text).__name__} as text {index}.")
    place = find_surrogate(text)
    if place is not None:
        raise InputError(
            f"expected texts of valid Unicode, got a lone surrogate in text {index}, character {place}. Decode the "
            "bytes with errors='replace', or drop it."
        )
    return str.__str__(text)  # of an enumeration that is a str: its value


def check_ids_fit(tokenizer: Tokenizer, rows: int, folder: Path) -> None:
    """Raise CheckpointError if the tokenizer can give an id for which the embedding table has no row."""
    if tokenizer.largest_id >= rows:
        raise CheckpointError(
            f"{folder}: expected token ids below {rows}, the rows of the word embeddings, got a tokenizer "
            f"with ids up to {tokenizer.largest_id}. The tokenizer is of another model."
        )


def _use_one_thread() -> None:
    """In a forked process: the tokenizers library would wait for threads of its parent that are not here.

    By itself it sees to that only if nobody has set the variable.
    """
    if _guard.was_used and "TOKENIZERS_PARALLELISM" in os.environ:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread)
