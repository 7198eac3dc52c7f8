"""Read a JSON file of a checkpoint, which may be damaged or hostile."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, TypeVar

from gte_np.errors import CheckpointError, UnsupportedModelError

Default = TypeVar("Default", bool, None)


def read_json(path: Path) -> Any:
    """Return what the JSON file holds. Raise CheckpointError if it cannot be read or is not JSON."""
    try:
        return json.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected a readable UTF-8 JSON file, got {error}.") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file. Raise CheckpointError if it holds anything else."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got a {type(content).__name__}.")
    return content


def is_there(path: Path) -> bool:
    """Whether a file that may be left out is there. Raise CheckpointError for a folder or a broken link."""
    if path.is_file() or not os.path.lexists(path):
        return path.is_file()
    raise CheckpointError(f"{path}: expected a file, got something else, or a link to nothing.")


class Fields:
    """The fields of one JSON object, read with their types checked.

    Each method raises CheckpointError, which names the file and the key, for a value of another type.
    """

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        self.values = values

    @classmethod
    def of_optional(cls, path: Path) -> Fields:
        """Read the object of a file that a repository may leave out: then an empty one."""
        return cls(path, read_json_object(path) if is_there(path) else {})

    def integer(self, key: str, default: int | None = None, least: int = 1, most: int = 2**31 - 1) -> int:
        """The whole number under `key`, from `least` to `most`."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.error(key, f"a whole number from {least} to {most}", value)
        return value

    def number(self, key: str, default: float) -> float:
        """The positive, finite number under `key`; null is the default."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
            raise self.error(key, "a positive number", value)
        return float(value)

    def text(self, key: str, default: str) -> str:
        """The string under `key`."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self.error(key, "a string", value)
        return value

    def boolean(self, key: str, default: Default) -> bool | Default:
        """The true or false under `key`; null is the default."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(key, "true or false", value)
        return value

    def expect(self, key: str, implemented: tuple[object, ...]) -> None:
        """Raise UnsupportedModelError unless the value is one of these; an absent key means the first."""
        value = self.values.get(key, implemented[0])
        if value not in implemented:
            raise UnsupportedModelError(
                f"{self.path}: {key} {value!r:.80} is not implemented; gte_np implements {implemented[0]!r}."
            )

    def error(self, key: str, expected: str, came: object) -> CheckpointError:
        """The error for a key whose value is not what was expected."""
        return CheckpointError(f"{self.path}: expected {key} to be {expected}, got {came!r:.80}.")
