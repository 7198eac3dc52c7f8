"""Call the public doors at random, with right and wrong arguments, beside guard pages.

    python -m scripts.hunt_doors --calls 100000 --seed 0
    python -m scripts.hunt_doors --seed 0 --first 1234 --calls 1 --side end    # one call again

Every call is made to both backends, with the same arguments: TokenBatch, from_ids, from_padded, BertModel,
encode_batch, EmbeddingModel, Tokenizer, on models of many sizes, dtypes and numbers of threads. Both must give the
same numbers, without NaN, or the same GteError or TypeError, whose message says what was expected; anything else is a
finding, as are a warning, a crash, and a call of more than 10 seconds. All that compiled code gets lies beside a page
that nobody may touch: behind it in one half of the calls (side "end"), before it in the other ("start").

It prints each finding with its number, then how many calls of each kind were answered and refused. The exit status is
1 if there was a finding.
"""

from __future__ import annotations

import argparse
import array
import copy
import dataclasses
import faulthandler
import json
import logging
import mmap
import os
import pickle
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_np import EmbeddingModel, GteError, TokenBatch, quantize_embeddings
from tests.checkpoints import SMALL_VOCAB, small_model, write_weights
from tests.guard_pages import CAN_GUARD, GuardedMemory, guard_kernels
from tests.texts import generated

SIDES = ("end", "start")
LONGEST_CALL = 10  # seconds
MOST_CRASHES = 20  # of one side, after which it ends

Random = random.Random
Ids = NDArray[np.int64]


class WrongAnswerError(Exception):
    """An answer that cannot be right."""


# --- models -------------------------------------------------------------------------------------------------------


class Shape(NamedTuple):
    """A model to call: its sizes, how its weights are stored and multiplied, and in how many threads."""

    hidden: int
    heads: int
    inner: int
    stored: str
    dtype: str
    threads: int
    pooling: str
    positions: int = 64
    types: int = 2
    layers: int = 2


SHAPES = (
    Shape(52, 2, 40, "float32", "float32", 2, "cls"),  # heads of 26
    Shape(64, 2, 96, "float16", "float32", 1, "mean", positions=300),
    Shape(128, 2, 80, "bfloat16", "float32", 4, "lasttoken", types=3),
    Shape(4, 2, 3, "float32", "float32", 1, "max", positions=9, types=1, layers=1),
    Shape(33, 3, 17, "float16", "float32", 4, "weightedmean", positions=40, layers=3),
    Shape(33, 3, 17, "float32", "int8", 2, "mean_sqrt_len_tokens", types=3),
    Shape(52, 2, 40, "bfloat16", "int8", 4, "cls", positions=300),
    Shape(64, 1, 96, "float32", "int8", 1, "mean", types=1, layers=1),
    Shape(52, 2, 40, "float16", "bfloat16", 1, "mean"),
    Shape(33, 3, 17, "float32", "bfloat16", 4, "lasttoken", positions=40),
)
# States are up to 6 in size; a last bit can change how a value is rounded to 8 or 16 bits.
TOLERANCES = {"float32": 2e-5, "bfloat16": 0.05, "int8": 0.2}
PROMPTS = {"query": "is ", "document": "", "long": "a b c " * 20}


def write_models(folder: Path) -> None:
    """Write a checkpoint for each of the shapes."""
    for number, shape in enumerate(SHAPES):
        sizes = {"hidden_size": shape.hidden, "num_attention_heads": shape.heads, "intermediate_size": shape.inner}
        limits = {"max_position_embeddings": shape.positions, "type_vocab_size": shape.types}
        place = small_model(folder / str(number), pooling="mean", num_hidden_layers=shape.layers, **sizes, **limits)
        write_weights(place, dtype=shape.stored, seed=number)


def load_models(folder: Path) -> list[list[EmbeddingModel]]:
    """Each model on both backends, the reference first."""
    return [
        [
            EmbeddingModel(
                folder / str(number),
                backend=backend,
                dtype=shape.dtype,
                threads=shape.threads,
                pooling=shape.pooling,
                prompts=PROMPTS,
            )
            for backend in ("numpy", "numba")
        ]
        for number, shape in enumerate(SHAPES)
    ]


# --- numbers in many forms ----------------------------------------------------------------------------------------


class Subclass(np.ndarray[Any, Any]):
    """An array of another class."""


class LikeAnArray:
    """What NumPy can make an array of."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self._values, dtype)


DTYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i2", ">u2", ">i4", ">u4", ">i8", ">u8", "?")


def _cast(random: Random, values: Any) -> Any:
    fitting = [dtype for dtype in DTYPES if np.array_equal(values.astype(dtype).astype(np.int64), values)]
    return values.astype(random.choice(fitting))


def _strided(random: Random, values: Any) -> Any:
    wide = np.full((*values.shape[:-1], values.shape[-1] * 3 + 1), 1, values.dtype)
    wide[..., 1::3] = values
    return wide[..., 1::3]


def _reversed(random: Random, values: Any) -> Any:
    return values[..., ::-1].copy()[..., ::-1]


def _read_only(random: Random, values: Any) -> Any:
    values = values.copy()
    values.flags.writeable = False
    return values


def _unaligned(random: Random, values: Any) -> Any:
    return np.ndarray(values.shape, values.dtype, b"\0" + values.tobytes(), 1)


def _mapped(random: Random, values: Any) -> Any:
    memory = mmap.mmap(-1, max(1, values.nbytes))
    memory[: values.nbytes] = values.tobytes()
    return np.ndarray(values.shape, values.dtype, memory)


def _field(random: Random, values: Any) -> Any:
    records = np.zeros(values.shape, [("other", "u1"), ("value", values.dtype)])
    records["value"] = values
    return records["value"]


FORMS: Sequence[Callable[[Random, Any], Any]] = (
    _cast,
    _cast,
    _strided,
    _reversed,
    _read_only,
    _unaligned,
    _mapped,
    _field,
    lambda random, values: np.asfortranarray(values),
    lambda random, values: values.view(Subclass),
    lambda random, values: np.ma.masked_array(values),
)
LAST_FORMS: Sequence[Callable[[Any], Any]] = (
    lambda values: values.tolist(),
    lambda values: [*values],
    lambda values: (*values.tolist(),),
    lambda values: LikeAnArray(values),
    lambda values: array.array("q", values.tolist()) if values.ndim == 1 else values.tolist(),
    lambda values: values.view(np.matrix) if values.ndim == 2 else values,
)


def disguised(random: Random, values: Any) -> Any:
    """The same numbers in another form."""
    for _ in range(random.choice((0, 1, 1, 2))):
        values = random.choice(FORMS)(random, values)
    if random.random() < 0.2 and type(values) is np.ndarray:
        values = random.choice(LAST_FORMS)(values)
    return values


NUMBERS = (-1, -(2**31), -(2**63), 2**31 - 1, 2**31, 2**32, 2**32 + 5, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30)
ODDITIES: Sequence[Callable[[], Any]] = (
    lambda: None,
    lambda: "abc",
    lambda: b"abc",
    lambda: 3,
    lambda: -1,
    lambda: True,
    lambda: 2.5,
    lambda: np.int32(3),
    lambda: np.array(3),
    lambda: {},
    lambda: {0: 1},
    lambda: {1, 2},
    lambda: [],
    lambda: [[]],
    lambda: [[], []],
    lambda: [[1], [2, 3]],
    lambda: [1, None],
    lambda: [1, "2"],
    lambda: [1, 2.5],
    lambda: [float("nan")],
    lambda: (value for value in (1, 2)),
    lambda: range(3),
    lambda: object(),
    lambda: slice(0, 2),
    lambda: ...,
    lambda: np.ma.masked,
    lambda: np.array("abc"),
    lambda: np.empty((0, 0), int),
    lambda: np.empty((0, 3)),
    lambda: np.empty((3, 0)),
    lambda: np.empty((2, 0, 3), int),
    lambda: np.array([1, 2], object),
    lambda: np.array([1 + 2j]),
    lambda: np.array(["a", "b"]),
    lambda: np.array([b"a"]),
    lambda: np.array([(1, 2)], "i4,i4"),
    lambda: np.array(["2026-01-01"], "M8[D]"),
    lambda: np.array([1, 2], "m8[s]"),
    lambda: np.zeros(2, "V4"),
    lambda: np.ma.masked_array(np.zeros(2, "i4,i4"), mask=[(True, False)] * 2),
    lambda: np.zeros(2, np.longdouble),
    lambda: TokenBatch.from_ids([[1, 2]]),
    lambda: TokenBatch,
    lambda: memoryview(b"abc"),
    lambda: recursive(),
    lambda: nested(70),
    lambda: np.empty(0, complex),
    lambda: np.array([False, True]),
    lambda: [False, True],
)


def oddity(random: Random, *others: Callable[[], Any]) -> Any:
    """What is hardly right anywhere."""
    make: Callable[[], Any] = random.choice((*ODDITIES, *others))
    return make()


def recursive() -> Any:
    """A list that is in itself."""
    values: list[Any] = []
    values.append(values)
    return values


def nested(depth: int) -> Any:
    """A list in lists, deeper than an array can be."""
    values: Any = 1
    for _ in range(depth):
        values = [values]
    return values


def _with_number(random: Random, values: Any) -> Any:
    number = random.choice((*NUMBERS, random.randrange(1000)))
    flat = [int(value) for value in values.ravel()] or [0]
    flat[random.randrange(len(flat))] = number
    wide = np.array(flat, object).reshape(values.shape if values.size else (1,))
    dtype = next((dtype for dtype in (np.int64, np.uint64) if _holds(dtype, flat)), object)
    return wide.astype(dtype)


def _holds(dtype: Any, values: list[int]) -> bool:
    limits = np.iinfo(dtype)
    return limits.min <= min(values) and max(values) <= limits.max


def _of_another_length(random: Random, values: Any) -> Any:
    return random.choice((values[:-1], values[1:], np.concatenate([values, values[:1]]), values[:0]))


def _of_another_shape(random: Random, values: Any) -> Any:
    return random.choice((values[None], values[..., None], values.ravel(), values.T, values.reshape(-1, 1)))


def _of_another_dtype(random: Random, values: Any) -> Any:
    with np.errstate(over="ignore"):  # ids beyond what float16 has
        return values.astype(random.choice(("f2", "f4", ">f8", "c8", "O", "U", "S", "m8[s]", "?")))


def _masked(random: Random, values: Any) -> Any:
    return np.ma.masked_array(values, mask=[random.random() < 0.5] * values.size)


BREAKS: Sequence[Callable[[Random, Any], Any]] = (
    _with_number,
    _with_number,
    _of_another_length,
    _of_another_shape,
    _of_another_dtype,
    _masked,
    lambda random, values: oddity(random),
    lambda random, values: values[::-1],
    lambda random, values: np.zeros_like(values),
)


def broken(random: Random, values: Any) -> Any:
    """Other numbers, in a form that may be wrong."""
    return random.choice(BREAKS)(random, values)


def given(random: Random, fields: dict[str, Any], breaks: float = 0.3) -> dict[str, Any]:
    """The fields as a caller may give them, now and then one or two that are wrong."""
    names = list(fields)
    wrong = random.choices(names, k=random.choice((1, 1, 2))) if random.random() < breaks else []
    return {
        name: broken(random, values) if name in wrong else disguised(random, values) if values is not None else None
        for name, values in fields.items()
    }


# --- batches ------------------------------------------------------------------------------------------------------


def numbers(random: Random, count: int, below: int) -> Ids:
    """So many numbers below a limit; now and then all are alike, the largest, or too large."""
    kind = random.random()
    if kind < 0.1:
        return np.full(count, random.choice((0, below - 1)))
    values = np.random.default_rng(random.getrandbits(32)).integers(0, below, count)
    if kind < 0.13 and count:
        values[random.randrange(count)] = below + random.choice((0, 0, 1, 1000, 2**30))
    return values


def lengths_of_texts(random: Random, most: int) -> list[int]:
    """How many tokens each text has: few texts or many, of all lengths up to the limit."""
    texts = random.choice((0, 1, 1, 2, 2, 3, 5, 8)) if random.random() < 0.97 else random.choice((40, 120))
    longest = random.choice((1, 4, 17, most, most))
    return [random.randint(1, min(longest, most)) for _ in range(texts)]


def columns_of_text(random: Random, length: int, most: int) -> Ids:
    """0, 1, 2, ..., or behind padding, or with gaps, or in no order; now and then out of the table."""
    kind = random.random()
    if kind < 0.4:
        return np.arange(length)
    if kind < 0.6:
        return np.arange(length) + random.randint(0, most - length)
    if kind < 0.8:
        return np.sort(np.array(random.sample(range(most), length)))
    return numbers(random, length, most)


def batch_fields(random: Random, model: EmbeddingModel) -> dict[str, Any]:
    """The fields of a TokenBatch that fits the model, nearly always."""
    config = model.bert.config
    lengths = lengths_of_texts(random, config.max_position_embeddings)
    count = sum(lengths)
    columns = [columns_of_text(random, length, config.max_position_embeddings) for length in lengths]
    return {
        "input_ids": numbers(random, count, config.vocab_size),
        "columns": np.concatenate([np.empty(0, np.int64), *columns]),
        "token_type_ids": numbers(random, count, config.type_vocab_size),
        "offsets": np.cumsum([0, *lengths]),
        "token_counts": np.array(lengths, np.int64) + random.choice((0, 0, 1, 2**40)),
    }


def integers(value: Any) -> list[int] | None:
    """The integers of one dimension that a value is, as Python has them; None if it is anything else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            values = np.asarray(value)
        except ValueError:
            return None
    return values.tolist() if values.ndim == 1 and (values.dtype.kind in "iub" or not values.size) else None


def check_batch(batch: TokenBatch, fields: dict[str, Any]) -> None:
    """Fail unless the batch has the numbers that were given."""
    for name, value in fields.items():
        kept = getattr(batch, name)
        if kept.tolist() != integers(value) or kept.flags.writeable or not kept.flags.aligned:
            raise WrongAnswerError(f"{name} {kept.tolist()} of {value!r:.200}")


# --- the doors: each is called with the same arguments for both backends ------------------------------------------


def make_batch(random: Random, model: EmbeddingModel) -> Any:
    """TokenBatch, and what it gives."""
    fields = given(random, batch_fields(random, model), breaks=0.6)
    batch = TokenBatch(**fields)
    check_batch(batch, fields)
    kind = random.random()
    if kind < 0.1:
        batch = pickle.loads(pickle.dumps(batch))
    elif kind < 0.2:
        batch = copy.deepcopy(batch)
    elif kind < 0.3:
        batch = dataclasses.replace(batch, **{"columns": given(random, {"columns": batch.columns})["columns"]})
    elif kind < 0.6:
        return batch[text_number(random, len(batch))]
    elif kind < 0.7:
        return str(batch.slice(text_number(random, len(batch))))
    return dataclasses.astuple(batch)


def text_number(random: Random, texts: int) -> Any:
    """The number of a text, or anything else."""
    if random.random() < 0.3:
        return oddity(random, lambda: slice(0, 1), lambda: slice(None), lambda: 2**70)
    return random.choice((int, np.int64, np.int8))(random.randint(-2, min(texts, 100) + 1))


def from_ids(random: Random, model: EmbeddingModel) -> Any:
    """TokenBatch.from_ids, and hidden states of it."""
    config = model.bert.config
    lengths = lengths_of_texts(random, config.max_position_embeddings)
    texts: Any = [disguised(random, numbers(random, length, config.vocab_size)) for length in lengths]
    kept = [integers(text) for text in texts]
    wrong = random.random()
    if wrong < 0.2 and texts:
        number = random.randrange(len(texts))
        texts[number] = broken(random, np.array(kept[number]))
    elif wrong < 0.25:
        texts = oddity(random)
    elif wrong < 0.35:
        texts = random.choice((tuple, iter, object_array))(texts)
    counts = None if random.random() < 0.6 else given(random, {"counts": np.array(lengths)})["counts"]
    batch = TokenBatch.from_ids(texts, counts)
    return model.bert.encode_batch(batch)


def padded(random: Random, model: EmbeddingModel) -> dict[str, Any]:
    """(B, T) ids, mask and token types: padding on the right, on the left, or anywhere."""
    config = model.bert.config
    texts = random.choice((0, 1, 2, 3, 7))
    width = random.choice((1, 3, random.randint(1, config.max_position_embeddings), config.max_position_embeddings))
    if random.random() < 0.05:
        width += random.choice((-width, 1, 1000))
    lengths = np.array(
        [random.randint(random.random() > 0.02, width) if width else 0 for _ in range(texts)], np.int64
    )
    places, kind = np.arange(width), random.random()
    mask = places < lengths[:, None]
    if kind < 0.3:
        mask = mask[:, ::-1]
    elif kind < 0.6:
        mask = np.random.default_rng(random.getrandbits(32)).permuted(mask, axis=1)
    shape = texts, width
    ids = numbers(random, texts * width, config.vocab_size).reshape(shape)
    types = numbers(random, texts * width, config.type_vocab_size).reshape(shape)
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64), "token_type_ids": types}


def from_padded(random: Random, model: EmbeddingModel) -> Any:
    """TokenBatch.from_padded, and hidden states of it."""
    fields = padded(random, model)
    fields["attention_mask"] = fields["attention_mask"] == 1
    fields = given(random, fields, breaks=0.4)
    return model.bert.encode_batch(TokenBatch.from_padded(**fields))


def flag(random: Random) -> Any:
    """True or False, or what may be neither."""
    if random.random() < 0.93:
        return random.random() < 0.25
    return random.choice((None, 0, 1, "yes", np.True_, np.array([True, False]), np.array(True), [], 2.5))


def call_bert(random: Random, model: EmbeddingModel) -> Any:
    """BertModel on padded arrays."""
    fields = padded(random, model)
    for name in ("attention_mask", "token_type_ids"):
        if random.random() < 0.2:
            fields[name] = None
    flags = {"output_hidden_states": flag(random), "output_attentions": flag(random)}
    right = {name: np.array(value) for name, value in fields.items() if value is not None}
    fields |= given(random, right)
    output = model.bert(**fields, **flags)
    shape, config = np.shape(fields["input_ids"]), model.bert.config
    check_shape(output.last_hidden_state, (*shape, config.hidden_size))
    for states in output.hidden_states or ():
        check_shape(states, (*shape, config.hidden_size))
    for weights in output.attentions or ():
        check_shape(weights, (shape[0], config.num_attention_heads, shape[1], shape[1]))
    return output


def check_shape(values: Any, shape: tuple[int, ...]) -> None:
    """Fail for another shape."""
    if values.shape != shape or values.dtype != np.float32:
        raise WrongAnswerError(f"{values.dtype} {values.shape} instead of {shape}")


def rows_of(random: Random, tokens: int) -> Any:
    """Numbers of tokens: none, some, all, or wrong ones."""
    kind = random.random()
    if kind < 0.3:
        return None
    count = min(tokens, random.choice((0, 1, tokens // 2, tokens)))
    rows = np.array(sorted(random.sample(range(tokens), count)), np.int64)
    return given(random, {"rows": rows})["rows"]


def encode_batch(random: Random, model: EmbeddingModel) -> Any:
    """BertModel.encode_batch on packed texts, for wanted rows or with all layers."""
    batch: Any = TokenBatch(**given(random, batch_fields(random, model), breaks=0.02))
    tokens = len(batch.input_ids)
    kind = random.random()
    rows, keep = (rows_of(random, tokens), flag(random) if kind < 0.3 else False)
    if random.random() < 0.02:
        batch = oddity(random)
    output = model.bert.encode_batch(batch, rows=rows, keep_layers=keep)
    if rows is not None and kind > 0.6:
        same(output.last_hidden_state, model.bert.encode_batch(batch).last_hidden_state[integers(rows)])
    elif kind > 0.9 and len(batch):
        check_alone(model, batch, output.last_hidden_state, random.randrange(len(batch)))
    return output


def check_alone(model: EmbeddingModel, batch: TokenBatch, states: Any, text: int) -> None:
    """Fail unless the text has the same states by itself."""
    place = batch.slice(text)
    length = place.stop - place.start
    parts = {name: getattr(batch, name)[place] for name in ("input_ids", "columns", "token_type_ids")}
    alone = TokenBatch(**parts, offsets=np.array([0, length]), token_counts=np.array([length]))
    if len(states) == len(batch.input_ids):
        same(states[place], model.bert.encode_batch(alone).last_hidden_state)


def same(values: Any, expected: Any) -> None:
    """Fail for other numbers; the reference's own depend on the shapes of NumPy's products, by a few last bits."""
    if values.shape != expected.shape or np.abs(values - expected).max(initial=0) > 0:
        raise UnequalError(values, expected)


class UnequalError(Exception):
    """Numbers of one model that should be equal."""


# --- texts --------------------------------------------------------------------------------------------------------

ODD_TEXTS: Sequence[Any] = (
    None,
    3,
    b"bytes",
    "a\ud800b",
    ["a"],
    np.array("a"),
    float("nan"),
    "\0",
    "",
    " ",
    "\ud83d\ude00",
)


class Text(str):
    """A str of another class."""

    __slots__ = ()


def text_of(random: Random) -> Any:
    """A text, as a str or a class of it."""
    kind = random.random()
    if kind < 0.3:
        text = next(generated(1, random.getrandbits(30)))
    elif kind < 0.98:
        text = " ".join(random.choices(SMALL_VOCAB, k=random.choice((0, 1, 3, 10, 100))))
    else:
        text = random.choice(("happy ", "a", "\u4e2d", "?!")) * random.choice((3000, 20_000))
    return random.choice((str, str, str, Text, np.str_))(text)


def texts_of(random: Random) -> Any:
    """Texts as a caller may give them."""
    texts: Any = [text_of(random) for _ in range(random.choice((0, 1, 1, 2, 3, 5, 20)))]
    if texts and random.random() < 0.3:
        texts += random.choices(texts, k=2)
    kind = random.random()
    if kind < 0.1:
        return text_of(random)
    if kind < 0.2 and texts:
        texts[random.randrange(len(texts))] = random.choice(ODD_TEXTS)
    if kind < 0.25:
        return oddity(random)
    forms: Sequence[Callable[[Any], Any]] = (tuple, iter, set, array_of_texts, object_array, dict.fromkeys)
    if kind > 0.8 and all(isinstance(text, str) for text in texts):
        return random.choice(forms)(texts)
    return texts


def array_of_texts(texts: list[str]) -> Any:
    """An array of NumPy's own texts, which may be of two dimensions."""
    values = np.array([str.__str__(text)[:50] for text in texts], str)
    return values.reshape(-1, 2) if len(texts) == 2 else values


def object_array(texts: Sequence[Any]) -> Any:
    """An array of objects."""
    values = np.empty(len(texts), object)
    for number, text in enumerate(texts):
        values[number] = text
    return values


def option(random: Random, *right: Any) -> Any:
    """One of the right values, nearly always."""
    if random.random() < 0.93:
        return random.choice(right)
    return oddity(random, lambda: "", lambda: 0, lambda: 10**30, lambda: -(2**70), lambda: np.bool_(True))


def some(random: Random, **options: tuple[Any, ...]) -> dict[str, Any]:
    """Some of the options, with one of their values each."""
    return {name: option(random, *values) for name, values in options.items() if random.random() < 0.3}


def encode(random: Random, model: EmbeddingModel) -> Any:
    """EmbeddingModel.encode and its kin."""
    door = random.choice(("encode", "encode", "encode_query", "encode_document"))
    texts = texts_of(random)
    options = some(
        random,
        batch_size=(1, 2, 3, 32, np.int64(5), 10**9),
        truncate_dim=(None, 1, 3, model.get_sentence_embedding_dimension()),
        normalize_embeddings=(None, True, False, np.True_),
        prompt=(None, "", "a b ", "\u4e2d", Text("a"), "\ud800"),
        prompt_name=(None, "query", "document", "long", "other"),
        output_value=("sentence_embedding", "token_embeddings"),
        show_progress_bar=(None, False),
    )
    precision = (
        option(random, "int8", "uint8", "binary", "ubinary", "float32") if random.random() < 0.2 else "float32"
    )
    if isinstance(precision, str) and precision == "float32":
        return getattr(model, door)(texts, **options)
    texts = list(texts) if isinstance(texts, tuple | Iterator) else texts  # to be given twice
    quantized = getattr(model, door)(texts, precision=precision, **options)
    if np.ndim(quantized) == 2:
        floats = getattr(model, door)(texts, **options)
        same(quantized.astype(np.int16), quantize_embeddings(floats, precision).astype(np.int16))
    return [str(quantized.dtype), quantized.shape]


def settings(random: Random, model: EmbeddingModel) -> Any:
    """What can be set of a model, then `tokenize` and `encode`."""
    model = copy.copy(model)
    for name, values in {
        "max_seq_length": (2, 3, 9, np.int32(5), 10, 64),
        "truncate_dim": (None, 1, 2, 4),
        "prompts": ({}, {"query": "a"}, {"x": "y"}),
        "default_prompt_name": (None, "query", "long"),
        "similarity_fn_name": ("dot", "cosine"),
    }.items():
        if random.random() < 0.3:
            setattr(model, name, option(random, *values))
    texts = texts_of(random)
    if random.random() < 0.5:
        return dataclasses.astuple(model.tokenize(texts))
    return model.encode(texts)


def tokenize(random: Random, model: EmbeddingModel) -> Any:
    """Tokenizer, and BertModel of what it gives."""
    options = some(
        random,
        padding=(True, False, "longest", "do_not_pad", "max_length"),
        truncation=(True, False, None, "longest_first", "do_not_truncate", "only_first"),
        max_length=(None, 2, 3, 8, 64, np.int64(9)),
        return_tensors=(None, "np", "pt", "tf"),
    )
    texts = texts_of(random)
    if random.random() < 0.2:
        most = some(random, max_length=(None, 2, 5), count_all=(True, False))
        return dataclasses.astuple(model.tokenizer.tokenize(texts, **most))
    arrays = model.tokenizer(texts, **options)
    if random.random() < 0.5:
        return arrays
    return model.bert(**arrays)


def together(random: Random, model: EmbeddingModel) -> Any:
    """Several callers at once, each with a batch."""
    batches = [TokenBatch(**batch_fields(random, model)) for _ in range(3)]
    with ThreadPoolExecutor(3) as callers:
        outputs = [callers.submit(model.bert.encode_batch, batch) for batch in batches]
    for output in outputs:
        output.exception()  # all have ended
    return [output.result() for output in outputs]


DOORS: dict[Callable[[Random, EmbeddingModel], Any], int] = {
    make_batch: 20,
    from_ids: 12,
    from_padded: 10,
    call_bert: 22,
    encode_batch: 24,
    encode: 16,
    settings: 4,
    tokenize: 8,
    together: 1,
}


# --- what came of a call ------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What a door gave, or the error that it raised."""

    result: Any
    error: BaseException | None

    def __str__(self) -> str:
        if self.error is None:
            return "a result"
        return f"{type(self.error).__name__}: {re.sub('0x[0-9a-f]+', '0x', str(self.error)):.300}"


def ask(door: Callable[[Random, EmbeddingModel], Any], random: Random, model: EmbeddingModel) -> Answer:
    """Call a door and catch whatever it raises."""
    try:
        return Answer(door(random, model), None)
    except Exception as error:
        return Answer(None, error)


def fault_of(answer: Answer, door: Callable[..., Any], is_reference: bool) -> str | None:
    """What is wrong with an error, if anything is."""
    error = answer.error
    if error is None or (is_reference and isinstance(error, UnequalError)):
        return None
    if isinstance(error, IndexError) and door is make_batch:
        return None
    if isinstance(error, GteError | TypeError) and str(error).startswith("expected"):
        return None
    return "".join(traceback.format_exception(error)[-6:])


def difference(left: Any, right: Any, tolerance: float) -> str | None:
    """How the results of two backends differ by more than the tolerance, if they do; NaN is a difference."""
    if isinstance(left, np.ndarray):
        if not isinstance(right, np.ndarray) or (left.shape, left.dtype) != (right.shape, right.dtype):
            return f"{left.dtype} {left.shape} and {np.asarray(right).dtype} {np.shape(right)}"
        if left.dtype.kind != "f":
            return None if np.array_equal(left, right) else "other integers"
        largest = np.abs(left - right).max(initial=0)
        return None if largest <= tolerance and np.isfinite(right).all() else f"by {largest}"
    if dataclasses.is_dataclass(left):
        return difference(vars(left), vars(right), tolerance)
    if isinstance(left, dict):
        return difference([*left.keys(), *left.values()], [*right.keys(), *right.values()], tolerance)
    if isinstance(left, list | tuple):
        if type(left) is not type(right) or len(left) != len(right):
            return "sequences of other lengths"
        differences = (difference(*pair, tolerance) for pair in zip(left, right, strict=True))
        return next((text for text in differences if text), None)
    return None if left == right else f"{left!r:.80} and {right!r:.80}"


class Hunt:
    """Calls by their numbers: a number and a seed make a call, whatever was called before."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.models = load_models(folder)
        self.seed = seed
        self.counts: Counter[str] = Counter()

    def call(self, number: int) -> str | None:
        """Make a call to both backends; return what was found, if anything."""
        random = Random(f"{self.seed} {number}")
        shape = random.randrange(len(SHAPES))
        door = random.choices(list(DOORS), list(DOORS.values()))[0]
        key = random.getrandbits(64)
        reference, kernels = (ask(door, Random(key), model) for model in self.models[shape])
        self.counts[f"{door.__name__} {'answered' if kernels.error is None else 'refused'}"] += 1
        found = self._compare(reference, kernels, door, TOLERANCES[SHAPES[shape].dtype])
        return found and f"{door.__name__}, model {shape}: {found}"

    def _compare(self, reference: Answer, kernels: Answer, door: Any, tolerance: float) -> str | None:
        fault = fault_of(kernels, door, False) or fault_of(reference, door, True)
        if fault is not None or isinstance(reference.error, UnequalError):
            return fault
        if str(reference) != str(kernels):
            return f"the reference: {reference}; the kernels: {kernels}"
        if kernels.error is None:
            text = difference(reference.result, kernels.result, tolerance)
            return text and f"the backends differ: {text}"
        return None


# --- processes ----------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """The calls of one process: numbers from `first` to `last`, with guard pages at one side."""

    seed: int
    first: int
    last: int
    side: str


def work(folder: Path, part: Part, at: Path) -> None:
    """Make the calls of a part, in this process; print findings and counts as lines of JSON.

    The number of the call at hand is in the file `at`, for whoever finds this process dead.
    """
    faulthandler.enable()
    warnings.simplefilter("error")
    logging.disable(logging.CRITICAL)
    if CAN_GUARD:
        guard_kernels(GuardedMemory("end" if part.side == "end" else "start"))
    hunt = Hunt(folder, part.seed)
    with at.open("wb", buffering=0) as file:
        for number in range(part.first, part.last):
            file.seek(0)
            file.write(b"%20d" % number)
            faulthandler.dump_traceback_later(LONGEST_CALL, exit=True)
            found = hunt.call(number)
            faulthandler.cancel_dump_traceback_later()
            if found:
                print(json.dumps({"number": number, "side": part.side, "found": found}), flush=True)
    print(json.dumps(hunt.counts), flush=True)


def run_part(folder: Path, part: Part) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Make the calls of a part in processes of their own: findings and counts. After a crash, go on behind it."""
    findings: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    at = folder / f"at_{part.side}"
    for _ in range(MOST_CRASHES):
        at.write_text(str(part.first))
        command = [sys.executable, "-m", "scripts.hunt_doors", "--worker", str(folder), *map(str, part)]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # of the reference
        done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8", env=environment)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        findings += [line for line in lines if "found" in line]
        counts.update(*(line for line in lines if "found" not in line))
        if done.returncode == 0:
            return findings, counts
        number = int(at.read_text())
        text = f"ended with status {done.returncode}: {done.stderr[-4000:]}"
        findings.append({"number": number, "side": part.side, "found": text})
        counts["lost with a process"] += number + 1 - part.first
        part = part._replace(first=number + 1)
    return findings, counts


def hunt_doors(seed: int, first: int, calls: int, sides: Sequence[str] = SIDES) -> Iterator[Any]:
    """Make so many calls, a part of them with guard pages at each side, at once; yield findings and counts."""
    ends = [first + calls * number // len(sides) for number in range(len(sides) + 1)]
    parts = [Part(seed, *pair) for pair in zip(ends, ends[1:], sides, strict=False)]
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(len(parts)) as executor:
        folder = Path(temporary)
        write_models(folder)
        yield from executor.map(lambda part: run_part(folder, part), parts)


def main() -> int:
    """Run the command line; return 1 if there was a finding."""
    parser = argparse.ArgumentParser(description="Call the public doors at random, beside guard pages.")
    parser.add_argument("--calls", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first (default: %(default)s)")
    parser.add_argument("--side", choices=SIDES, help="where guard pages are (default: half of the calls each)")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)  # of a process: folder, seed, first, last, side
    options = parser.parse_args()
    if options.worker:
        folder, seed, first, last, side = options.worker
        work(Path(folder), Part(int(seed), int(first), int(last), side), Path(folder, f"at_{side}"))
        return 0
    start = time.monotonic()
    sides = SIDES if options.side is None else (options.side,)
    results = list(hunt_doors(options.seed, options.first, options.calls, sides))
    findings = [finding for found, _ in results for finding in found]
    for finding in findings:
        print(f"--- call {finding['number']}, side {finding['side']}: {finding['found']}")
    counts = sum((counts for _, counts in results), Counter[str]())
    for name, count in sorted(counts.items()):
        print(f"{count:8} {name}")
    print(f"{sum(counts.values())} calls, {len(findings)} findings, {time.monotonic() - start:.0f} s")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
