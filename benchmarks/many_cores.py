"""What processors with many cores may do, modelled from measurements on this one: python -m benchmarks.many_cores.

Measured here: each step of a model's program in one thread (`program_steps`), and what a team costs beside it
(`step_costs`). The processors, with 8, 16, 64 and 192 cores, are in `processors`, and the model in `core_model`.
The last line is JSON, which is also written to benchmarks/results/many_cores.json.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import step_costs
from benchmarks.compare import RESULTS, environment
from benchmarks.core_model import Model, here, of_a_node
from benchmarks.models import SHAPES
from benchmarks.processors import PROCESSORS
from benchmarks.program_steps import Load, Step, Subject
from benchmarks.step_costs import LARGE_TEAM, Costs
from gte_np.kernels.runtime.chunks import divide, useful_threads
from gte_np.token_batch import offsets_of

DTYPES = ("float32", "int8")
LOADS = {"1 x 12": (1, 12), "1 x 128": (1, 128), "1 x 512": (1, 512), "16 x 128": (16, 128)}
POINT_LENGTH = 128  # of the texts of which there are more and more
HEADER = (
    f"{'processor':24}{'tokens':10}{'one thread':>11}{'all cores':>12}{'waking':>8}{'barriers':>9}"
    f"{'best team':>11}{'threads':>9}{'by text':>9}{'chosen':>10}  by"
)
TEXTS_OF_A_CORE = 4  # of a large batch, with which memory nodes are compared


def main() -> None:
    """Measure, predict, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    options = parser.parse_args()
    costs = step_costs.measure()
    print(" ".join(f"{name} {seconds * 1e9:.0f} ns" for name, seconds in costs._asdict().items()))
    results: dict[str, Any] = {"environment": environment(threads=2), "costs": costs._asdict(), "models": {}}
    for model in options.models:
        for dtype in options.dtypes:
            results["models"].setdefault(model, {})[dtype] = report(model, dtype, costs)
    (RESULTS / "many_cores.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results))


def report(name: str, dtype: str, costs: Costs) -> dict[str, Any]:
    """All figures of a model, which are printed, too."""
    subject = Subject(name, dtype)
    steps = {length: subject.steps(length) for length in sorted({length for _, length in LOADS.values()})}
    python = subject.python_seconds()
    figures: dict[str, Any] = {"python": python, "program": {}, "check": {}, "processors": {}}
    for load_name, (texts, length) in LOADS.items():
        figures["program"][load_name] = program = counts(steps[length], subject.load(texts, length))
        model = Model(steps[length], costs, python, 1.0, here(costs))
        figures["check"][load_name] = here_too = check(subject, model, texts, length)
        print(f"\n{name} {dtype}, {load_name}: {program['steps']} steps; tasks of a step: {program['tasks']}")
        print(f"two threads here: {here_too['predicted']} ms predicted, {here_too['measured']} ms measured")
    print(f"\n{name} {dtype}, predicted ms\n{HEADER}")
    for processor in PROCESSORS + tuple(of_a_node(each) for each in PROCESSORS if each.nodes > 1):
        slower = subject.peak / (processor.peak * subject.multiplied.values_of_word)
        models = {length: Model(each, costs, python, slower, processor) for length, each in steps.items()}
        figures["processors"][processor.name] = found = of_processor(subject, models)
        print("\n".join(lines(processor.name, found)), flush=True)
    return figures


def lines(name: str, found: dict[str, Any]) -> Iterator[str]:
    """The figures of a processor, below HEADER."""
    for load_name, ms in found["loads"].items():
        by_text = "" if ms["by_text"] is None else ms["by_text"]
        yield (
            f"{name:24}{load_name:10}{ms['one_thread']:>11}{ms['team_of_all']:>12}{ms['waking']:>8}{ms['barriers']:>9}"
            f"{ms['best_team']:>11}{ms['threads_of_best_team']:>9}{by_text:>9}{ms['chosen']:>10}  {ms['chosen_by']}"
        )
    point = found["by_text_from"]
    yield (
        f"{name:24}texts of {POINT_LENGTH} tokens that are faster by text than a team of all cores: from "
        f"{point['than_team_of_all']}; than the best team: from {point['than_best_team']}; "
        f"chunks.divide: from {point['chosen']}"
    )
    if "by_node" in found:
        node = found["by_node"]
        yield (
            f"{name:24}{node['texts']} x {POINT_LENGTH} by text: {node['one_process']} in one process, "
            f"{node['process_of_a_node']} in one for each memory node"
        )


def counts(steps: list[Step], load: Load) -> dict[str, Any]:
    """Steps of a program, and tasks of each kind of them in one step, for a large team."""
    kinds = Counter((step.operation.name.lower(), step.tasks(load, LARGE_TEAM)) for step in steps)
    return {"steps": len(steps), "tasks": {f"{count} x {kind}": tasks for (kind, tasks), count in kinds.items()}}


def check(subject: Subject, model: Model, texts: int, length: int) -> dict[str, float]:
    """Milliseconds of a batch in two threads here, as the model says and as measured."""
    load, is_by_text = subject.load(texts, length), divide(offsets_of([length] * texts), 2)[1]
    predicted = model.by_text(load) if is_by_text else model.team(load, 2)
    return {"predicted": rounded(predicted), "measured": rounded(subject.seconds(texts, length, threads=2))}


def of_processor(subject: Subject, models: dict[int, Model]) -> dict[str, Any]:
    """The predictions for all workloads, the points at which dividing by text wins, and what memory nodes change."""
    model = models[POINT_LENGTH]
    found: dict[str, Any] = {
        "loads": {
            name: prediction(models[length], subject.load(texts, length), subject.encoder.weights.matrices.size)
            for name, (texts, length) in LOADS.items()
        },
        "by_text_from": points(model, lambda texts: subject.load(texts, POINT_LENGTH)),
    }
    if model.processor.nodes > 1:
        found["by_node"] = by_node(model, subject.load(TEXTS_OF_A_CORE * model.processor.cores, POINT_LENGTH))
    return found


def prediction(model: Model, load: Load, words: int) -> dict[str, Any]:
    """Milliseconds of a batch, in each way; `chosen` is the encoder's, for so many words of packed weights.

    Waking and barriers are those of the team of all cores, and part of its time.
    """
    cores = model.processor.cores
    best, threads = model.best_team(load)
    runs = load.texts // model.texts_at_once(load)
    by_text = model.by_text(load)
    offsets = offsets_of([load.length] * load.texts)
    is_by_text = divide(offsets, cores)[1]
    team = useful_threads(offsets, cores, words)
    return {
        "one_thread": rounded(model.team(load, 1)),
        "team_of_all": rounded(model.team(load, cores)),
        "waking": rounded(runs * model.begin(cores)),
        "barriers": rounded(runs * len(model.steps) * model.barrier(cores)),
        "best_team": rounded(best),
        "threads_of_best_team": threads,
        "by_text": rounded(by_text) if load.texts > 1 else None,
        "chosen": rounded(by_text if is_by_text else model.team(load, team)),
        "chosen_by": "text" if is_by_text else f"tile, {team} threads",
    }


def points(model: Model, load_of: Callable[[int], Load]) -> dict[str, int | None]:
    """The fewest texts, up to four for each core, that are faster by text, and that `chunks.divide` divides so."""
    cores = model.processor.cores
    texts = range(2, 4 * cores + 1)
    by_text = {count: model.by_text(load_of(count)) for count in texts}
    return {
        "than_team_of_all": next(
            (count for count in texts if by_text[count] < model.team(load_of(count), cores)), None
        ),
        "than_best_team": next(
            (count for count in texts if by_text[count] < model.best_team(load_of(count))[0]), None
        ),
        "chosen": next((count for count in texts if divide(offsets_of([POINT_LENGTH] * count), cores)[1]), None),
    }


def by_node(model: Model, load: Load) -> dict[str, float]:
    """Milliseconds of a batch by text, in one process, and in one for each memory node with a share of the texts."""
    nodes = model.processor.nodes
    share = Load(load.texts // nodes, load.length, load.wanted // nodes)
    alone = model._replace(processor=of_a_node(model.processor))
    return {
        "texts": load.texts,
        "one_process": rounded(model.by_text(load)),
        "process_of_a_node": rounded(alone.by_text(share)),
    }


def rounded(seconds: float) -> float:
    """In milliseconds, with as many digits as may matter."""
    return float(f"{seconds * 1e3:.3g}")


if __name__ == "__main__":
    main()
