"""Optional packages, which are imported where they are used and named where they are missing."""

from __future__ import annotations

from typing import Any

from gte_np.optional import optional_package


def arrow(what: str) -> Any:
    """The package pyarrow. Raises MissingDependencyError, which says what needs it, if it is not installed."""
    with optional_package(what, "pyarrow", "arrow"):
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    return pyarrow
