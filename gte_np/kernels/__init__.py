"""The encoder to run: the same numbers as `gte_np.reference`, from kernels that Numba compiles.

Read `simd` first, then `matmul`, `functions`, `attention`, `layer_norm`, and `layers`, which puts them together:
these are compiled. `encoder` is what Python sees of them; it divides a batch (`chunks`) among threads (`threads`, and
inside of compiled code `team`), tells them what to do (`plan`, `workspace`) with which weights (`packing`). `entries`
compiles, `library` keeps what was compiled, `object_code` loads it without Numba.
"""
