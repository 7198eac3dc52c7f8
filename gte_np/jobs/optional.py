"""Optional packages, which are imported where they are used and named where they are missing."""

from __future__ import annotations

from typing import Any

from gte_np.errors import MissingDependencyError


def arrow(what: str) -> Any:
    """The package pyarrow. Raises MissingDependencyError, which says what needs it, if it is not installed."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} needs the package pyarrow, which is not installed: pip install 'gte_np[arrow]'."
        ) from error
    return pyarrow
