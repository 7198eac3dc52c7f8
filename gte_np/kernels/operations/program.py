"""The program of an encoder, step by step: each operation, and the tasks into which its rows or panels are divided.

`gte_np.kernels.runtime.program` writes the steps in Python; here is what they do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gte_np.kernels.language.memory import (
    floats_at,
    int32s_at,
    int64s_at,
    known,
    larger,
    offset,
    panel_width,
    record_at,
    smaller,
)
from gte_np.kernels.language.parallel import Team, parallel_for
from gte_np.kernels.language.types import Pointer, kernel
from gte_np.kernels.operations.activations import write_operand
from gte_np.kernels.operations.attention import attend
from gte_np.kernels.operations.attention_head import Head
from gte_np.kernels.operations.layer_norm import Norm, add_embeddings, add_row, normalize_row
from gte_np.kernels.operations.linear import linear_panel
from gte_np.kernels.operations.matmul import (
    Linear,
    Matrix,
    Operand,
    copy_rows,
    matrix_at,
    operand_at,
    panel_of,
    row_of,
)
from gte_np.kernels.operations.records import Operation

Step = Any  # a record of STEP
Batch = Any  # a record of BATCH
Run = Any  # a record of RUN

ROWS_OF_A_TASK = 4  # of what is done row by row, at most
# Of a matrix product: enough to read weights once for many tiles, few enough for many threads.
ROWS_OF_A_PRODUCT = 160
# A matrix unit reads x faster than the third cache gives it. Processors that have one have a second cache of 2 MB.
_WORDS_NEAR_A_UNIT = 320_000
near_words = known(
    lambda panel: _WORDS_NEAR_A_UNIT if panel.target.multiplies_tiles(panel.format.tile_product) else 2**62
)

_EMBED, _LINEAR, _ATTENTION, _QUANTIZE, _ADD_NORM, _GATHER, _KEEP = (int(operation) for operation in Operation)


class Job(NamedTuple):
    """A step, the batch, the packed weights of all layers, this thread's scratch memory, and the size of its team."""

    step: Step
    batch: Batch
    weights: Pointer
    scratch: Pointer
    threads: int


@kernel
def run_program(run: Run, program: Pointer, batch: Batch, weights: Pointer, rank: int) -> None:
    """One thread's part of all steps."""
    team = Team(rank, run.threads, int64s_at(run.team_state), run.yield_function)
    scratch = offset(floats_at(run.scratch), rank * run.scratch_size)
    for number in range(run.steps):
        run_step(team, number, Job(record_at(program, number), batch, weights, scratch, team.size))


@kernel
def run_step(team: Team, number: int, job: Job) -> None:
    """One thread's part of a step."""
    operation = job.step.operation
    if operation == _LINEAR:
        parallel_for(team, number, job.step.panels * row_groups(job), linear_task, job)
    elif operation == _ATTENTION:
        parallel_for(team, number, job.batch.texts * job.step.heads, attention_task, job)
    elif operation == _QUANTIZE:
        parallel_for(team, number, row_tasks(job), quantize_task, job)
    elif operation == _ADD_NORM:
        parallel_for(team, number, row_tasks(job), add_norm_task, job)
    elif operation == _EMBED:
        parallel_for(team, number, row_tasks(job), embed_task, job)
    elif operation == _GATHER:
        parallel_for(team, number, row_tasks(job), gather_task, job)
    elif operation == _KEEP:
        parallel_for(team, number, row_tasks(job), keep_task, job)


@kernel
def rows_of(job: Job) -> int:
    """How many rows a step has."""
    return job.batch.wanted if job.step.wanted == 1 else job.batch.tokens


@kernel
def row_tasks(job: Job) -> int:
    """Into how many tasks a step is divided that is done row by row: as many for each thread, if there are rows."""
    at_once = ROWS_OF_A_TASK * job.threads
    return smaller((rows_of(job) + at_once - 1) // at_once * job.threads, rows_of(job))


@kernel
def first_of(job: Job, task: int) -> int:
    """The number of the first row of a task that is done row by row."""
    return rows_of(job) * task // row_tasks(job)


@kernel
def read_by(job: Job) -> Matrix:
    """The rows that a step reads."""
    return Matrix(floats_at(job.step.x), job.step.x_stride)


@kernel
def written_by(job: Job) -> Matrix:
    """The rows that a step writes."""
    return Matrix(floats_at(job.step.out), job.step.out_stride)


@kernel
def write_row(job: Job, row: Pointer, index: int) -> None:
    """Write what linear layers read of row number `index`."""
    words = Matrix(floats_at(job.step.words), job.step.words_stride)
    write_operand(job.weights, row, job.step.width, Operand(words, floats_at(job.step.factors)), index)


@kernel
def norm_of(job: Job) -> Norm:
    """The layer norm of a step."""
    step = job.step
    return Norm(floats_at(step.weight), floats_at(step.bias), step.width, np.float32(step.eps))


@kernel
def embed_task(job: Job, task: int) -> None:
    """EMBED: `out`, (N, D) word embeddings, + token types + positions, normalised."""
    step, out, norm = job.step, written_by(job), norm_of(job)
    types, positions = floats_at(step.token_type_table), floats_at(step.position_table)
    type_ids, position_ids = int32s_at(job.batch.token_type_ids), int32s_at(job.batch.position_ids)
    for index in range(first_of(job, task), first_of(job, task + 1)):
        row = row_of(out, index)
        token_type = offset(types, type_ids[index] * step.table_stride)
        position = offset(positions, position_ids[index] * step.table_stride)
        normalize_row(row, add_embeddings(row, token_type, position, step.width), norm)
        write_row(job, row, index)


@kernel
def is_near(job: Job) -> bool:
    """Whether the rows that a linear layer reads fit into the second cache; always so without a matrix unit."""
    return rows_of(job) * job.step.depth <= near_words(job.weights)


@kernel
def row_groups(job: Job) -> int:
    """Into how many groups of rows a linear layer is divided."""
    groups = larger(1, rows_of(job) // ROWS_OF_A_PRODUCT)
    return larger(groups, (rows_of(job) * job.step.depth - 1) // near_words(job.weights) + 1)


@kernel
def linear_task(job: Job, task: int) -> None:
    """LINEAR: (rows, in) `x` -> (rows, out) `out`, with gelu or without; a panel for a group of rows.

    Neighbouring panels are neighbouring tasks: what is prefetched behind the one is the beginning of the next. If
    rows are near, all groups of a panel come before the next panel, whose weights are so read once. If they are
    far, all panels of a group come before the next group.
    """
    step = job.step
    if is_near(job):
        group, panel = task % row_groups(job), task // row_groups(job)
    else:
        group, panel = task // step.panels, task % step.panels
    row = rows_of(job) * group // row_groups(job)
    rows = rows_of(job) * (group + 1) // row_groups(job) - row
    weight, constants = offset(job.weights, step.weight), floats_at(step.constants)
    linear = Linear(weight, floats_at(step.bias), constants, step.constant_rows, step.depth, step.gelu)
    block = matrix_at(written_by(job), row, panel * panel_width(job.weights))
    x = operand_at(Operand(read_by(job), floats_at(step.x_factors)), row)
    linear_panel(rows, x, panel_of(linear, panel), block, job.scratch)


@kernel
def attention_task(job: Job, task: int) -> None:
    """ATTENTION: queries, keys and values side by side in `x`, (N, 3 D) -> `out`; one head of one text.

    Of wanted rows only the queries are in the first rows of `x`, and all keys and values beside them.
    """
    step = job.step
    text, column = task // step.heads, task % step.heads * step.head_width
    offsets = int32s_at(job.batch.offsets)
    query_offsets = int32s_at(job.batch.wanted_offsets) if step.wanted == 1 else offsets
    first_query, first_key, qkv = query_offsets[text], offsets[text], read_by(job)
    width = step.heads * step.head_width
    head = Head(
        query_offsets[text + 1] - first_query,
        offsets[text + 1] - first_key,
        matrix_at(qkv, first_query, column),
        matrix_at(qkv, first_key, width + column),
        matrix_at(qkv, first_key, 2 * width + column),
        matrix_at(written_by(job), first_query, column),
        step.head_size,
        step.head_width,
    )
    attend(job.weights, head, job.scratch)


@kernel
def quantize_task(job: Job, task: int) -> None:
    """QUANTIZE: (rows, width) `x` -> what linear layers read of it."""
    x = read_by(job)
    for index in range(first_of(job, task), first_of(job, task + 1)):
        write_row(job, row_of(x, index), index)


@kernel
def add_norm_task(job: Job, task: int) -> None:
    """ADD_NORM: `out` = layer_norm(`out` + `x`), (rows, D)."""
    x, out, norm = read_by(job), written_by(job), norm_of(job)
    for index in range(first_of(job, task), first_of(job, task + 1)):
        row = row_of(out, index)
        normalize_row(row, add_row(row, row_of(x, index), norm.width), norm)
    for index in range(first_of(job, task), first_of(job, task + 1)):
        write_row(job, row_of(out, index), index)


@kernel
def gather_task(job: Job, task: int) -> None:
    """GATHER: the wanted rows of `x`, (N, D), -> `out`, (wanted, D)."""
    x, out, wanted = read_by(job), written_by(job), int32s_at(job.batch.wanted_rows)
    for index in range(first_of(job, task), first_of(job, task + 1)):
        row = matrix_at(out, index, 0)
        copy_rows(1, matrix_at(x, wanted[index], 0), job.step.width, row)
        write_row(job, row.data, index)


@kernel
def keep_task(job: Job, task: int) -> None:
    """KEEP: `x`, (rows, D), -> the output, or the hidden states of a layer."""
    batch, layer = job.batch, job.step.layer
    address = batch.output if layer < 0 else batch.hidden_states
    start = offset(floats_at(address), larger(layer, 0) * batch.layer_stride)
    first = first_of(job, task)
    rows = first_of(job, task + 1) - first
    out = matrix_at(Matrix(start, batch.output_stride), first, 0)
    copy_rows(rows, matrix_at(read_by(job), first, 0), batch.output_stride, out)
