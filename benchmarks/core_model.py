"""A model of teams on a processor with many cores: seconds of a batch that is divided by tile, or by text.

Beside what it says in the functions, it assumes that a core is as many times slower than the one at hand as its peak
of multiply-adds is lower, in all steps; that tasks of a step take equally long; that nobody else uses the processor;
and that threads begin one after another, since Python's lock lets no two of them begin at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.processors import Processor
from benchmarks.program_steps import Load, Step
from benchmarks.step_costs import Costs
from gte_np.kernels.language.team_state import LINE, team_state_size
from gte_np.kernels.runtime.chunks import TOKENS_OF_A_CHUNK, TOKENS_OF_A_TEAM

TEAMS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)


class Model(NamedTuple):
    """What is predicted from: a program's steps for a text, and a machine."""

    steps: Sequence[Step]
    costs: Costs
    python: float  # seconds of a chunk
    slower: float  # than the processor at hand is a core of the other
    processor: Processor

    @property
    def weight_bytes(self) -> int:
        """Of all linear layers."""
        return sum(step.weight_bytes for step in self.steps)

    def barrier(self, threads: int) -> float:
        """Seconds of a step of a team beside its tasks: all threads end at once, so each waits for all others.

        One after the other adds to the count of tasks that are done, and each looks at the shares of all.
        """
        farther = self.processor.latency(threads) / self.costs.handover
        return threads * (self.costs.look + farther * (self.costs.fetch + self.costs.handover))

    def begin(self, threads: int) -> float:
        """Seconds until all threads of a team have begun: they are woken one after the other."""
        lines = team_state_size(len(self.steps), threads) // LINE
        return self.python + self.costs.wake * (threads - 1) + self.costs.line * lines

    def texts_at_once(self, load: Load) -> int:
        """How many texts a team works on at once."""
        return min(load.texts, max(1, TOKENS_OF_A_TEAM // load.length))

    def team(self, load: Load, threads: int) -> float:
        """Seconds of a team for texts that it divides by tile."""
        at_once = self.texts_at_once(load)
        part = Load(at_once, load.length, load.wanted // load.texts * at_once)
        seconds = self.begin(threads) + sum(self._step_of_team(step, part, threads) for step in self.steps)
        return seconds * load.texts / at_once

    def best_team(self, load: Load) -> tuple[float, int]:
        """Seconds of the fastest team, and its threads."""
        return min((self.team(load, threads), threads) for threads in TEAMS if threads <= self.processor.cores)

    def by_text(self, load: Load) -> float:
        """Seconds if each thread works on texts of its own."""
        threads = min(self.processor.cores, load.texts)
        texts = -(-load.texts // threads)  # of a thread
        chunks = -(-texts // max(1, TOKENS_OF_A_CHUNK // load.length))
        begin = self.costs.wake * (threads - 1) + self.python * threads * chunks
        reading = threads * chunks / (self.processor.bandwidth * 1e9)  # seconds of a byte that all threads read
        if self.weight_bytes <= self.processor.cache * 1e6:
            reading = 0.0
        return begin + sum(
            max(step.seconds * texts * self.slower, step.weight_bytes * reading) for step in self.steps
        )

    def _step_of_team(self, step: Step, load: Load, threads: int) -> float:
        tasks = step.tasks(load, threads)
        computing = -(-tasks // threads) / tasks * step.seconds * load.texts * self.slower
        cached = -(-threads // self.processor.complex) * self.processor.cache * 1e6
        # One thread packs a matrix, so all of it is in the memory of one node.
        bandwidth = self.processor.bandwidth / self.processor.nodes * 1e9
        reading = 0.0 if self.weight_bytes <= cached else step.weight_bytes / bandwidth
        return max(computing, reading) + (self.barrier(threads) if threads > 1 else 0.0)


def of_a_node(processor: Processor) -> Processor:
    """One of its memory nodes with the cores beside it: what a process has that keeps to them."""
    nodes = processor.nodes
    share: dict[str, Any] = {"cores": processor.cores // nodes, "bandwidth": processor.bandwidth / nodes, "nodes": 1}
    return processor._replace(name=f"a node of {processor.name}", **share)


def here(costs: Costs) -> Processor:
    """Two cores of this machine, whose caches hold all weights."""
    return Processor("this machine", 2, 1, 2, 1.0, 1, np.inf, np.inf, (costs.handover * 1e9,) * 3, ())
