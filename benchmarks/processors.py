"""Processors with many cores, as their makers and those who measured them describe them; each number has its source.

Multiply-adds are of float32, in a cycle of a core, at the clock that all cores keep: with vectors of 512 bits Zen 5
has two of 16, and Neoverse V2 four of 4. A complex is what shares a last-level cache. Bandwidth is that of the
channels of all memory nodes together, so what can be had at most. Latencies are of a cache line that goes from core
to core: within a complex, across complexes, and across sockets.
"""

from __future__ import annotations

from typing import NamedTuple


class Processor(NamedTuple):
    """A machine: all cores that one process may use."""

    name: str
    cores: int
    nodes: int  # of memory
    complex: int  # cores that share a last-level cache
    gigahertz: float
    multiply_adds: int
    cache: float  # MB of a complex's last-level cache
    bandwidth: float  # GB/s of all nodes
    latencies: tuple[float, float, float]  # ns
    sources: tuple[str, ...]

    @property
    def peak(self) -> float:
        """Multiply-adds a second of a core."""
        return self.gigahertz * 1e9 * self.multiply_adds

    def latency(self, threads: int) -> float:
        """Seconds that a cache line takes from one of so many cores to another, on the average of all pairs."""
        within, across, between = self.latencies
        socket = min(threads, self.cores // self.nodes)
        near, far, others = min(threads, self.complex) - 1, threads - socket, max(1, threads - 1)
        return 1e-9 * (near * within + (socket - 1 - near) * across + far * between) / others


_ZEN5 = (
    "eight cores and 32 MB a CCD: https://chipsandcheese.com/p/amds-ryzen-9950x-zen-5-on-desktop",
    "vectors of 512 bits at full width: "
    "https://4nownews.com/2024/10/13/epic-evolution-amd-epyc-turin-received-up-to-192-zen-5c-cores-and-up-to-128-zen-5-cores",
    "assumption: two multiply-adds of such vectors in a cycle",
)
_GRAVITON4 = (
    "cores, clock, vectors, caches, channels: https://github.com/aws/aws-graviton-getting-started (README.md)",
    "DDR5-5600: https://en.wikichip.org/wiki/annapurna_labs/graviton/graviton4",
    "latencies, 30 to 60 ns and 138.6 ns across sockets: "
    "https://chipsandcheese.com/2024/07/22/arms-neoverse-v2-in-awss-graviton-4",
)
_TURIN = (
    "channels, CCDs: AMD EPYC 9005 Series Architecture Overview, as told by "
    "https://www.kad8.com/hardware/amd-epyc-9005-processor-architecture-overview",
    "latencies of two EPYC 9575F, 45, 150 and 260 ns, and 576 GB/s with DDR5-6000: "
    "https://chipsandcheese.com/p/evaluating-uniform-memory-access, as told by "
    "https://blog.hotdry.top/posts/2025/11/27/amd-turin-uma-memory-access-benchmarks-optimization",
)

PROCESSORS = (
    Processor(
        name="Ryzen 7 9700X",
        cores=8,
        nodes=1,
        complex=8,
        gigahertz=3.8,
        multiply_adds=32,
        cache=32,
        bandwidth=89.6,
        latencies=(17, 17, 17),
        sources=(
            *_ZEN5,
            "two channels of DDR5-5600, of the same series: https://timdobbs.substack.com/p/the-amd-ryzen-9-9950x-cpu",
            "assumption: 3.8 GHz, the base clock",
            "assumption: 15 to 19 ns within a CCD as in Zen 4, by AnandTech's review of the Ryzen 9 7950X, at "
            "https://jiyinulaqia.pages.dev/amd-zen-4-ryzen-9-7950x-and-ryzen-5-7600x-review-retaking-the-high-end.html",
        ),
    ),
    Processor(
        name="Graviton4, 16 vCPU",
        cores=16,
        nodes=1,
        complex=16,
        gigahertz=2.8,
        multiply_adds=16,
        cache=36 * 16 / 96,
        bandwidth=12 * 44.8 * 16 / 96,
        latencies=(45, 45, 45),
        sources=(*_GRAVITON4, "assumption: 16 of 96 cores have their share of cache and bandwidth"),
    ),
    Processor(
        name="EPYC 9575F",
        cores=64,
        nodes=1,
        complex=8,
        gigahertz=3.3,
        multiply_adds=32,
        cache=32,
        bandwidth=576,
        latencies=(45, 150, 260),
        sources=(*_ZEN5, *_TURIN, "assumption: 3.3 GHz, the base clock"),
    ),
    Processor(
        name="EPYC 9965",
        cores=192,
        nodes=1,
        complex=16,
        gigahertz=2.25,
        multiply_adds=32,
        cache=32,
        bandwidth=576,
        latencies=(45, 150, 260),
        sources=(
            *_ZEN5,
            *_TURIN,
            "twelve CCDs of 16 Zen 5c cores with 32 MB: "
            "https://hi.whatpsu.com/articles/809-Who-needs-accelerators-when-you-have-192-cores-Pictured-AMD-5th-Gen-EPYC-Turin",
            "assumptions: 2.25 GHz, the base clock; latencies of the EPYC 9575F",
        ),
    ),
    Processor(
        name="two Graviton4",
        cores=192,
        nodes=2,
        complex=96,
        gigahertz=2.7,
        multiply_adds=16,
        cache=36,
        bandwidth=2 * 12 * 44.8,
        latencies=(45, 45, 138.6),
        sources=_GRAVITON4,
    ),
)
