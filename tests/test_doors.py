"""The doors to compiled code: whatever is asked of them, nothing is read or written out of bounds.

Python programs run in processes of their own here, in guarded memory, since a fault ends them.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import EmbeddingModel, GteError, InputError, TokenBatch
from scripts.hunt_doors import hunt_doors
from tests.guard_pages import CAN_GUARD

ROOT = Path(__file__).resolve().parent.parent

# Runs two texts through a model whose memory is guarded, with something broken if that is asked for.
GUARDED = """
import sys
from pathlib import Path
import numpy as np
from gte_np import BertModel, TokenBatch
from gte_np.kernels.runtime import kernel_encoder, packed_weights
from tests.guard_pages import GuardedMemory, guard_kernels

folder, side, fault = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
guard_kernels(GuardedMemory(side))


def described(change):
    describe = kernel_encoder.Workspace.describe

    def changed(workspace, arrays, fields):
        describe(workspace, arrays, fields)
        change(workspace.batch)

    kernel_encoder.Workspace.describe = changed


def written(change):
    begin = kernel_encoder.Workspace.begin

    def changed(workspace, *arguments, **options):
        program = begin(workspace, *arguments, **options)
        change(program.steps)
        return program

    kernel_encoder.Workspace.begin = changed


def widen(steps, operation, field="width", by=64):
    steps[field][steps["operation"] == operation] += by


class Shorter(kernel_encoder.Workspace):
    def _values(self, name, stride):
        self.tokens -= name == "inner"
        values = super()._values(name, stride)
        self.tokens += name == "inner"
        return values


class LessScratch(kernel_encoder.Workspace):
    def _guard_scratch(self):
        self._scratch -= 16
        super()._guard_scratch()


def pack_too_much(values, dtype=None):
    if dtype is packed_weights.LAYOUT:
        values = [(values[0][0] + 1, *values[0][1:])]
    return np.array(values, dtype)


def write_to_ids(record):
    record["output"] = record["position_ids"]


FAULTS = {
    "none": lambda: None,
    "width": lambda: written(lambda steps: widen(steps, 4)),
    "depth": lambda: written(lambda steps: widen(steps, 1, "depth", 16)),
    "panels": lambda: written(lambda steps: widen(steps, 1, "panels", 1)),
    "head": lambda: written(lambda steps: widen(steps, 2, "heads", 1)),
    "rows": lambda: setattr(kernel_encoder, "Workspace", Shorter),
    "scratch": lambda: setattr(kernel_encoder, "Workspace", LessScratch),
    "tokens": lambda: described(lambda record: record.__setitem__("tokens", record["tokens"] + 1)),
    "texts": lambda: described(lambda record: record.__setitem__("texts", record["texts"] + 1)),
    "before": lambda: described(lambda record: record.__setitem__("offsets", record["offsets"] - 4)),
    "read only": lambda: described(write_to_ids),
    "pack": lambda: setattr(packed_weights.np, "array", pack_too_much),
}
FAULTS[fault]()
model = BertModel.from_folder(folder, backend="numba", threads=1)
model.encode_batch(TokenBatch.from_ids([[7] * 40, [8] * 24]))
print("done")
"""


def run_guarded(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=100)


@pytest.mark.skipif(not CAN_GUARD, reason="needs mprotect")
@pytest.mark.parametrize("side", ["end", "start"])
def test_what_is_right_touches_no_guard_page(side: str, small_folder: Path) -> None:
    done = run_guarded(GUARDED, small_folder, side, "none")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.skipif(not CAN_GUARD, reason="needs mprotect")
@pytest.mark.parametrize(
    ("fault", "side"),
    [
        *(
            (fault, "end")
            for fault in ("width", "depth", "panels", "head", "rows", "scratch", "tokens", "texts", "pack")
        ),
        ("before", "start"),
        ("read only", "start"),
    ],
)
def test_a_bound_that_is_broken_is_seen(fault: str, side: str, small_folder: Path) -> None:
    """The guard pages guard: each part of what compiled code is told, made wrong on purpose, ends the process."""
    done = run_guarded(GUARDED, small_folder, side, fault)
    assert done.returncode in (-signal.SIGSEGV, -signal.SIGBUS), done.stderr


@pytest.mark.parametrize("seed", [1, 2])
def test_random_calls(seed: int) -> None:
    """A part of what `python -m scripts.hunt_doors` does, the same one every time."""
    results = list(hunt_doors(seed, first=0, calls=1000))
    assert [finding for findings, _ in results for finding in findings] == []
    assert sum(counts.total() for _, counts in results) == 1000


# --- what a hunt has found ----------------------------------------------------------------------------------------


def test_what_is_checked_is_a_copy() -> None:
    """Another thread writes to the array all the while: a batch has all of the old numbers or is refused."""
    ids = np.ones(200_000, np.int32)
    columns, offsets = np.zeros(len(ids), np.int32), np.array([0, len(ids)])
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            ids[-1] = -1
            ids[-1] = 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            try:
                batch = TokenBatch(ids, columns, columns, offsets, offsets[1:])
            except GteError:
                continue
            assert batch.input_ids.min() == 1
    finally:
        done.set()
        writer.join()


def test_padded_lists_are_packed() -> None:
    batch = TokenBatch.from_padded([[5, 6], [7, 0]], [[1, 1], [True, 0]], ((0, 1), (0, 0)))
    assert (batch.input_ids.tolist(), batch.offsets.tolist()) == ([5, 6, 7], [0, 2, 3])
    assert batch.token_type_ids.tolist() == [0, 1, 0]


@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "token_type_ids"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([[1], [1, 1]], InputError, "several lengths"),
        ([[1, 1]], InputError, r"\(1, 2\)"),
        (None, TypeError, "integers, got object"),
        ([[1.5, 1], [1, 1]], TypeError, "integers, got float64"),
        ("abc", TypeError, "integers, got <U3"),
    ],
)
def test_padded_arrays_that_cannot_be(name: str, value: Any, error: type[Exception], message: str) -> None:
    right = {name: np.ones((2, 2), int) for name in ("input_ids", "attention_mask", "token_type_ids")}
    with pytest.raises(error, match=message):
        TokenBatch.from_padded(**(right | {name: value}))


def test_a_padded_mask_is_of_ones_and_zeros() -> None:
    with pytest.raises(InputError, match="attention_mask from 0 to 1, got 1 to 2"):
        TokenBatch.from_padded([[5, 6]], [[1, 2]], [[0, 0]])


@pytest.mark.parametrize("text", [slice(0, 1), slice(None), "a", None, 0.0, [0], np.array([0]), True])
def test_the_number_of_a_text_is_an_integer(text: Any) -> None:
    batch = TokenBatch.from_ids([[1, 2], [3]])
    for door in (batch.__getitem__, batch.slice):
        with pytest.raises(TypeError, match="expected the number of a text to be an int, got"):
            door(text)
    with pytest.raises(IndexError):
        batch[2**70]
    assert [ids.tolist() for ids in iter(batch)] == [[1, 2], [3]]


@pytest.mark.parametrize("ids", [5, None, 2.5, np.array(5), object()])
def test_ids_come_in_lists(ids: Any) -> None:
    with pytest.raises(TypeError, match="expected a list of token ids for each text, got"):
        TokenBatch.from_ids(ids)


def test_ids_may_be_unsigned_64_bit_integers() -> None:
    batch = TokenBatch.from_ids([np.array([5, 6], np.uint64), np.array([7], ">u8"), [8]])
    assert batch.input_ids.tolist() == [5, 6, 7, 8]
    with pytest.raises(InputError, match="token ids of text 1 from 0 to 2147483647, got 18446744073709551615"):
        TokenBatch.from_ids([[1], np.array([2**64 - 1], np.uint64)])


@pytest.mark.parametrize("value", ["yes", 1, 2.5, np.array([True, False]), []])
@pytest.mark.parametrize("name", ["output_hidden_states", "output_attentions", "keep_layers"])
def test_flags_are_true_or_false(name: str, value: Any, small: EmbeddingModel) -> None:
    door: Any
    batch = TokenBatch.from_ids([[1]])
    door, ids = (small.bert.encode_batch, batch) if name == "keep_layers" else (small.bert, batch.input_ids[None])
    with pytest.raises(TypeError, match=f"expected {name} to be True"):
        door(ids, **{name: value})


@pytest.mark.parametrize("width", [0, 3])
def test_no_texts_have_states_of_the_usual_shapes(width: int, small: EmbeddingModel) -> None:
    output = small.bert(np.empty((0, width), int), output_hidden_states=True, output_attentions=True)
    assert output.last_hidden_state.shape == (0, width, 32)
    assert output.pooler_output is not None
    assert output.pooler_output.shape == (0, 32)
    assert [states.shape for states in output.hidden_states or ()] == [(0, width, 32)] * 3
    assert [weights.shape for weights in output.attentions or ()] == [(0, 4, width, width)] * 2


def test_masked_values_are_refused(small: EmbeddingModel) -> None:
    masked = np.ma.masked_array([[5, 6, 7]], mask=[[False, False, True]])
    with pytest.raises(InputError, match="expected input_ids without masked values"):
        small.bert(masked)
    with pytest.raises(InputError, match="expected rows without masked values"):
        small.bert.encode_batch(TokenBatch.from_ids([[1, 2]]), rows=masked[0] - 5)
    with pytest.raises(TypeError, match="integers, got"):
        small.bert(np.ma.masked_array(np.zeros(2, "i4,i4"), mask=[(True, False)] * 2))
    nothing_masked = np.ma.masked_array([[5, 6, 7]])
    assert np.array_equal(small.bert(nothing_masked)[0], small.bert([[5, 6, 7]])[0])


@pytest.mark.parametrize("rows", [[False, True], np.array([False, True])])
def test_rows_are_numbers_and_no_mask(rows: Any, small: EmbeddingModel) -> None:
    """[False, True] would be taken for the rows 0 and 1."""
    with pytest.raises(TypeError, match="expected rows to be integers, got bool"):
        small.bert.encode_batch(TokenBatch.from_ids([[1, 2]]), rows=rows)


@pytest.mark.parametrize("value", [np.array(["np", "pt"]), np.empty(0), "tf", 1, "x" * 10**6])
def test_return_tensors_is_none_or_a_name(value: Any, small: EmbeddingModel) -> None:
    with pytest.raises(InputError, match="expected return_tensors to be 'np' or 'pt', got") as caught:
        small.tokenizer(["a"], return_tensors=value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("texts", [np.array("a"), np.array(None)])
def test_an_array_of_no_dimension_holds_no_texts(texts: Any, small: EmbeddingModel) -> None:
    with pytest.raises(TypeError, match="expected an iterable of str, such as a list, got an array of no"):
        small.encode(texts)


@pytest.mark.parametrize("dtype", [float, complex, "U3", "V4", "M8[D]", object])
def test_no_numbers_may_be_of_any_dtype(dtype: Any) -> None:
    nothing: Any = np.empty(0, dtype)
    assert len(TokenBatch(nothing, nothing, nothing, np.zeros(1, np.int32), nothing)) == 0
