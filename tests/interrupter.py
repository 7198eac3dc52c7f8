"""An interrupt at a chosen line, for programs that tests run in processes of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any


class Interrupter:
    """Raises KeyboardInterrupt at line number `number` of those that this thread runs of the watched functions.

    It is set by sys.settrace. `place` is then where it was raised, and None before.
    """

    def __init__(self, number: int, watches: Callable[[CodeType], bool]) -> None:
        self.waiting, self.watches = number, watches
        self.place: str | None = None

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Interrupter | None:
        """Count a line."""
        if not self.watches(frame.f_code):
            return None
        if event == "line":
            self.waiting -= 1
            if self.waiting == 0:
                self.place = f"{frame.f_code.co_name}, line {frame.f_lineno}"
                sys.settrace(None)
                raise KeyboardInterrupt
        return self
