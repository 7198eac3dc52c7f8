"""The Python side of the kernels.

`kernel_encoder` is the door. It divides a batch (`chunks`) among threads (`threads`), which run a program (`program`)
in buffers (`workspace`) with packed weights (`packed_weights`, and `saved_panels` for those that are mapped).
`kernel_functions` chooses a target and finds its kernels: in a shared object that was built ahead of time
(`prebuilt`), or compiled here (`compile`), kept (`object_cache`) and loaded (`object_code`).
"""
