"""What a run of the compiled encoder is told: records of sizes and addresses, the same in Python and in the kernels.

A width is a number of features, padded to a multiple of PANEL. The rows of a buffer lie a stride apart that is not a
multiple of a power of two: else the rows of a tile would push each other out of the nearest cache.
"""

from __future__ import annotations

import numpy as np

_SIZE = np.int64
_ADDRESS = np.int64

# One encoder layer. Weights are places in the packed matrices; the rest are addresses of float32 values, scales those
# of a `gte_np.kernels.matmul.Linear` in int8.
LAYER = np.dtype(
    [
        ("qkv_weight", _SIZE),
        ("qkv_bias", _ADDRESS),
        ("qkv_scales", _ADDRESS),
        ("attention_output_weight", _SIZE),
        ("attention_output_bias", _ADDRESS),
        ("attention_output_scales", _ADDRESS),
        ("attention_norm_weight", _ADDRESS),
        ("attention_norm_bias", _ADDRESS),
        ("intermediate_weight", _SIZE),
        ("intermediate_bias", _ADDRESS),
        ("intermediate_scales", _ADDRESS),
        ("output_weight", _SIZE),
        ("output_bias", _ADDRESS),
        ("output_scales", _ADDRESS),
        ("output_norm_weight", _ADDRESS),
        ("output_norm_bias", _ADDRESS),
    ]
)

WORD_PRECISIONS = ("float32", "float16", "bfloat16", "int8")

PLAN = np.dtype(
    [
        # the model
        ("layers", _SIZE),
        ("hidden_size", _SIZE),
        ("intermediate_size", _SIZE),
        ("heads", _SIZE),
        ("head_size", _SIZE),
        ("head_width", _SIZE),
        ("eps", np.float64),
        ("word_table", _ADDRESS),  # rows of the hidden size, in the precision of this number in WORD_PRECISIONS
        ("word_precision", _SIZE),
        ("word_scales", _ADDRESS),  # (V,) float32, for int8
        ("token_type_table", _ADDRESS),  # float32, rows of the hidden size's width, as the position table
        ("position_table", _ADDRESS),
        ("embedding_norm_weight", _ADDRESS),
        ("embedding_norm_bias", _ADDRESS),
        # the batch: N tokens of B texts; all arrays int32
        ("tokens", _SIZE),
        ("texts", _SIZE),
        ("input_ids", _ADDRESS),
        ("position_ids", _ADDRESS),
        ("token_type_ids", _ADDRESS),
        ("offsets", _ADDRESS),  # (B + 1,)
        # the tokens whose last hidden states are wanted: a number less than N, or N for all of them
        ("wanted", _SIZE),
        ("wanted_rows", _ADDRESS),  # (wanted,)
        ("wanted_offsets", _ADDRESS),  # (B + 1,): which of them are of which text
        # results, float32, in rows of `output_stride`
        ("output", _ADDRESS),  # (wanted, D)
        ("hidden_states", _ADDRESS),  # (L + 1, N, D), or 0 if nobody asks for them
        ("output_stride", _SIZE),
        ("layer_stride", _SIZE),
        # buffers, float32
        ("hidden", _ADDRESS),  # (N, D)
        ("wanted_hidden", _ADDRESS),  # (wanted, D)
        ("attended", _ADDRESS),  # (N, D)
        ("hidden_stride", _SIZE),  # of these three
        ("qkv", _ADDRESS),  # (N, 3 heads head_width): queries, keys, values
        ("qkv_stride", _SIZE),
        ("context", _ADDRESS),  # (N, heads head_width)
        ("context_stride", _SIZE),
        ("inner", _ADDRESS),  # (N, F)
        ("inner_stride", _SIZE),
        # the same for products in bfloat16 or int8: words, whose strides are in words, and (N, 4) float32 factors
        ("hidden_words", _ADDRESS),  # (N, D)
        ("hidden_words_stride", _SIZE),
        ("hidden_factors", _ADDRESS),
        ("inner_words", _ADDRESS),  # (N, D) or (N, F)
        ("inner_words_stride", _SIZE),
        ("inner_factors", _ADDRESS),
        ("scratch", _ADDRESS),  # for each thread
        ("scratch_size", _SIZE),  # of one thread, in values
        # the team
        ("threads", _SIZE),
        ("team_state", _ADDRESS),
        ("yield_function", _ADDRESS),
    ],
    align=True,
)

STEPS_OF_A_LAYER = 11  # at most
_EXTRA_STEPS = 4  # embeddings, their copy, the choice of wanted rows, the output

LINE = 8  # int64 values of a cache line
FACTORS = 4  # float32 values that say what the integers of a row are worth, see `gte_np.kernels.narrow`


def team_state_size(layers: int, threads: int) -> int:
    """int64 values of a team's state, see `gte_np.kernels.team`."""
    steps = layers * STEPS_OF_A_LAYER + _EXTRA_STEPS
    return (threads + steps * (1 + threads)) * LINE
