"""The encoder to run: the same numbers as `gte_np.reference`, from kernels that Numba compiles.

Read `language` first, then `targets`, `operations` and `runtime`; how weights are stored is in `gte_np.formats`.
"""
