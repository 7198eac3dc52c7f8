"""Optional packages, which are imported where they are used and named where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gte_np.errors import MissingDependencyError


@contextmanager
def optional_package(what: str, package: str, extra: str) -> Iterator[None]:
    """Import a package in this context. Raises MissingDependencyError, which names the extra, if it is not installed.

    `what` is what needs the package, and `package` the name that it is imported by. Other errors of an import, such
    as that of a package which this one needs in turn, are left as they are.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MissingDependencyError(
            f"{what} needs the package {package}, which is not installed: pip install 'gte_np[{extra}]'."
        ) from error
