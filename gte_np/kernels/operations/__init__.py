"""What the compiled encoder does: `linear`, `attention`, `layer_norm`, `functions` and `activations`.

The first two take the way that suits a format and a target: `matmul`, `row_pairs` or `matrix_unit`, and
`tile_attention` or `unit_attention`.
`program` puts them together, step by step, as `records` tell it; `pack` lays out weights.
"""
