"""The targets of 64-bit ARM processors."""

from __future__ import annotations

from dataclasses import replace

from gte_np.kernels.targets.dot_products import OddBfloat16, PairsBfloat16, PairsInt8, SignedDotInt8
from gte_np.kernels.targets.target import Target

# 24 of 32 registers of 4 values hold accumulators. Every such processor has NEON. Hint 1 is the instruction YIELD.
NEON = Target("aarch64", "aarch64", "generic", frozenset(), 4, 6, 1, True, ("llvm.aarch64.hint", 1))
NEON_DOTPROD = replace(
    NEON, name="aarch64-dotprod", features=NEON.features | {"dotprod"}, int8_dot_product=SignedDotInt8()
)
NEON_I8MM = replace(
    NEON_DOTPROD,
    name="aarch64-i8mm",
    features=NEON_DOTPROD.features | {"i8mm"},
    int8_pair_product=PairsInt8(),
)
NEON_BF16 = replace(
    NEON_I8MM,
    name="aarch64-bf16",
    features=NEON_I8MM.features | {"bf16"},
    bfloat16_dot_product=OddBfloat16(),
    bfloat16_pair_product=PairsBfloat16(),
)
