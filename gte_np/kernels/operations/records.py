"""What a run of the compiled encoder is told: records of sizes and addresses, the same in Python and in the kernels.

The encoder is a program, an array of STEP records that Python writes once for a workspace; a run of it is told the
batch by one BATCH record and the team by one RUN record. Addresses are of float32 values unless said otherwise.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

_SIZE = np.int64
_ADDRESS = np.int64

# Values between the end of a row and the beginning of the next: a cache line. Rows of 4 KB, say, would all compete
# for the same few places of the nearest cache.
ROW_GAP = 16


class Operation(IntEnum):
    """What a step does."""

    EMBED = 0
    LINEAR = 1
    ATTENTION = 2
    QUANTIZE = 3
    ADD_NORM = 4
    GATHER = 5
    KEEP = 6


# One step: a parallel loop over tasks. What a field means to an operation is said in `program`.
STEP = np.dtype(
    [
        ("operation", _SIZE),  # an Operation
        ("wanted", _SIZE),  # 1: the rows are those of the wanted tokens, 0: of all tokens
        # what it reads
        ("x", _ADDRESS),  # rows of float32, or of words
        ("x_stride", _SIZE),
        ("x_factors", _ADDRESS),  # of words
        # what it writes: rows of float32, and what linear layers read of them, unless that is the same
        ("out", _ADDRESS),
        ("out_stride", _SIZE),
        ("words", _ADDRESS),
        ("words_stride", _SIZE),
        ("factors", _ADDRESS),
        ("width", _SIZE),  # features of a row
        # of a linear layer
        ("weight", _SIZE),  # where its panels begin among the packed matrices, in words; of a norm: an address
        ("bias", _ADDRESS),
        ("constants", _ADDRESS),
        ("constant_rows", _SIZE),
        ("depth", _SIZE),  # in words
        ("panels", _SIZE),
        ("gelu", _SIZE),
        # of attention
        ("heads", _SIZE),
        ("head_size", _SIZE),
        ("head_width", _SIZE),
        # of a norm, and of the embeddings
        ("eps", np.float64),
        ("token_type_table", _ADDRESS),
        ("position_table", _ADDRESS),
        ("table_stride", _SIZE),
        ("layer", _SIZE),  # of hidden states that are kept; -1: of the last one, which is the output
    ],
    align=True,
)

# N tokens of B texts. Arrays are int32.
BATCH = np.dtype(
    [
        ("tokens", _SIZE),
        ("texts", _SIZE),
        ("position_ids", _ADDRESS),  # (N,)
        ("token_type_ids", _ADDRESS),  # (N,)
        ("offsets", _ADDRESS),  # (B + 1,)
        # the tokens whose last hidden states are wanted: a number less than N, or N for all of them
        ("wanted", _SIZE),
        ("wanted_rows", _ADDRESS),  # (wanted,)
        ("wanted_offsets", _ADDRESS),  # (B + 1,): which of them are of which text
        # results, float32, in rows of `output_stride`
        ("output", _ADDRESS),  # (wanted, D)
        ("hidden_states", _ADDRESS),  # (L + 1, N, D)
        ("output_stride", _SIZE),
        ("layer_stride", _SIZE),
    ],
    align=True,
)

ARRAYS = "position_ids", "token_type_ids", "offsets", "wanted_rows", "wanted_offsets"  # whose addresses are in it

# Where the words of a matrix lie in a checkpoint, and where they go, all in words.
LAYOUT = np.dtype(
    [
        ("outputs", _SIZE),
        ("steps", _SIZE),
        ("source_stride", _SIZE),  # from one output feature to the next
        ("panel_size", _SIZE),  # from one panel to the next
        ("width", _SIZE),  # output features of a panel
    ],
    align=True,
)

# Input features of a panel are put into an order of its own in windows of so many words, and then their halves. The
# order begins with two words, in a cache line of their own, and has two more for each step.
WINDOW = 4
HALF = 2
ORDER_BEGIN = 16

# Panels in the order of the input features, and their orders, in words: see gte_np.kernels.operations.feature_pairs.
ORDERING = np.dtype(
    [
        ("panels", _SIZE),
        ("steps", _SIZE),
        ("width", _SIZE),  # output features of a panel
        ("order_stride", _SIZE),  # from one panel's order to the next
    ],
    align=True,
)

# A team of threads, and its program.
RUN = np.dtype(
    [
        ("steps", _SIZE),
        ("threads", _SIZE),
        ("team_state", _ADDRESS),  # int64
        ("yield_function", _ADDRESS),
        ("scratch", _ADDRESS),  # for each thread
        ("scratch_size", _SIZE),  # of one thread, in values
    ],
    align=True,
)
