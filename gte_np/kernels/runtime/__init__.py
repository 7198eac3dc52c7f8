"""The Python side of the kernels.

`encoder` is the door. It divides a batch (`chunks`) among threads (`threads`), which run a program (`program`) in
buffers (`workspace`) with packed weights (`packing`). `compile` compiles, `object_cache` keeps what was compiled, and
`object_code` loads it without Numba.
"""
