"""Options of a model that a library writes to a file, to load the model again by them."""

from __future__ import annotations

from typing import Any

from gte_np.errors import InputError


def check_stored_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of `EmbeddingModel`. Raise InputError for a token, TypeError for what JSON cannot hold."""
    if "token" in options:
        raise InputError(
            "expected no token, which would be stored in readable form: set HF_TOKEN in the environment."
        )
    for name, value in options.items():
        if not isinstance(value, str | bool | int | dict | None):
            raise TypeError(f"expected {name} to be a value that can be stored, got {type(value).__name__}.")
    return options
