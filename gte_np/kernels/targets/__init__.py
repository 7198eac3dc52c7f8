"""Targets: which instructions kernels are compiled for. See `target` for what makes one.

To add one, write a module with a `Target` and add it to `TARGETS`.
"""

from __future__ import annotations

from gte_np.kernels.targets.arm import NEON, NEON_BF16, NEON_DOTPROD, NEON_I8MM
from gte_np.kernels.targets.target import Target
from gte_np.kernels.targets.x86 import AVX2, AVX2_VNNI, AVX512, AVX512_AMX, AVX512_BF16, AVX512_VNNI, SSE4

__all__ = ["TARGETS", "Target"]

# The best first: a processor takes the first that it runs.
TARGETS: list[Target] = [
    *(AVX512_AMX, AVX512_BF16, AVX512_VNNI, AVX512, AVX2_VNNI, AVX2, SSE4),
    *(NEON_BF16, NEON_I8MM, NEON_DOTPROD, NEON),
]
