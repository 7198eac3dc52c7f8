"""What the compiled encoder does: `matmul`, `attention`, `layer_norm`, `functions` and `activations`.

`program` puts them together, step by step, as `records` tell it; `pack` lays out weights.
"""
