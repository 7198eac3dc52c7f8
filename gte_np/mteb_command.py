"""The command gte-np mteb."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gte_np.errors import InputError
from gte_np.terminal import Parser, load_model, print_line

if TYPE_CHECKING:
    from mteb import TaskResult
    from mteb.abstasks import AbsTask
    from mteb.types import EncodeKwargs

    from gte_np.integrations.mteb import MtebEncoder

_TASK = re.compile(r"(?P<task>\S+)(?: \((?P<subset>.+)\))?")


def add_mteb_command(commands: Any, model: Parser) -> None:
    """Add the command to those of gte-np."""
    command = commands.add_parser("mteb", parents=[model], help="evaluate a model on tasks of mteb")
    command.description = (
        "Evaluate a model on tasks of mteb, the Massive Text Embedding Benchmark, and print the main scores, in "
        "percent. Data sets come from the hub. A task whose results are there already is not run again."
    )
    command.add_argument(
        "tasks",
        nargs="+",
        metavar="task",
        help="a task (AFQMC), a subset of a task as cards write it ('STS22 (zh)'), or a benchmark ('MTEB(cmn, v1)')",
    )
    command.add_argument(
        "-o", "--output", type=Path, default=Path("mteb"), help="a folder for mteb's results (default: %(default)s)"
    )
    command.add_argument(
        "--batch-size", type=int, default=32, help="texts that go through the model together (default: %(default)s)"
    )
    command.set_defaults(run=_mteb)


def _mteb(options: argparse.Namespace) -> None:
    from gte_np.integrations.mteb import MtebEncoder  # an error in one line if mteb is not installed

    tasks = [task for name in options.tasks for task in find_tasks(name)]
    _evaluate(MtebEncoder(load_model(options)), tasks, options)


def _evaluate(encoder: MtebEncoder, tasks: list[AbsTask], options: argparse.Namespace) -> None:
    """Evaluate the model on each task, and print its scores."""
    import mteb

    cache = mteb.ResultCache(options.output)
    encode: EncodeKwargs = {"batch_size": options.batch_size, "show_progress_bar": sys.stderr.isatty()}
    for task in tasks:
        [result] = mteb.evaluate(encoder, task, cache=cache, encode_kwargs=encode).task_results
        _print_scores(result)


def find_tasks(name: str) -> list[AbsTask]:
    """The tasks of a benchmark, or the one task of a name. Raise InputError if mteb has neither."""
    import mteb

    try:
        return list(mteb.get_benchmark(name).tasks)
    except KeyError:
        pass
    match = _TASK.fullmatch(name)
    try:
        if match:
            return [mteb.get_task(match["task"], hf_subsets=[match["subset"]] if match["subset"] else None)]
    except (KeyError, ValueError):
        pass
    raise InputError(f"expected a task, a subset such as 'STS22 (zh)' or a benchmark of mteb, got {name!r}.")


def _print_scores(result: TaskResult) -> None:
    """Print a line for each split and subset of a task."""
    for split, subsets in result.scores.items():
        for scores in subsets:
            subset = "" if scores["hf_subset"] == "default" else f" ({scores['hf_subset']})"
            print_line(f"{100 * scores['main_score']:6.2f}  {result.task_name}{subset}  {split}")
