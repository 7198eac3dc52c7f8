"""The tables of RESULTS.md that compare the engine with the processor: limits, scaling and many cores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.markdown import short, table

Results = dict[str, Any]


def limits_sentence(results: Results) -> str:
    """What the README says of `limits`: the shares of a few workloads in float32, of each model."""
    texts, batch = (
        [f"{model['float32'][workload]['call_percent'][1]:.0f}" for model in results["models"].values()]
        for workload in ("1 x 12", "16 x 128")
    )
    return (
        f"\nIn float32, the models reach {listed(texts)} % of [what the processor allows]"
        f"(benchmarks/README.md#limits) for a text of 12 tokens, and {listed(batch)} % for 16 of 128.\n"
    )


def listed(values: Sequence[str]) -> str:
    """One, two and three."""
    return f"{', '.join(values[:-1])} and {values[-1]}"


def limits_table(model: Results) -> str:
    """For each dtype and workload: the limit, what bounds it, and how near the encoder and a whole call come."""
    rows = []
    for dtype, workloads in model.items():
        for workload, figures in workloads.items():
            bound = "memory" if figures["memory_share"] > 0.5 else "arithmetic"
            times = [f"{figures[name]:.2f}" for name in ("limit_ms", "encoder_ms", "call_ms")]
            shares = [percents(figures[name]) for name in ("encoder_percent", "call_percent")]
            rows.append([dtype, workload, bound, times[0], times[1], shares[0], times[2], shares[1]])
    header = ["dtype", "workload", "bound by", "limit, ms", "encoder, ms", "% of limit", "call, ms", "% of limit"]
    return table(header, rows, left=3)


def percents(quartiles: Sequence[float]) -> str:
    """The median, and the other quartiles in parentheses."""
    low, median, high = quartiles
    return f"{median:.0f} ({low:.0f} to {high:.0f})"


def scaling_table(figures: Sequence[Results]) -> str:
    """Milliseconds of each workload, and the share of the peak of multiply-adds, with each number of threads."""
    threads = sorted({figure["threads"] for figure in figures})
    rows: dict[str, list[str]] = {}
    for figure in sorted(figures, key=lambda figure: figure["threads"]):
        row = rows.setdefault(f"{figure['texts']} x {figure['tokens']}", [])
        row += [short(figure["seconds"] * 1e3), f"{figure['of_limit']:.0%}"]
    header = ["milliseconds", *(cell for count in threads for cell in (threads_of(count), "of the peak"))]
    return table(header, [[workload, *cells] for workload, cells in rows.items()])


def threads_of(count: int) -> str:
    """So many threads, in words."""
    return "1 thread" if count == 1 else f"{count} threads"


def many_cores_table(model: Results) -> str:
    """For each processor and dtype: the predicted milliseconds of the encoder, and when it divides by text."""
    rows = []
    for dtype, figures in model.items():
        checks = figures["check"].values()
        rows.append(["two threads here", dtype])
        rows[-1] += [f"{times['predicted']:g} (measured: {times['measured']:g})" for times in checks]
        rows[-1] += ["", ""]
        for processor, found in figures["processors"].items():
            loads, point = found["loads"].values(), found["by_text_from"]
            rows.append([processor, dtype, *(f"{load['chosen']:g} ({load['chosen_by']})" for load in loads)])
            rows[-1] += [str(point[name] or "none") for name in ("than_best_team", "chosen")]
    workloads = next(iter(model.values()))["check"]
    header = ["processor", "dtype", *workloads, "by text is faster from", "and chosen from"]
    return table(header, rows, left=2)
