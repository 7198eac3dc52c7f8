"""How much memory this process has, and may have, on Linux; elsewhere there is no limit, and it has none."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CAN_LIMIT = sys.platform == "linux"


def _status(name: str) -> int:
    """A size in /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines() if CAN_LIMIT else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def address_space(*, peak: bool = False) -> int:
    """Bytes of address space, now or at most so far."""
    return _status("VmPeak" if peak else "VmSize")


def resident() -> int:
    """Bytes of memory in use, without what the C library (glibc) keeps of what was freed, for each thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if CAN_LIMIT else None
    if trim is not None:
        trim(0)
    return _status("VmRSS")


def open_files() -> int:
    """How many file descriptors are open."""
    return len(list(Path("/proc/self/fd").iterdir())) if CAN_LIMIT else 0


def limit_growth(size: int) -> None:
    """Let allocations fail that need more than so many bytes beyond what this process has."""
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + size, hard))


@contextmanager
def growth_limited(size: int) -> Iterator[None]:
    """`limit_growth` for a while."""
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    limit_growth(size)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
