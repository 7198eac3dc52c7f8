"""Hold results of mteb against the figures that a model's card reports of itself, line by line.

    python -m scripts.compare_card README.md results/thenlper__gte-large-zh

The card is a README.md with its metadata, or the text of its page on the hub, where the same figures stand in lines
such as "cos_sim_pearson on MTEB AFQMCvalidation set self-reported48.941". The folder holds the result files of one
model, at any depth. Figures are in percent.

The card's metrics have the names of mteb 1. mteb 2 calls `cos_sim_` `cosine_`, and reranking's `map` and `mrr`
`map_at_1000` and `mrr_at_1000`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import yaml

# The metric of each kind of task in CMTEB's table, by which a task's kind is recognised, too: the first that it has.
KINDS = {
    "max_ap": "Pair Classification",
    "v_measure": "Clustering",
    "ndcg_at_10": "Retrieval",
    "map": "Reranking",
    "cos_sim_spearman": "STS",
    "accuracy": "Classification",
}
AVERAGE = "Average"
LINE = re.compile(r"- (\S+) on MTEB (.+?)(?:(train|dev|validation|test) set )?self-reported([\d.]+)")
HEADING = re.compile(r"(.+?)\s*\((\d+) datasets\)")

Results = dict[str, dict[str, list[dict[str, Any]]]]  # task -> split -> the scores of each subset


class Figure(NamedTuple):
    """One figure of a card, in percent. The text of a page leaves out some splits."""

    task: str
    subset: str
    split: str | None
    metric: str
    value: float


class Compared(NamedTuple):
    """A figure and what the results have for it, if they do."""

    figure: Figure
    result: float | None


class Column(NamedTuple):
    """A column of the card's table: the mean of so many datasets."""

    datasets: int
    value: float


def read_figures(card: str) -> list[Figure]:
    """The figures of a card."""
    if card.startswith("---\n"):
        return list(_figures_of_metadata(yaml.safe_load(card.split("---\n")[1])))
    return [
        Figure(*_task_and_subset(name), split or None, metric, float(value))
        for metric, name, split, value in LINE.findall(card)
    ]


def _figures_of_metadata(metadata: dict[str, Any]) -> Iterator[Figure]:
    for model in metadata["model-index"]:
        for result in model["results"]:
            task, subset = _task_and_subset(result["dataset"]["name"].removeprefix("MTEB "))
            for metric in result["metrics"]:
                yield Figure(task, subset, result["dataset"]["split"], metric["type"], float(metric["value"]))


def _task_and_subset(name: str) -> tuple[str, str]:
    """A name such as "STS22 (zh)" in parts."""
    task, _, subset = name.rstrip(")").partition(" (")
    return task, subset or "default"


def read_averages(card: str, model: str) -> dict[str, Column]:
    """The row of a model in the card's table of averages, by kind of task."""
    rows = [[cell.strip(" *") for cell in line.strip().strip("|").split("|")] for line in card.splitlines()]
    [headings] = [row for row in rows if any(cell.startswith(AVERAGE) for cell in row)]
    found = [row for row in rows if row[0] == model and len(row) == len(headings)]
    if not found:
        sys.exit(f"expected a row of {model} in the card's table of averages, got none; give its name by --model.")
    return {
        match[1]: Column(int(match[2]), float(cell))
        for heading, cell in zip(headings, found[0], strict=True)
        if (match := HEADING.fullmatch(heading))
    }


def read_results(folder: Path) -> Results:
    """The scores of each task, of which there may be one file."""
    results: Results = {}
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict) or "scores" not in content:
            continue  # such as model_meta.json
        if content["task_name"] in results:
            sys.exit(f"expected one file of {content['task_name']}, got {path} too: give the folder of one model.")
        results[content["task_name"]] = content["scores"]
    return results


def result_of(figure: Figure, results: Results) -> float | None:
    """What the results have for a figure of the card, in percent."""
    splits = results.get(figure.task) or results.get(f"{figure.task}-reranking") or {}
    subsets = chain.from_iterable(splits.values()) if figure.split is None else splits.get(figure.split, [])
    found = [
        scores[mteb_metric(figure.metric)]
        for scores in subsets
        if scores["hf_subset"] == figure.subset and mteb_metric(figure.metric) in scores
    ]
    return 100 * found[0] if found else None


def mteb_metric(metric: str) -> str:
    """mteb 2's name of a metric of the card."""
    return f"{metric}_at_1000" if metric in ("map", "mrr") else re.sub("^cos_sim_", "cosine_", metric)


def compare(figures: Iterable[Figure], results: Results) -> list[Compared]:
    """Each figure of the card and the result."""
    return [Compared(figure, result_of(figure, results)) for figure in figures]


def main_figures(compared: Iterable[Compared]) -> dict[str, list[Compared]]:
    """The figure of each task that its kind's average is made of, by kind."""
    of_task: dict[tuple[str, str], dict[str, Compared]] = {}
    for line in compared:
        of_task.setdefault((line.figure.task, line.figure.subset), {})[line.figure.metric] = line
    kinds: dict[str, list[Compared]] = {kind: [] for kind in sorted(KINDS.values())}
    for metrics in of_task.values():
        main = next(metric for metric in KINDS if metric in metrics)
        kinds[KINDS[main]].append(metrics[main])
    return kinds | {AVERAGE: [line for lines in kinds.values() for line in lines]}


def missing(compared: Sequence[Compared]) -> list[str]:
    """The card's tasks that have no results."""
    there = {line.figure.task for line in compared if line.result is not None}
    return list(dict.fromkeys(line.figure.task for line in compared if line.figure.task not in there))


def line_by_line(compared: Sequence[Compared]) -> Iterator[tuple[str, ...]]:
    """A row for each figure of the tasks that have results."""
    yield "task", "split", "metric", "card", "result", "difference"
    without = missing(compared)
    for (task, subset, split, metric, value), result in compared:
        if task not in without:
            name = task if subset == "default" else f"{task} ({subset})"
            yield name, split or "", metric, f"{value:.2f}", *_beside(value, result)


def by_kind(compared: Sequence[Compared], averages: dict[str, Column]) -> Iterator[tuple[str, ...]]:
    """A row for each kind of task: the table, the mean of the figures, and the results of as many tasks as have any.

    The difference is that of the results from the card's figures of the same tasks.
    """
    yield "kind", "datasets", "table", "figures", "mean of them", "results", "mean of them", "difference"
    for kind, lines in main_figures(compared).items():
        done = [(line.figure.value, line.result) for line in lines if line.result is not None]
        figures = f"{fmean(line.figure.value for line in lines):.2f}" if lines else "-"
        mean = fmean(result for _, result in done) if done else None
        datasets, table = averages[kind]
        same = fmean(value for value, _ in done) if done else 0.0
        counts = str(len(lines)), figures, str(len(done))
        yield kind, str(datasets), f"{table:.2f}", *counts, *_beside(same, mean)


def _beside(value: float, result: float | None) -> tuple[str, str]:
    """A result, and its difference from the card's figure."""
    return ("-", "-") if result is None else (f"{result:.2f}", f"{result - value:+.2f}")


def as_table(rows: Iterable[tuple[str, ...]]) -> str:
    """Rows as a table of Markdown."""
    heading, *others = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [heading, ("---",) * len(heading), *others])


def name_of(card: str) -> str:
    """The name of the card's model."""
    if card.startswith("---\n"):
        return yaml.safe_load(card.split("---\n")[1])["model-index"][0]["name"]
    return card.partition("\n")[0].strip()


def main() -> None:
    """Print what the card and the results say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card", type=Path, help="the card: a README.md, or the text of its page")
    parser.add_argument("results", type=Path, help="a folder of mteb's result files")
    parser.add_argument("--model", help="a row of the card's table; by default the card's own model")
    options = parser.parse_args()
    card = options.card.read_text("utf-8")
    compared = compare(read_figures(card), read_results(options.results))
    print(as_table(line_by_line(compared)), end="\n\n")
    print(as_table(by_kind(compared, read_averages(card, options.model or name_of(card)))))
    tasks = {line.figure.task: line.result for line in compared if line.result is not None}
    print(
        f"\nwithout results: {', '.join(dict.fromkeys(f.task for f, _ in compared if f.task not in tasks)) or 'none'}"
    )


if __name__ == "__main__":
    main()
