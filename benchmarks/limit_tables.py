"""What RESULTS.md has of limits, scaling and many cores, and the README of limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.markdown import Results, short, table


def limits_sentence(results: Results) -> str:
    """What the README says of `limits`: the shares of a few workloads in float32."""
    models = results["models"]
    text, batch = (
        listed([f"{model['float32'][workload]['call_percent'][1]:.0f}" for model in models.values()])
        for workload in ("1 x 12", "16 x 128")
    )
    return (
        f"\nMeasured without other engines in between, {listed(list(models))} in float32 reach {text} % of "
        f"[what the processor allows](benchmarks/README.md#limits) for a text of 12 tokens, and {batch} % for 16 "
        "texts of 128 tokens.\n"
    )


def listed(values: Sequence[str]) -> str:
    """One, two and three."""
    *others, last = values
    return f"{', '.join(others)} and {last}" if others else last


def limits_table(model: Results) -> str:
    """For each dtype and workload: the limit, what bounds it, and how near the encoder and a whole call come."""
    rows = []
    for dtype, workloads in model.items():
        for workload, figures in workloads.items():
            row = [dtype, workload, bound_by(figures), f"{figures['limit_ms']:.2f}"]
            for part in ("encoder", "call"):
                low, median, high = figures[f"{part}_percent"]
                row += [f"{figures[f'{part}_ms']:.2f}", f"{median:.0f} ({low:.0f} to {high:.0f})"]
            rows.append(row)
    header = ["dtype", "workload", "bound by", "limit, ms", "encoder, ms", "limit / encoder, %"]
    return table([*header, "call, ms", "limit / call, %"], rows, left=3)


def bound_by(figures: Mapping[str, Any]) -> str:
    """What takes the larger part of a limit."""
    return "memory" if figures["memory_share"] > 0.5 else "arithmetic"


def scaling_table(figures: Sequence[Results]) -> str:
    """Milliseconds of each workload, and the share of the peak of multiply-adds, with each number of threads."""
    rows: dict[str, list[str]] = {}
    header = ["milliseconds"]
    for threads in sorted({figure["threads"] for figure in figures}):
        header += ["1 thread" if threads == 1 else f"{threads} threads", "of the peak"]
        for figure in figures:
            if figure["threads"] == threads:
                row = rows.setdefault(f"{figure['texts']} x {figure['tokens']}", [])
                row += [short(figure["seconds"] * 1e3), f"{100 * figure['of_limit']:.0f} %"]
    return table(header, [[workload, *cells] for workload, cells in rows.items()])


def many_cores_table(model: Results) -> str:
    """For each processor and dtype: the predicted milliseconds of the encoder, and when it divides by text."""
    rows = []
    for dtype, figures in model.items():
        checks = [f"{times['predicted']:g} (measured: {times['measured']:g})" for times in figures["check"].values()]
        rows.append(["two threads here", dtype, *checks, "", ""])
        for processor, found in figures["processors"].items():
            times = [f"{load['chosen']:g} ({load['chosen_by']})" for load in found["loads"].values()]
            fewest = [str(found["by_text_from"][name] or "none") for name in ("than_best_team", "chosen")]
            rows.append([processor, dtype, *times, *fewest])
    workloads = next(iter(model.values()))["check"]
    header = ["processor", "dtype", *workloads, "fewest texts faster by text", "fewest divided by text"]
    return table(header, rows, left=2)
