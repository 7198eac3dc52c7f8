"""The state of a team of threads, in memory that Python allocates.

It has a cache line for each count, so that threads do not share the lines that they write often. For 2 threads:

    | done by 0 | done by 1 |   step 0: done | taken of share 0 | taken of share 1 |   step 1: done | ...

where each thread counts the tasks that it has done in the step at hand, and each step the tasks that are done and
those taken of each share.
"""

from __future__ import annotations

LINE = 8  # int64 values of a cache line


def team_state_size(steps: int, threads: int) -> int:
    """int64 values of the state of a team of so many threads for so many steps."""
    return (threads + steps * (1 + threads)) * LINE
