"""The targets of x86 processors, named after the levels of the psABI and what goes beyond them."""

from __future__ import annotations

from dataclasses import replace

from gte_np.kernels.targets.dot_products import DotBfloat16, DotInt8, PairsOfBytes
from gte_np.kernels.targets.matrix_units import Amx
from gte_np.kernels.targets.target import Target

_PAUSE = ("llvm.x86.sse2.pause", None)
V2 = frozenset({"cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"})
V3 = V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"}
V4 = V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
AMX = frozenset({"amx-bf16", "amx-int8", "amx-tile"})

# 8 of 16 registers of 4 values hold accumulators, 12 of 16 registers of 8, 28 of 32 registers of 16; fewer where
# products of bytes have intermediate sums.
_PAIRS = {4: PairsOfBytes(4), 8: PairsOfBytes(8, most_rows=4), 16: PairsOfBytes(16, most_rows=12)}
SSE4 = Target("x86-64-v2", "x86_64", "x86-64-v2", V2, 4, 2, 1, False, _PAUSE, int8_dot_product=_PAIRS[4])
AVX2 = Target("x86-64-v3", "x86_64", "x86-64-v3", V3, 8, 6, 1, True, _PAUSE, int8_dot_product=_PAIRS[8])
AVX2_VNNI = replace(AVX2, name="x86-64-v3-vnni", features=V3 | {"avxvnni"}, int8_dot_product=DotInt8(8))
AVX512 = Target("x86-64-v4", "x86_64", "x86-64-v4", V4, 16, 14, 2, True, _PAUSE, int8_dot_product=_PAIRS[16])
AVX512_VNNI = replace(AVX512, name="x86-64-v4-vnni", features=V4 | {"avx512vnni"}, int8_dot_product=DotInt8(16))
AVX512_BF16 = replace(
    AVX512_VNNI,
    name="x86-64-v4-bf16",
    features=AVX512_VNNI.features | {"avx512bf16"},
    bfloat16_dot_product=DotBfloat16(),
)
AVX512_AMX = replace(
    AVX512_BF16,
    name="x86-64-v4-amx",
    features=AVX512_BF16.features | AMX,
    matrix_unit=Amx(),
)
