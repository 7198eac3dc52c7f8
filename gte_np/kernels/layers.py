"""The whole encoder, compiled: what each thread of a team does with one batch.

The steps are those of `gte_np.reference.encoder`. In each, threads take tasks until there are none, then wait until
all are done. A team of one thread never waits. What a task is has no influence on the numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gte_np.kernels.attention import attend, copy_rows
from gte_np.kernels.functions import gelu
from gte_np.kernels.layer_norm import add_and_normalize, embed_token, normalize_row
from gte_np.kernels.matmul import PANEL, Matrix, linear_panel, matrix_at
from gte_np.kernels.plan import STEPS_OF_A_LAYER
from gte_np.kernels.simd import (
    LANES,
    Pointer,
    floats_at,
    integers_at,
    kernel,
    larger,
    load,
    offset,
    record_at,
    smaller,
    store,
    words_at,
)
from gte_np.kernels.team import Team, next_task, wait_for_all

Plan = Any  # a record of gte_np.kernels.plan.PLAN
Layer = Any  # a record of LAYER

ROWS_OF_A_TASK = 4  # of what is done row by row
# Of a matrix product: enough to read weights once for many tiles, few enough for many threads.
ROWS_OF_A_PRODUCT = 160


class Linear(NamedTuple):
    """A linear layer: panels of packed weights, its bias, the number of input features and of panels."""

    weight: Pointer
    bias: Pointer
    depth: int
    panels: int


@kernel
def encode(plan: Plan, layers: Pointer, matrices: Pointer, words: Pointer, rank: int) -> None:
    """One thread's part of the encoder. `matrices` and `words` point to values in the precision of the checkpoint."""
    team = Team(rank, plan.threads, words_at(plan.team_state), plan.yield_function)
    scratch = offset(floats_at(plan.scratch), rank * plan.scratch_size)
    hidden = Matrix(floats_at(plan.hidden), plan.hidden_stride)
    offsets = integers_at(plan.offsets)
    embed(plan, team, 0, words, hidden)
    keep_hidden_states(plan, team, 1, 0, hidden)
    step = 2

    everything = plan.wanted == plan.tokens
    for index in range(plan.layers - (0 if everything else 1)):
        layer = record_at(layers, index)
        encoder_layer(plan, layer, matrices, team, step, hidden, hidden, plan.tokens, offsets, scratch)
        keep_hidden_states(plan, team, step + STEPS_OF_A_LAYER - 1, index + 1, hidden)
        step += STEPS_OF_A_LAYER
    wanted = hidden
    if not everything:  # the last layer's keys and values are of all tokens, and nothing else of it is
        wanted = Matrix(floats_at(plan.wanted_hidden), plan.hidden_stride)
        gather(plan, team, step, hidden, wanted)
        step += 1
        last = record_at(layers, plan.layers - 1)
        wanted_offsets = integers_at(plan.wanted_offsets)
        encoder_layer(plan, last, matrices, team, step, hidden, wanted, plan.wanted, wanted_offsets, scratch)
        step += STEPS_OF_A_LAYER
    copy_hidden(plan, team, step, plan.wanted, wanted, Matrix(floats_at(plan.output), plan.output_stride))


@kernel
def embed(plan: Plan, team: Team, step: int, words: Pointer, hidden: Matrix) -> None:
    """N token ids -> (N, D)."""
    width = hidden_width(plan)
    input_ids = integers_at(plan.input_ids)
    token_type_ids = integers_at(plan.token_type_ids)
    position_ids = integers_at(plan.position_ids)
    weight, bias = floats_at(plan.embedding_norm_weight), floats_at(plan.embedding_norm_bias)
    tasks = tasks_of(plan.tokens)
    task = next_task(team, step, tasks)
    while task >= 0:
        start = task * ROWS_OF_A_TASK
        for token in range(start, smaller(start + ROWS_OF_A_TASK, plan.tokens)):
            word = offset(words, input_ids[token] * plan.hidden_size)
            kind = offset(floats_at(plan.token_type_table), token_type_ids[token] * width)
            position = offset(floats_at(plan.position_table), position_ids[token] * width)
            row = matrix_at(hidden, token, 0).data
            total = embed_token(word, kind, position, plan.hidden_size, row)
            normalize_row(row, total, plan.hidden_size, weight, bias, np.float32(plan.eps))
        task = next_task(team, step, tasks)
    wait_for_all(team, step, tasks)


@kernel
def tasks_of(rows: int) -> int:
    """The number of tasks of what is done row by row."""
    return (rows + ROWS_OF_A_TASK - 1) // ROWS_OF_A_TASK


@kernel
def encoder_layer(
    plan: Plan,
    layer: Layer,
    matrices: Pointer,
    team: Team,
    step: int,
    hidden: Matrix,
    queries: Matrix,
    count: int,
    query_offsets: Pointer,
    scratch: Pointer,
) -> None:
    """One encoder layer: (N, D) `hidden`, (count, D) `queries`, which may be the same -> (count, D) in `queries`."""
    depth = plan.hidden_size
    attention_panels = plan.heads * plan.head_width // PANEL
    hidden_panels = hidden_width(plan) // PANEL
    inner_panels = (plan.intermediate_size + PANEL - 1) // PANEL
    qkv = Matrix(floats_at(plan.qkv), plan.qkv_stride)
    context = Matrix(floats_at(plan.context), plan.context_stride)
    attended = Matrix(floats_at(plan.attended), plan.hidden_stride)
    inner = Matrix(floats_at(plan.inner), plan.inner_stride)

    weight, bias = offset(matrices, layer.qkv_weight), floats_at(layer.qkv_bias)
    if count == plan.tokens:  # (N, D) -> (N, 3 D)
        apply(team, step, count, queries, Linear(weight, bias, depth, 3 * attention_panels), qkv, False, scratch)
    else:  # (count, D) -> (count, D), and (N, D) -> (N, 2 D)
        columns = attention_panels * PANEL
        keys_values = Linear(offset(weight, columns * depth), offset(bias, columns), depth, 2 * attention_panels)
        apply(team, step, count, queries, Linear(weight, bias, depth, attention_panels), qkv, False, scratch)
        apply(team, step + 1, plan.tokens, hidden, keys_values, matrix_at(qkv, 0, columns), False, scratch)
    attention(plan, team, step + 2, qkv, query_offsets, context, scratch)  # (count, D)
    weight, bias = offset(matrices, layer.attention_output_weight), floats_at(layer.attention_output_bias)
    projection = Linear(weight, bias, attention_panels * PANEL, hidden_panels)
    apply(team, step + 3, count, context, projection, attended, False, scratch)  # (count, D) -> (count, D)
    weight, bias = floats_at(layer.attention_norm_weight), floats_at(layer.attention_norm_bias)
    add_norm(plan, team, step + 4, count, queries, attended, weight, bias)
    weight, bias = offset(matrices, layer.intermediate_weight), floats_at(layer.intermediate_bias)
    apply(
        team, step + 5, count, queries, Linear(weight, bias, depth, inner_panels), inner, True, scratch
    )  # (count, F)
    weight, bias = offset(matrices, layer.output_weight), floats_at(layer.output_bias)
    narrowing = Linear(weight, bias, plan.intermediate_size, hidden_panels)
    apply(team, step + 6, count, inner, narrowing, attended, False, scratch)  # (count, F) -> (count, D)
    weight, bias = floats_at(layer.output_norm_weight), floats_at(layer.output_norm_bias)
    add_norm(plan, team, step + 7, count, queries, attended, weight, bias)


@kernel
def hidden_width(plan: Plan) -> int:
    """D, padded to a multiple of PANEL."""
    return (plan.hidden_size + PANEL - 1) // PANEL * PANEL


@kernel
def apply(
    team: Team, step: int, rows: int, x: Matrix, linear: Linear, out: Matrix, activated: bool, scratch: Pointer
) -> None:
    """A linear layer, followed by gelu if `activated`: (rows, in) -> (rows, out)."""
    groups = larger(1, rows // ROWS_OF_A_PRODUCT)
    # Neighbouring panels are neighbouring tasks: what is fetched ahead of the one is the beginning of the next.
    tasks = linear.panels * groups
    task = next_task(team, step, tasks)
    while task >= 0:
        group = task % groups
        row = rows * group // groups
        height = rows * (group + 1) // groups - row
        column = task // groups * PANEL
        block = matrix_at(out, row, column)
        weight = offset(linear.weight, column * linear.depth)
        bias = offset(linear.bias, column)
        linear_panel(height, matrix_at(x, row, 0), weight, linear.depth, bias, block, scratch)
        if activated:
            gelu_panel(height, block)
        task = next_task(team, step, tasks)
    wait_for_all(team, step, tasks)


@kernel
def gelu_panel(rows: int, block: Matrix) -> None:
    """Gelu of (rows, PANEL) values, in place: they were written just before."""
    for row in range(rows):
        for column in range(0, PANEL, LANES):
            index = row * block.stride + column
            store(block.data, index, gelu(load(block.data, index)))


@kernel
def attention(
    plan: Plan, team: Team, step: int, qkv: Matrix, query_offsets: Pointer, context: Matrix, scratch: Pointer
) -> None:
    """Attention of every head in every text: (count, D), (N, D), (N, D) -> (count, D)."""
    offsets = integers_at(plan.offsets)
    width = plan.heads * plan.head_width
    tasks = plan.texts * plan.heads
    task = next_task(team, step, tasks)
    while task >= 0:
        text = task // plan.heads
        column = task % plan.heads * plan.head_width
        first_query, first_key = query_offsets[text], offsets[text]
        attend(
            query_offsets[text + 1] - first_query,
            matrix_at(qkv, first_query, column),
            offsets[text + 1] - first_key,
            matrix_at(qkv, first_key, width + column),
            matrix_at(qkv, first_key, 2 * width + column),
            plan.head_size,
            plan.head_width,
            matrix_at(context, first_query, column),
            scratch,
        )
        task = next_task(team, step, tasks)
    wait_for_all(team, step, tasks)


@kernel
def add_norm(
    plan: Plan, team: Team, step: int, count: int, x: Matrix, added: Matrix, weight: Pointer, bias: Pointer
) -> None:
    """x = layer_norm(x + added): (count, D)."""
    tasks = tasks_of(count)
    task = next_task(team, step, tasks)
    while task >= 0:
        start = task * ROWS_OF_A_TASK
        rows = smaller(ROWS_OF_A_TASK, count - start)
        eps = np.float32(plan.eps)
        add_and_normalize(
            rows, matrix_at(x, start, 0), matrix_at(added, start, 0), plan.hidden_size, weight, bias, eps
        )
        task = next_task(team, step, tasks)
    wait_for_all(team, step, tasks)


@kernel
def gather(plan: Plan, team: Team, step: int, hidden: Matrix, wanted: Matrix) -> None:
    """The wanted rows: (N, D) -> (wanted, D)."""
    rows = integers_at(plan.wanted_rows)
    index = next_task(team, step, plan.wanted)
    while index >= 0:
        copy_rows(1, matrix_at(hidden, rows[index], 0), hidden_width(plan), matrix_at(wanted, index, 0))
        index = next_task(team, step, plan.wanted)
    wait_for_all(team, step, plan.wanted)


@kernel
def keep_hidden_states(plan: Plan, team: Team, step: int, index: int, hidden: Matrix) -> None:
    """Copy what a layer gave, if it was asked for."""
    if plan.hidden_states != 0:
        target = Matrix(offset(floats_at(plan.hidden_states), index * plan.layer_stride), plan.output_stride)
        copy_hidden(plan, team, step, plan.tokens, hidden, target)


@kernel
def copy_hidden(plan: Plan, team: Team, step: int, rows: int, source: Matrix, target: Matrix) -> None:
    """(rows, D) -> (rows, D) in an array of results."""
    tasks = tasks_of(rows)
    task = next_task(team, step, tasks)
    while task >= 0:
        start = task * ROWS_OF_A_TASK
        count = smaller(ROWS_OF_A_TASK, rows - start)
        copy_rows(count, matrix_at(source, start, 0), plan.output_stride, matrix_at(target, start, 0))
        task = next_task(team, step, tasks)
    wait_for_all(team, step, tasks)
