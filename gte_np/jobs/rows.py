"""What a job reads from a record: a text, an id and the columns that are carried over to the output."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gte_np.arguments import find_surrogate
from gte_np.errors import GteError, InputError

# The names of columns of an output that are not the input's.
ID, TEXT, EMBEDDING = "id", "text", "embedding"
RESERVED = (ID, TEXT, EMBEDDING)

# Kinds of columns, and the types of Python whose values they hold. Each kind also holds null.
KINDS: dict[str, tuple[type, ...]] = {"bool": (bool,), "int64": (int,), "float64": (int, float), "string": (str,)}


class Fields(NamedTuple):
    """The fields of a record that are read: the text, perhaps an id, and others that are carried over."""

    text: str = TEXT
    id: str | None = None
    kept: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[str, ...]:
        """All of them."""
        return (self.text, *((self.id,) if self.id is not None else ()), *self.kept)


class RowError(GteError):
    """A record that cannot be read; its message is the reason."""


class Problem(NamedTuple):
    """A record that was skipped: the number of its row among all inputs, where it stands, and the reason."""

    row: int
    place: str
    reason: str


class Record(NamedTuple):
    """A record of an input: where it stands, and its fields by name, or the reason why it has none."""

    place: str
    fields: Mapping[str, Any] | RowError


class Rows(NamedTuple):
    """Rows of an output without vectors: the texts, the columns by name and their kinds, and what was skipped."""

    texts: list[str]
    columns: dict[str, list[Any]]
    kinds: Mapping[str, str]
    problems: list[Problem]


def read_rows(
    records: Sequence[Record], first_row: int, fields: Fields, kinds: Mapping[str, str] | None = None
) -> Rows:
    """Read records into rows. An id is by default the number of the row among all inputs, from 0.

    Values must be of the kinds of their columns, which are found in these rows if none are given.
    """
    if kinds is None:
        kinds = _kinds_of(_read_rows(records, first_row, fields, None).columns)
    return _read_rows(records, first_row, fields, kinds)


def _read_rows(records: Sequence[Record], first_row: int, fields: Fields, kinds: Mapping[str, str] | None) -> Rows:
    rows = Rows([], {ID: [], **{name: [] for name in fields.kept}}, kinds or {}, [])
    for row, record in enumerate(records, first_row):
        try:
            text, values = _read_row(record, row, fields, kinds)
        except RowError as error:
            rows.problems.append(Problem(row, record.place, str(error)))
            continue
        rows.texts.append(text)
        for column, value in zip(rows.columns.values(), values, strict=True):
            column.append(value)
    return rows


def _read_row(record: Record, row: int, fields: Fields, kinds: Mapping[str, str] | None) -> tuple[str, list[Any]]:
    if isinstance(record.fields, RowError):
        raise record.fields
    text = _field(record.fields, fields.text)
    if not isinstance(text, str):
        raise RowError(f"expected a string in the field {fields.text!r}, got {_kind_name(text)}.")
    values = [row if fields.id is None else _field(record.fields, fields.id)]
    values += [_field(record.fields, name) for name in fields.kept]
    if kinds is not None:
        values = [_fitted(name, value, kinds[name]) for name, value in zip((ID, *fields.kept), values, strict=True)]
    return _check_unicode(text), values


def _field(fields: Mapping[str, Any], name: str) -> Any:
    if name not in fields:
        raise RowError(f"expected a field {name!r}, got {', '.join(map(repr, fields)) or 'none'}.")
    return fields[name]


def _kind_name(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _check_unicode(text: str) -> str:
    place = find_surrogate(text)
    if place is not None:
        raise RowError(f"expected valid Unicode, got a lone surrogate at character {place}.")
    return text


def _kinds_of(columns: Mapping[str, list[Any]]) -> dict[str, str]:
    """The kind of each column, by the values of the first shard: the first kind that holds them all, or string.

    What is no string is put in a column of strings as JSON.
    """
    return {name: _kind_of([value for value in values if value is not None]) for name, values in columns.items()}


def _kind_of(values: list[Any]) -> str:
    if not values:
        return "string"
    return next((kind for kind in KINDS if all(_holds(kind, value) for value in values)), "string")


def _holds(kind: str, value: object) -> bool:
    if isinstance(value, bool) and kind != "bool":
        return False
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return False
    return isinstance(value, KINDS[kind])


def _fitted(name: str, value: Any, kind: str) -> Any:
    """A value in a column of a kind. Raise RowError if it does not fit."""
    if value is None:
        return None
    if kind == "string":
        return _check_unicode(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    if _holds(kind, value):
        return float(value) if kind == "float64" else value
    raise RowError(f"expected {kind} in the column {name!r}, as in the first rows, got {value!r:.80}.")


def check_fields(fields: Fields) -> Fields:
    """Return the fields. Raise InputError for a carried column that would have the name of another one."""
    for name in fields.kept:
        if name in RESERVED or name.startswith(f"{EMBEDDING}_") or fields.kept.count(name) > 1:
            raise InputError(
                f"expected kept columns with names of their own, got {name!r}: {', '.join(RESERVED)} are columns of "
                "every output."
            )
    return fields
