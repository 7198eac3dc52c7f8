"""Write the README's tables and plot from benchmarks/results: python -m benchmarks.tables.

The text between the two comments that name this script is replaced. The last line of output is JSON: the ratios.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.compare import RESULTS

QUALITY_PLOT = RESULTS / "quality.svg"
README = Path(__file__).resolve().parent.parent / "README.md"
PLOT = RESULTS / "compare.svg"
PEERS_IN_FEWER_BITS = {
    "bfloat16": ("openvino bfloat16", "transformers bfloat16"),
    "int8": ("onnxruntime int8", "ctranslate2 int8"),
}
PEERS = ("onnxruntime", "openvino", "ctranslate2", "transformers", "sentence-transformers")
COLUMNS = ("gte_np", *PEERS)
PLOTTED = ("1 x 12", "1 x 32", "1 x 512", "16 x 128", "mixed", "mixed, batch_size=32")


def main() -> None:
    """Write all."""
    results, fewer_bits, quality = (read(name) for name in ("compare", "compare_fewer_bits", "quality"))
    facts = environment(results) + f"The first start ever, which compiles, took {results['first_start']:.1f} s.\n"
    blocks = {
        "benchmarks.tables": [facts, *(model_table(*item) for item in results["models"].items())],
        "benchmarks.tables: fewer bits": [environment(fewer_bits) + "\n", fewer_bits_table(fewer_bits)],
        "benchmarks.tables: quality": [quality_table(quality)],
    }
    readme = README.read_text("utf-8")
    for name, parts in blocks.items():
        readme = replace_block(readme, name, "\n".join(["", *parts]))
    README.write_text(readme, encoding="utf-8")
    plot(results)
    plot_quality(quality)
    figures: dict[str, Any] = {model: ratios(result) for model, result in results["models"].items()}
    figures |= {f"{model}, fewer bits": fewer_bits_ratios(result) for model, result in fewer_bits["models"].items()}
    print(json.dumps(figures))


def read(name: str) -> dict[str, Any]:
    """The results of a script."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return content


def replace_block(text: str, name: str, content: str) -> str:
    """The text with other content between the comment of this name and the next end."""
    start = text.index(f"<!-- {name} -->\n") + len(f"<!-- {name} -->\n")
    return text[:start] + content + text[text.index("<!-- end -->", start) :]


def environment(results: dict[str, Any]) -> str:
    """What was measured with what."""
    facts = results["environment"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["packages"].items() if name != "gte_np")
    return (
        f"{facts['date']}, {facts['processor']} ({facts['kernels']}), {facts['processors']} processors, "
        f"{facts['threads']} threads, Python {facts['python']}, {versions}. "
    )


def fewer_bits_table(results: dict[str, Any]) -> str:
    """Milliseconds of each workload in bfloat16 and int8, and how many times as long the fastest peer takes."""
    header = ["milliseconds"]
    for dtype, peers in PEERS_IN_FEWER_BITS.items():
        header += [f"gte_np {dtype}", *peers, "ratio"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for model, result in results["models"].items():
        for workload, figures in result["times"].items():
            cells = [f"{model}, {workload}"]
            for dtype, peers in PEERS_IN_FEWER_BITS.items():
                engines = (f"gte_np {dtype}", *peers)
                cells += [_short(figures[engine]["seconds"] * 1e3) for engine in engines]
                cells.append(f"{fewer_bits_ratio(figures, dtype):.2f}")
            lines.append(cells)
        memory = [f"{model}, peak memory, MB"]
        for dtype, peers in PEERS_IN_FEWER_BITS.items():
            memory += [_short(result["memory_mb"][engine]["peak"]) for engine in (f"gte_np {dtype}", *peers)]
            memory.append("")
        lines.append(memory)
    return _table(lines)


def fewer_bits_ratio(figures: dict[str, Any], dtype: str) -> float:
    """The fastest peer's time over that of gte_np, both in a dtype."""
    fastest: float = min(figures[peer]["seconds"] for peer in PEERS_IN_FEWER_BITS[dtype])
    return fastest / figures[f"gte_np {dtype}"]["seconds"]


def fewer_bits_ratios(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The ratios of each workload."""
    return {
        workload: {dtype: round(fewer_bits_ratio(figures, dtype), 2) for dtype in PEERS_IN_FEWER_BITS}
        for workload, figures in result["times"].items()
    }


def quality_table(results: dict[str, Any]) -> str:
    """What each engine's vectors have in common with those of float32, and its speed."""
    header = ["engine", "cosine, mean", "cosine, worst", "same of nearest 10", "Spearman", "sentences a second"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for engine, figures in results["engines"].items():
        agreement = [f"{figures[name]:.5f}" for name in ("cosine_mean", "cosine_worst", "top10_overlap", "spearman")]
        lines.append([engine, *agreement, f"{figures['sentences_per_second']:.0f}"])
    return _table(lines)


def _table(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


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
    return f"**{model}**\n\n" + _table(lines)


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


def plot_quality(results: dict[str, Any]) -> None:
    """Points: speed against what is lost."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 5))
    for engine, figures in results["engines"].items():
        lost = max(1 - figures["cosine_mean"], 1e-7)  # float32's is rounding
        ours = engine.startswith("gte_np")
        axis.scatter(lost, figures["sentences_per_second"], color="C0" if ours else "C1")
        axis.annotate(engine, (lost, figures["sentences_per_second"]), xytext=(5, 4), textcoords="offset points")
    axis.set_xscale("log")
    axis.set_xlabel("1 - mean cosine to float32 (further left is closer)")
    axis.set_ylabel("sentences a second")
    axis.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(QUALITY_PLOT, metadata={"Date": None})


if __name__ == "__main__":
    main()
