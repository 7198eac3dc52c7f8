"""Checks of arguments that several functions share."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gte_np.errors import InputError


def check_integer(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return the value as an int. Raise TypeError if it is no whole number, InputError if it is out of range."""
    number = as_integer(name, value)
    if number < least or (most is not None and number > most):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        came = number if number.bit_length() < 64 else "a number of more than 64 bits"
        raise InputError(f"expected {name} to be {limits}, got {came}.")
    return number


def as_integer(name: str, value: object) -> int:
    """Return the value as an int. Raise TypeError if it is no whole number."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # NumPy's integers too
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"expected {name} to be an int, got {type(value).__name__}.")
    return number


def check_integers(
    name: str, values: ArrayLike, least: int | None = None, most: int | None = None, *, booleans: bool = True
) -> NDArray[np.integer[Any]]:
    """Return a copy of the values as an array of integers, of 64 bits or as they came.

    It is the copy that is checked, so whoever holds the values cannot change what was checked.

    Raises TypeError for anything but integers, to which booleans may count as 0 and 1, and InputError for rows of
    several lengths, for masked values, and for numbers below `least` or above `most`.
    """
    try:
        array = np.array(values)
    except ValueError as error:
        raise InputError(f"expected {name} in rows of one length, got rows of several lengths: pad them.") from error
    if array.size == 0:
        array = np.zeros(array.shape, np.int64)  # numbers of any kind, as of an empty list
    elif booleans and array.dtype.kind == "b":
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"expected {name} to be integers, got {array.dtype}.")
    # Known by its mask: naming the class of masked arrays would import numpy.ma, which takes some 20 milliseconds.
    if array.size and isinstance(values, np.ndarray) and np.any(getattr(values, "mask", False)):
        raise InputError(f"expected {name} without masked values, got some: fill them, or leave them out.")
    if array.size and least is not None and most is not None:
        low, high = int(array.min()), int(array.max())
        if low < least or high > most:
            raise InputError(f"expected {name} from {least} to {most}, got {_range(low, high)}.")
    return array


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def check_text(name: str, value: object) -> str:
    """Return the value. Raise TypeError if it is no str."""
    if not isinstance(value, str):
        raise TypeError(f"expected {name} to be a str, got {type(value).__name__}.")
    return value


def find_surrogate(text: str, step: int = 1 << 20) -> int | None:
    """Where the first lone surrogate of a text is, which no encoding of Unicode has; None if there is none.

    A text may be long: `step` characters at a time are encoded.
    """
    if text.isascii():
        return None
    for start in range(0, len(text), step):
        try:
            text[start : start + step].encode()
        except UnicodeEncodeError as error:
            return start + error.start
    return None


def check_flag(name: str, value: object, *, optional: bool = False) -> None:
    """Raise TypeError if the value is no bool, nor NumPy's, nor None where it is optional."""
    if isinstance(value, bool | np.bool_) or (optional and value is None):
        return
    choices = "True, False or None" if optional else "True or False"
    raise TypeError(f"expected {name} to be {choices}, got {type(value).__name__}.")


def check_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return the value. Raise TypeError if it is no str, InputError if it is not among the choices."""
    if check_text(name, value) not in choices:
        raise InputError(f"expected {name} to be one of {', '.join(choices)}, got {value!r:.80}.")
    return str.__str__(value)  # of an enumeration that is a str: its value
