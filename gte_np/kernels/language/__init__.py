"""The language that kernels are written in: types, memory, vectors, a parallel loop, and what emits their code.

Read `types` first, then `vectors`, `memory` and `parallel`; `emitter` is what intrinsics and weight formats use.
"""
