"""Texts for the tests: ordinary ones, and generated ones from all of Unicode."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

ORDINARY = [
    "That is a happy person",
    "That is a very happy person",
    "中国的首都是哪里",
    "你喜欢去哪里旅游",
    "北京",
    "今天中午吃什么",
    "🤗 🇨🇳 👩‍👩‍👧 emoji, naïve café, ½ x² — \"quotes\" 'and' (brackets)",
    "A",
    "",
]


_WORDS = [
    *("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while"),
    *("今天", "天气", "很好", "我们", "去", "公园", "😀", "🚀", "embeddings", "BERT", "2026"),
]


def of_length(words: int, seed: int) -> str:
    """A text of that many words, in English, Chinese and emoji."""
    source = random.Random(seed)
    return " ".join(source.choice(_WORDS) for _ in range(words))


_BLOCKS = (
    (0x00, 0x80, 6),  # ASCII with its control characters
    (0x80, 0x250, 3),  # Latin
    (0x300, 0x370, 2),  # combining marks
    (0x370, 0x600, 2),  # Greek, Cyrillic, Hebrew
    (0x600, 0x1100, 1),
    (0x2000, 0x2100, 2),  # spaces, punctuation, invisible characters
    (0x2100, 0x2C00, 1),  # symbols
    (0x2E80, 0x3400, 2),  # CJK punctuation, kana
    (0x4E00, 0xA000, 6),  # Chinese
    (0xAC00, 0xD7B0, 1),  # Korean
    (0xE000, 0x10000, 1),  # private use, compatibility forms, specials
    (0x10000, 0x20000, 1),
    (0x1F300, 0x1FB00, 2),  # emoji
    (0x20000, 0x33480, 2),  # rare Chinese
    (0xE0000, 0x110000, 1),
)
_PIECES = (
    "[CLS]", "[SEP]", "[UNK]", "[MASK]", "[PAD]", "[", "]", "##", "\u200d", "\ufeff", "\ufffd", "\u00ad",
    "\x00", "\r\n", "\t", "\u3000", "\u00a0", "ﷺ", "ß", "İ", "ſ", "ς", "Å", "é", "e\u0301", "≠", "=\u0338", "한국",
)  # fmt: skip


def generated(count: int, seed: int = 0) -> Iterator[str]:
    """Yield texts of all planes: words, control characters, combining marks, long words, long runs of spaces."""
    source = random.Random(seed)
    for _ in range(count):
        yield "".join(_part(source) for _ in range(source.randrange(0, 12)))


def _part(source: random.Random) -> str:
    kind = source.randrange(10)
    if kind == 0:
        return " " * source.randrange(1, 200)
    if kind == 1:
        return source.choice("abcXYZ0é中") * source.randrange(90, 250)
    if kind == 2:
        return source.choice(_PIECES)
    if kind == 3:  # any character of Unicode, but no surrogate, which is none
        code = source.randrange(sys.maxunicode + 1)
        return chr(code) if not 0xD800 <= code < 0xE000 else "\ue000"
    if kind in (4, 5):
        return (
            "".join(source.choice("abcdefghijklmnopqrstuvwxyzABCDE'") for _ in range(source.randrange(1, 12))) + " "
        )
    start, end, _ = source.choices(_BLOCKS, [weight for *_, weight in _BLOCKS])[0]
    return "".join(chr(source.randrange(start, end)) for _ in range(source.randrange(1, 10)))
