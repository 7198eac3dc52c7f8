"""Write the README's tables and plot from benchmarks/results: python -m benchmarks.tables.

The text between the two comments that name this script is replaced. The last line of output is JSON: the ratios.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.compare import RESULTS

README = Path(__file__).resolve().parent.parent / "README.md"
PLOT = RESULTS / "compare.svg"
BLOCK = re.compile(r"(<!-- benchmarks.tables -->\n).*?(<!-- end -->)", re.DOTALL)
PEERS = ("onnxruntime", "openvino", "ctranslate2", "transformers", "sentence-transformers")
COLUMNS = ("gte_np", *PEERS)
PLOTTED = ("1 x 12", "1 x 32", "1 x 512", "16 x 128", "mixed", "mixed, batch_size=32")


def main() -> None:
    """Write both."""
    results = json.loads((RESULTS / "compare.json").read_text("utf-8"))
    text = "\n".join(["", environment(results), *(model_table(*item) for item in results["models"].items())])
    readme = README.read_text("utf-8")
    README.write_text(BLOCK.sub(lambda match: match[1] + text + match[2], readme), encoding="utf-8")
    plot(results)
    print(json.dumps({model: ratios(result) for model, result in results["models"].items()}))


def environment(results: dict[str, Any]) -> str:
    """What was measured with what."""
    facts = results["environment"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["packages"].items() if name != "gte_np")
    return (
        f"{facts['date']}, {facts['processor']} ({facts['kernels']}), {facts['processors']} processors, "
        f"{facts['threads']} threads, Python {facts['python']}, {versions}. The first start ever, which "
        f"compiles, took {results['first_start']:.1f} s.\n"
    )


def model_table(model: str, result: dict[str, Any]) -> str:
    """Milliseconds of each workload, then seconds and megabytes; the last column compares with the fastest peer."""
    header = ["milliseconds", *COLUMNS, "fastest peer / gte_np"]
    rows = [
        [workload, *(_short(figures[engine]["seconds"] * 1e3) for engine in COLUMNS), f"{ratio(figures):.2f}"]
        for workload, figures in result["times"].items()
    ]
    cold = {engine: {"seconds": seconds} for engine, seconds in result["cold_start"].items()}
    starts = [_short(cold[engine]["seconds"] * 1e3) for engine in COLUMNS]
    peaks = [_short(result["memory_mb"][engine]["peak"]) for engine in COLUMNS]
    rows += [["cold process to first vector", *starts, f"{ratio(cold):.2f}"], ["peak memory, MB", *peaks, ""]]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return f"**{model}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def ratio(figures: dict[str, Any]) -> float:
    """The fastest peer's time over that of gte_np."""
    return min(figures[peer]["seconds"] for peer in PEERS) / figures["gte_np"]["seconds"]


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """The ratio of each workload."""
    return {workload: round(ratio(figures), 2) for workload, figures in result["times"].items()}


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def plot(results: dict[str, Any]) -> None:
    """Bars: throughput of each engine, as a multiple of the fastest peer's."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "gte_np"  # the same file from the same figures
    figure, axes = plt.subplots(len(results["models"]), 1, figsize=(9, 3 * len(results["models"])), sharex=True)
    engines = [engine for engine in COLUMNS if engine != "sentence-transformers"]
    width = 0.8 / len(engines)
    for axis, (model, result) in zip(axes, results["models"].items(), strict=True):
        for number, engine in enumerate(engines):
            heights = []
            for workload in PLOTTED:
                figures = result["times"][workload]
                fastest = min(figures[peer]["seconds"] for peer in PEERS)
                heights.append(fastest / figures[engine]["seconds"])
            places = [index + number * width for index in range(len(PLOTTED))]
            axis.bar(places, heights, width, label=engine)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_ylabel(f"{model}\nspeed / fastest peer")
        axis.set_xticks([index + 0.4 - width / 2 for index in range(len(PLOTTED))], PLOTTED)
    axes[0].legend(ncols=len(engines), fontsize="small", loc="upper right")
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    main()
