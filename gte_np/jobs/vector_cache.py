"""Vectors of texts that were seen before: in memory, within a bound, and across jobs in an SQLite file."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gte_np.encoder_interface import FloatArray
from gte_np.errors import InputError

MEMORY = 1 << 26  # bytes of the vectors that are remembered
_OBJECTS = 400  # bytes that the objects of a vector take, about
_ASKED = 500  # keys in one query
_WAIT = 60.0  # seconds for another process that writes


class Known(NamedTuple):
    """The vector of a text, (D,), and whether the text was cut."""

    vector: FloatArray
    was_cut: bool


class RecentVectors:
    """The last vectors, as many as fit in MEMORY, and those of a file, if there is one.

    Texts are remembered by their hashes.
    """

    def __init__(self, dimension: int, file: SqliteVectors | None) -> None:
        self._most = MEMORY // (4 * dimension + _OBJECTS)
        self._recent: dict[bytes, Known] = {}
        self._file = file

    def get(self, texts: Iterable[str]) -> dict[str, Known]:
        """Those of the texts that are known."""
        keyed = {text: self._recent.get(_key(text)) for text in texts}
        found = {text: known for text, known in keyed.items() if known is not None}
        if self._file is not None:
            found |= self._file.get(text for text, known in keyed.items() if known is None)
        return found

    def put(self, known: Mapping[str, Known]) -> None:
        """Remember vectors, and forget the oldest of those in memory."""
        self._recent.update((_key(text), entry) for text, entry in known.items())
        for oldest in list(islice(self._recent, max(0, len(self._recent) - self._most))):
            del self._recent[oldest]
        if self._file is not None:
            self._file.put(known)


class SqliteVectors:
    """Vectors in an SQLite file, which many jobs of many models may share.

    A key is a hash of the text and of all that a vector depends on: `identity`.
    """

    def __init__(self, path: Path, identity: bytes, dimension: int) -> None:
        self._path, self._identity, self._bytes = path, identity, 4 * dimension
        with self._errors():
            # A job reads in one thread and may end in another.
            self._database = sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS vectors"
                " (key BLOB PRIMARY KEY, vector BLOB NOT NULL, was_cut INTEGER NOT NULL)"
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise InputError for what SQLite cannot do with the file."""
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(
                f"expected {str(self._path)!r} to be a cache of vectors that can be written, got: {error}. "
                "It may be deleted: a job then computes its vectors again."
            ) from error

    def get(self, texts: Iterable[str]) -> dict[str, Known]:
        """Those of the texts that are known."""
        texts_of = {_key(text, self._identity): text for text in texts}
        keys = list(texts_of)
        rows: list[tuple[bytes, bytes, int]] = []
        with self._errors():
            for start in range(0, len(keys), _ASKED):
                asked = keys[start : start + _ASKED]
                marks = ", ".join("?" * len(asked))
                query = f"SELECT key, vector, was_cut FROM vectors WHERE key IN ({marks})"
                rows += self._database.execute(query, asked)
        return {
            texts_of[key]: Known(np.frombuffer(vector, "<f4").astype(np.float32), bool(was_cut))
            for key, vector, was_cut in rows
            if self._is_whole(vector)
        }

    def _is_whole(self, vector: Any) -> bool:
        return isinstance(vector, bytes) and len(vector) == self._bytes

    def put(self, known: Mapping[str, Known]) -> None:
        """Remember vectors, in one transaction."""
        rows = [
            (_key(text, self._identity), vector.astype("<f4").tobytes(), int(was_cut))
            for text, (vector, was_cut) in known.items()
        ]
        with self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
            self._database.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._database.close()


@contextmanager
def vector_file(path: Path | None, identity: Mapping[str, Any], dimension: int) -> Iterator[SqliteVectors | None]:
    """A file of vectors that depend on what `identity` says, if there is a path."""
    if path is None:
        yield None
        return
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).digest()
    with closing(SqliteVectors(path, name, dimension)) as file:
        yield file


def _key(text: str, identity: bytes = b"") -> bytes:
    return hashlib.blake2b(text.encode(), key=identity, digest_size=32).digest()


class Lookup:
    """The texts of a chunk: what is known, what another chunk is just computing, and what is missing."""

    def __init__(self, texts: list[str], known: dict[str, Known], computing: Iterable[str]) -> None:
        self._texts, self._known = texts, known
        expected = set(computing)
        self.missing = [text for text in dict.fromkeys(texts) if text not in known and text not in expected]

    def repeated(self) -> int:
        """How many of the texts need not be computed."""
        return len(self._texts) - len(self.missing)

    def results(self, computed: Mapping[str, Known]) -> list[Known]:
        """The vectors of the texts, once the missing ones, and those of the other chunk, are computed."""
        return [self._known[text] if text in self._known else computed[text] for text in self._texts]
