"""The plots of the results, which `benchmarks.tables` has drawn."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import MultipleLocator

from benchmarks.compare import RESULTS
from benchmarks.markdown import Results
from benchmarks.tables import BFLOAT16, FLOAT32, INT8, with_dtype

OURS = "#0b62c4"
OTHERS = ("#e69f00", "#009e73", "#cc79a7", "#999999")  # told apart by the colour-blind, too
PLOTTED = ("1 x 12", "1 x 32", "1 x 512", "16 x 128", "mixed", "mixed, batch_size=32")

plt.rcParams |= {
    "svg.hashsalt": "gte_np",  # the same file from the same figures
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw_speed(results: Results) -> None:
    """Draw the speed of each engine relative to the fastest of the others, a row for each model."""
    engines = dict(zip(FLOAT32.engines, (OURS, *OTHERS), strict=False))  # sentence-transformers runs transformers
    width = 0.84 / len(engines)
    figure, rows = plt.subplots(len(results["models"]), figsize=(9, 8), sharex=True, layout="constrained")
    for axes, (model, result) in zip(rows, results["models"].items(), strict=True):
        times = [result["times"][workload] for workload in PLOTTED]
        for number, (engine, colour) in enumerate(engines.items()):
            speeds = [FLOAT32.fastest_other(figures) / figures[engine]["seconds"] for figures in times]
            places = [index + (number - 2) * width for index in range(len(PLOTTED))]
            axes.bar(places, speeds, width, color=colour, label=engine)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_title(model, loc="left")
        axes.yaxis.set_major_locator(MultipleLocator(0.5))
        axes.set_xticks(range(len(PLOTTED)), [workload.replace(", ", ",\n") for workload in PLOTTED])
    figure.supylabel("speed, relative to the fastest of the others")
    figure.legend(*rows[0].get_legend_handles_labels(), ncols=len(engines), frameon=False, loc="outside upper center")
    figure.savefig(RESULTS / "compare.svg", metadata={"Date": None})


def draw_quality(results: Results) -> None:
    """Draw the speed of each engine, and how many of the nearest sentences it has in common with float32."""
    names: list[str] = []
    places, found = [], []
    for group, comparison in enumerate((FLOAT32, BFLOAT16, INT8)):
        for engine in comparison.engines:
            if engine in results["engines"]:
                places.append(len(names) + 0.6 * group)
                names.append(with_dtype(engine))
                found.append(results["engines"][engine])
    colours = [OURS if name.startswith("gte_np") else "#b5b5b5" for name in names]
    figure, (speed, quality) = plt.subplots(1, 2, figsize=(9, 4.5), sharey=True, layout="constrained")
    _bars(speed, places, [figures["sentences_per_second"] for figures in found], colours, "{:.0f}")
    _bars(quality, places, [100 * figures["top10_overlap"] for figures in found], colours, "{:.1f} %")
    speed.set_title("Sentences a second", loc="left")
    quality.set_title("Same ten nearest sentences as in float32", loc="left")
    speed.set_yticks(places, names)
    speed.invert_yaxis()
    figure.savefig(RESULTS / "quality.svg", metadata={"Date": None})


def _bars(axes: Any, places: list[float], values: list[float], colours: list[str], label: str) -> None:
    """Horizontal bars, each followed by its value instead of an axis of numbers."""
    bars = axes.barh(places, values, color=colours)
    axes.bar_label(bars, [label.format(value) for value in values], padding=4)
    axes.set_xlim(0, 1.2 * max(values))
    axes.xaxis.set_visible(False)
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.tick_params(left=False)
