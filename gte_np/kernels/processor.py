"""What the kernels have to know about the processor: its name, its instructions, the size of a tile.

Numba compiles for this processor, unless NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name another one; so does this module.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm

LANES = 16  # float32 values of a vector, on every processor


@dataclass(frozen=True)
class Processor:
    """A processor as LLVM names it. `features` is a list with commas of the instructions that it has and has not."""

    triple: str
    name: str
    features: str

    def has(self, feature: str) -> bool:
        """Whether it has some instructions, such as "avx512f"."""
        return f"+{feature}" in self.features.split(",")

    @property
    def is_x86(self) -> bool:
        """Whether it runs x86 instructions."""
        return self.triple.startswith(("x86_64", "i386", "i686"))

    @property
    def is_arm64(self) -> bool:
        """Whether it runs 64-bit ARM instructions."""
        return self.triple.startswith(("aarch64", "arm64"))

    @property
    def vector_width(self) -> int:
        """How many float32 values a register holds: 16 (AVX-512), 8 (AVX2) or 4 (SSE, NEON)."""
        if self.has("avx512f"):
            return 16
        return 8 if self.has("avx2") else 4

    @property
    def has_float16(self) -> bool:
        """Whether an instruction widens float16 to float32."""
        return self.has("f16c") if self.is_x86 else self.is_arm64

    @property
    def has_dot_bfloat16(self) -> bool:
        """Whether an instruction adds up products of bfloat16, in registers of 512 bits."""
        return self.has("avx512f") and self.has("avx512bf16")

    @property
    def has_dot_int8(self) -> bool:
        """Whether an instruction adds up products of unsigned and signed bytes, in its widest registers."""
        return self.has("avx512vnni") if self.vector_width == 16 else self.has("avxvnni") and self.vector_width == 8

    @property
    def has_signed_dot_int8(self) -> bool:
        """Whether an instruction adds up products of signed bytes, in registers of 128 bits."""
        return self.is_arm64 and self.has("dotprod")

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and vectors of 16 columns of the tile of a matrix product that stays in registers.

        The accumulators must leave room for a row of weights and one value of x: 28 of 32 registers of 16 values, 12
        of 16 registers of 8, 24 of NEON's 32 and 8 of SSE's 16 registers of 4.
        """
        if self.vector_width == 16:
            return 14, 2
        if self.vector_width == 8:
            return 6, 1
        return (2, 1) if self.is_x86 else (6, 1)

    @property
    def panel(self) -> int:
        """How many output features the packed weights of a tile have."""
        return self.tile[1] * LANES


@cache
def processor() -> Processor:
    """The processor that kernels are compiled for."""
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = llvm.get_host_cpu_features().flatten()
    return Processor(
        triple=llvm.get_process_triple(),
        name=os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name(),
        features=features,
    )
