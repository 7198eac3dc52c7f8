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
from gte_np.kernels.matmul import PANEL, Linear, Matrix, Operand, linear_panel, matrix_at, operand_at, panels_from
from gte_np.kernels.narrow import narrow_row
from gte_np.kernels.plan import STEPS_OF_A_LAYER, WORD_PRECISIONS
from gte_np.kernels.simd import (
    LANES,
    Pointer,
    bfloat16_at,
    float16_at,
    floats_at,
    int8_at,
    integers_at,
    kernel,
    larger,
    load,
    offset,
    record_at,
    smaller,
    store,
    values_of_word,
    words_at,
)
from gte_np.kernels.team import Team, next_task, wait_for_all

Plan = Any  # a record of gte_np.kernels.plan.PLAN
Layer = Any  # a record of LAYER

ROWS_OF_A_TASK = 4  # of what is done row by row
# Of a matrix product: enough to read weights once for many tiles, few enough for many threads.
ROWS_OF_A_PRODUCT = 160
_ONE = np.float32(1)


_FLOAT16, _BFLOAT16, _INT8 = (WORD_PRECISIONS.index(name) for name in ("float16", "bfloat16", "int8"))


class States(NamedTuple):
    """Hidden states, and what linear layers read of them: the same, unless they compute in bfloat16 or int8."""

    values: Matrix
    operand: Operand


@kernel
def encode(plan: Plan, layers: Pointer, matrices: Pointer, rank: int) -> None:
    """One thread's part of the encoder. `matrices` points to packed weights: what they are decides the arithmetic."""
    team = Team(rank, plan.threads, words_at(plan.team_state), plan.yield_function)
    scratch = offset(floats_at(plan.scratch), rank * plan.scratch_size)
    values = Matrix(floats_at(plan.hidden), plan.hidden_stride)
    hidden = States(values, hidden_operand(plan, matrices, values))
    offsets = integers_at(plan.offsets)
    embed(plan, matrices, team, 0, hidden)
    keep_hidden_states(plan, team, 1, 0, values)
    step = 2

    everything = plan.wanted == plan.tokens
    for index in range(plan.layers - (0 if everything else 1)):
        layer = record_at(layers, index)
        encoder_layer(plan, layer, matrices, team, step, hidden, hidden, plan.tokens, offsets, scratch)
        keep_hidden_states(plan, team, step + STEPS_OF_A_LAYER - 1, index + 1, values)
        step += STEPS_OF_A_LAYER
    if not everything:  # the last layer's keys and values are of all tokens, and nothing else of it is
        values = Matrix(floats_at(plan.wanted_hidden), plan.hidden_stride)
        wanted = States(values, inner_operand(plan, matrices, values))
        gather(plan, matrices, team, step, hidden.values, wanted)
        step += 1
        last = record_at(layers, plan.layers - 1)
        wanted_offsets = integers_at(plan.wanted_offsets)
        encoder_layer(plan, last, matrices, team, step, hidden, wanted, plan.wanted, wanted_offsets, scratch)
        step += STEPS_OF_A_LAYER
    copy_hidden(plan, team, step, plan.wanted, values, Matrix(floats_at(plan.output), plan.output_stride))


@kernel
def hidden_operand(plan: Plan, matrices: Pointer, values: Matrix) -> Operand:
    """What products with `matrices` read of (N, D) hidden states."""
    words = Matrix(floats_at(plan.hidden_words), plan.hidden_words_stride)
    return operand_of(matrices, values, words, floats_at(plan.hidden_factors))


@kernel
def inner_operand(plan: Plan, matrices: Pointer, values: Matrix) -> Operand:
    """What they read of (N, D) or (N, F) inside of a layer."""
    words = Matrix(floats_at(plan.inner_words), plan.inner_words_stride)
    return operand_of(matrices, values, words, floats_at(plan.inner_factors))


@kernel
def operand_of(matrices: Pointer, values: Matrix, words: Matrix, factors: Pointer) -> Operand:
    """The values themselves, or where they are written in fewer bits."""
    return Operand(words if values_of_word(matrices) > 1 else values, factors)


@kernel
def embed(plan: Plan, matrices: Pointer, team: Team, step: int, hidden: States) -> None:
    """N token ids -> (N, D)."""
    weight, bias = floats_at(plan.embedding_norm_weight), floats_at(plan.embedding_norm_bias)
    tasks = tasks_of(plan.tokens)
    task = next_task(team, step, tasks)
    while task >= 0:
        start = task * ROWS_OF_A_TASK
        for token in range(start, smaller(start + ROWS_OF_A_TASK, plan.tokens)):
            row = matrix_at(hidden.values, token, 0).data
            total = add_embeddings(plan, token, row)
            normalize_row(row, total, plan.hidden_size, weight, bias, np.float32(plan.eps))
            narrow_row(matrices, row, plan.hidden_size, hidden.operand, token)
        task = next_task(team, step, tasks)
    wait_for_all(team, step, tasks)


@kernel
def add_embeddings(plan: Plan, token: int, row: Pointer) -> np.float32:
    """row = word + token type + position, (D,); return the sum of it."""
    size, width = plan.hidden_size, hidden_width(plan)
    kind = offset(floats_at(plan.token_type_table), integers_at(plan.token_type_ids)[token] * width)
    position = offset(floats_at(plan.position_table), integers_at(plan.position_ids)[token] * width)
    word = integers_at(plan.input_ids)[token]
    precision, table, start = plan.word_precision, plan.word_table, word * size
    if precision == _FLOAT16:
        return embed_token(offset(float16_at(table), start), _ONE, kind, position, size, row)
    if precision == _BFLOAT16:
        return embed_token(offset(bfloat16_at(table), start), _ONE, kind, position, size, row)
    if precision == _INT8:
        scale = floats_at(plan.word_scales)[word]
        return embed_token(offset(int8_at(table), start), scale, kind, position, size, row)
    return embed_token(offset(floats_at(table), start), _ONE, kind, position, size, row)


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
    hidden: States,
    queries: States,
    count: int,
    query_offsets: Pointer,
    scratch: Pointer,
) -> None:
    """One encoder layer: (N, D) `hidden`, (count, D) `queries`, which may be the same -> (count, D) in `queries`.

    The operand of the result is that of `hidden`.
    """
    steps = steps_of(matrices, plan.hidden_size)
    attention_width = plan.heads * plan.head_width
    attention_panels = attention_width // PANEL
    hidden_panels = hidden_width(plan) // PANEL
    inner_panels = (plan.intermediate_size + PANEL - 1) // PANEL
    qkv = Matrix(floats_at(plan.qkv), plan.qkv_stride)
    context = Matrix(floats_at(plan.context), plan.context_stride)
    attended = Matrix(floats_at(plan.attended), plan.hidden_stride)
    inner = Matrix(floats_at(plan.inner), plan.inner_stride)
    result = States(queries.values, hidden_operand(plan, matrices, queries.values))

    weight, bias, scales = offset(matrices, layer.qkv_weight), floats_at(layer.qkv_bias), floats_at(layer.qkv_scales)
    linear = Linear(weight, bias, scales, steps, 3 * attention_panels)
    if count == plan.tokens:  # (N, D) -> (N, 3 D)
        apply(team, step, count, queries.operand, linear, qkv, False, scratch)
    else:  # (count, D) -> (count, D), and (N, D) -> (N, 2 D)
        query = Linear(weight, bias, scales, steps, attention_panels)
        apply(team, step, count, queries.operand, query, qkv, False, scratch)
        keys_values, columns = panels_from(linear, attention_panels), matrix_at(qkv, 0, attention_width)
        apply(team, step + 1, plan.tokens, hidden.operand, keys_values, columns, False, scratch)
    attention(plan, team, step + 2, qkv, query_offsets, context, scratch)  # (count, D)
    operand = inner_operand(plan, matrices, context)
    narrow(matrices, team, step + 3, count, context, attention_width, operand)
    weight, bias = offset(matrices, layer.attention_output_weight), floats_at(layer.attention_output_bias)
    scales, steps = floats_at(layer.attention_output_scales), steps_of(matrices, attention_width)
    linear = Linear(weight, bias, scales, steps, hidden_panels)
    apply(team, step + 4, count, operand, linear, attended, False, scratch)  # (count, D) -> (count, D)
    weight, bias = floats_at(layer.attention_norm_weight), floats_at(layer.attention_norm_bias)
    add_norm(plan, matrices, team, step + 5, count, result, attended, weight, bias)

    weight, bias = offset(matrices, layer.intermediate_weight), floats_at(layer.intermediate_bias)
    scales, steps = floats_at(layer.intermediate_scales), steps_of(matrices, plan.hidden_size)
    linear = Linear(weight, bias, scales, steps, inner_panels)
    apply(team, step + 6, count, result.operand, linear, inner, True, scratch)  # (count, D) -> (count, F)
    operand = inner_operand(plan, matrices, inner)
    narrow(matrices, team, step + 7, count, inner, plan.intermediate_size, operand)
    weight, bias = offset(matrices, layer.output_weight), floats_at(layer.output_bias)
    scales, steps = floats_at(layer.output_scales), steps_of(matrices, plan.intermediate_size)
    linear = Linear(weight, bias, scales, steps, hidden_panels)
    apply(team, step + 8, count, operand, linear, attended, False, scratch)  # (count, F) -> (count, D)
    weight, bias = floats_at(layer.output_norm_weight), floats_at(layer.output_norm_bias)
    add_norm(plan, matrices, team, step + 9, count, result, attended, weight, bias)


@kernel
def steps_of(matrices: Pointer, features: int) -> int:
    """How many steps a product with `matrices` has for so many input features."""
    values = values_of_word(matrices)
    return (features + values - 1) // values


@kernel
def narrow(matrices: Pointer, team: Team, step: int, rows: int, x: Matrix, width: int, operand: Operand) -> None:
    """Write what products with `matrices` read of (rows, width), if that is something else."""
    if values_of_word(matrices) > 1:
        tasks = tasks_of(rows)
        task = next_task(team, step, tasks)
        while task >= 0:
            start = task * ROWS_OF_A_TASK
            for row in range(start, smaller(start + ROWS_OF_A_TASK, rows)):
                narrow_row(matrices, matrix_at(x, row, 0).data, width, operand, row)
            task = next_task(team, step, tasks)
        wait_for_all(team, step, tasks)


@kernel
def hidden_width(plan: Plan) -> int:
    """D, padded to a multiple of PANEL."""
    return (plan.hidden_size + PANEL - 1) // PANEL * PANEL


@kernel
def apply(
    team: Team, step: int, rows: int, x: Operand, linear: Linear, out: Matrix, activated: bool, scratch: Pointer
) -> None:
    """A linear layer, followed by gelu if `activated`: (rows, in) -> (rows, out)."""
    groups = larger(1, rows // ROWS_OF_A_PRODUCT)
    # Neighbouring panels are neighbouring tasks: what is fetched ahead of the one is the beginning of the next.
    tasks = linear.panels * groups
    task = next_task(team, step, tasks)
    while task >= 0:
        group, panel = task % groups, task // groups
        row = rows * group // groups
        height = rows * (group + 1) // groups - row
        block = matrix_at(out, row, panel * PANEL)
        linear_panel(height, operand_at(x, row), panels_from(linear, panel), block, scratch)
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
    plan: Plan,
    matrices: Pointer,
    team: Team,
    step: int,
    count: int,
    x: States,
    added: Matrix,
    weight: Pointer,
    bias: Pointer,
) -> None:
    """x = layer_norm(x + added): (count, D)."""
    tasks = tasks_of(count)
    task = next_task(team, step, tasks)
    while task >= 0:
        start = task * ROWS_OF_A_TASK
        rows = smaller(ROWS_OF_A_TASK, count - start)
        eps = np.float32(plan.eps)
        block = matrix_at(x.values, start, 0)
        add_and_normalize(rows, block, matrix_at(added, start, 0), plan.hidden_size, weight, bias, eps)
        for row in range(rows):
            narrow_row(matrices, matrix_at(block, row, 0).data, plan.hidden_size, x.operand, start + row)
        task = next_task(team, step, tasks)
    wait_for_all(team, step, tasks)


@kernel
def gather(plan: Plan, matrices: Pointer, team: Team, step: int, hidden: Matrix, wanted: States) -> None:
    """The wanted rows: (N, D) -> (wanted, D)."""
    rows = integers_at(plan.wanted_rows)
    index = next_task(team, step, plan.wanted)
    while index >= 0:
        row = matrix_at(wanted.values, index, 0)
        copy_rows(1, matrix_at(hidden, rows[index], 0), hidden_width(plan), row)
        narrow_row(matrices, row.data, plan.hidden_size, wanted.operand, index)
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
