"""Write RESULTS.md, what the README has of it, and the plots, from benchmarks/results: python -m benchmarks.tables.

In the README, the text between the two comments that name this script is replaced. The last line of output is JSON:
the ratios.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.compare import COLD_ROUNDS, RESULTS
from benchmarks.limit_tables import limits_sentence, limits_table, many_cores_table, scaling_table
from benchmarks.markdown import Results, short, table
from benchmarks.workloads import MIXED_TEXTS

README = Path(__file__).resolve().parent.parent / "README.md"
REPORT = Path(__file__).resolve().parent / "RESULTS.md"
MARKERS = ("<!-- benchmarks.tables -->\n", "<!-- end -->")
SUMMARISED = {
    "1 x 12": "1 text of 12 tokens",
    "16 x 128": "16 texts of 128 tokens",
    "mixed": "{} texts of mixed lengths",
}
FILES = ("compare", "compare_fewer_bits", "quality", "limits", "scaling", "many_cores")
AGREEMENT = {
    "cosine_mean": "cosine, mean",
    "cosine_worst": "cosine, worst",
    "top10_overlap": "same of nearest 10",
    "spearman": "Spearman",
}


class Comparison(NamedTuple):
    """One of our engines and the others of the same dtype."""

    ours: str
    others: tuple[str, ...]

    @property
    def engines(self) -> tuple[str, ...]:
        """All of them, ours first."""
        return self.ours, *self.others

    def fastest_other(self, figures: Results) -> float:
        """The seconds of the fastest of the others."""
        return min(figures[engine]["seconds"] for engine in self.others)

    def ratio(self, figures: Results) -> float:
        """The time of the fastest of the others divided by ours."""
        return self.fastest_other(figures) / figures[self.ours]["seconds"]


FLOAT32 = Comparison("gte_np", ("onnxruntime", "openvino", "ctranslate2", "transformers", "sentence-transformers"))
BFLOAT16 = Comparison("gte_np bfloat16", ("openvino bfloat16", "transformers bfloat16"))
INT8 = Comparison("gte_np int8", ("onnxruntime int8", "ctranslate2 int8"))


def main() -> None:
    """Write all."""
    from benchmarks.plots import draw_quality, draw_speed

    results = read_results()
    REPORT.write_text(report(results), encoding="utf-8")
    README.write_text(replace_block(README.read_text("utf-8"), summary(results)), encoding="utf-8")
    draw_speed(results["compare"])
    draw_quality(results["quality"])
    print(json.dumps(all_ratios(results["compare"], results["compare_fewer_bits"])))


def read_results() -> Results:
    """The results of the scripts, by the names of their files."""
    return {name: json.loads((RESULTS / f"{name}.json").read_text("utf-8")) for name in FILES}


def with_dtype(engine: str) -> str:
    """The name of an engine with its dtype, which most have in their name."""
    return engine if " " in engine else f"{engine} float32"


def replace_block(text: str, content: str) -> str:
    """The text with other content between the markers."""
    before, rest = text.split(MARKERS[0])
    return f"{before}{MARKERS[0]}{content}{MARKERS[1]}{rest.split(MARKERS[1])[1]}"


def summary(results: Results) -> str:
    """What the README has of the results."""
    return summary_table(results["compare"], results["compare_fewer_bits"]) + limits_sentence(results["limits"])


def summary_table(results: Results, fewer_bits: Results) -> str:
    """Milliseconds of a few workloads: ours and the fastest of the others, in each dtype."""
    sources = ((FLOAT32, results), (BFLOAT16, fewer_bits), (INT8, fewer_bits))
    header = ["model", "workload"]
    for comparison, _ in sources:
        header += [with_dtype(comparison.ours), "fastest other"]
    rows = []
    for model in results["models"]:
        for workload, title in SUMMARISED.items():
            rows.append([model, title.format(MIXED_TEXTS[model])])
            for comparison, source in sources:
                figures = source["models"][model]["times"][workload]
                seconds = (figures[comparison.ours]["seconds"], comparison.fastest_other(figures))
                rows[-1] += [short(value * 1e3) for value in seconds]
    return table(header, rows, left=2)


def report(results: Results) -> str:
    """All of RESULTS.md."""
    compared, fewer_bits, quality = (results[name] for name in ("compare", "compare_fewer_bits", "quality"))
    parts = [
        "# Results of the benchmarks",
        "This file is written by `python -m benchmarks.tables` from the JSON files in [results](results). How things "
        "are measured is described in [README.md](README.md).",
        "Times are medians in milliseconds, for workloads such as `16 x 128`: 16 texts of 128 tokens. `ratio` is the "
        "time of the fastest of the other engines divided by that of gte_np: above 1, gte_np is faster. `runs` is "
        "how often the engine with the fewest runs was measured: where it is 1, the times are those of single runs.",
        "Each section was measured by a script of its own, so that the same workload has other times in other "
        "sections: the machine changed in between, and other engines run between two turns of the comparisons. Only "
        "times of one section can be compared.",
        "## Speed in float32",
        environment(compared),
        f"The very first start, in which the kernels are compiled, took {compared['first_start']:.1f} s.",
        *model_tables(compared, partial(model_table, comparisons=[FLOAT32])),
        "![Speed of each engine, relative to the fastest engine other than gte_np](results/compare.svg)",
        "## Speed in bfloat16 and int8",
        environment(fewer_bits),
        *model_tables(fewer_bits, partial(model_table, comparisons=[BFLOAT16, INT8])),
        "## Quality and speed of bfloat16 and int8",
        environment(quality),
        f"The published weights of all-MiniLM-L6-v2 and {quality['sentences']:,} sentences. The vectors are compared "
        "with those of gte_np in float32.",
        quality_table(quality),
        "![Sentences a second, and how many of the nearest ten sentences stay the same](results/quality.svg)",
        "## The limit of the processor",
        environment(results["limits"]),
        "`limit` is the least time that multiply-adds and reading the weights [can take](README.md#limits). The "
        "percentages are the limit divided by the time of the encoder, and of a whole call: medians of all turns, "
        "which need not be the quotients of the medians beside them, with the quartiles in parentheses. The "
        "bandwidth of the memory is measured anew for each row, since it changes, so a limit that is bound by memory "
        "holds for its own row.",
        *model_tables(results["limits"], limits_table),
        "## Length, batch and threads",
        environment(results["scaling"]),
        "All in float32, and without leaving out rows of the last layer. `of the peak` is the rate of multiply-adds "
        "divided by what as many threads reach on registers.",
        *model_tables(results["scaling"], scaling_table),
        "## Many cores",
        environment(results["many_cores"]),
        "Milliseconds that a [model](README.md#many-cores) predicts for processors that were not at hand, and in "
        "parentheses how the encoder divides the batch: by text, or by tile among a team of threads. `two threads "
        "here` is the processor above, with the measured time in parentheses. The last two columns give the smallest "
        "number of texts of 128 tokens for which dividing by text is faster than the best team (none: for no number "
        "up to four a core), and the smallest for which the encoder divides by text. A slightly larger number may be "
        "divided by tile again.",
        *model_tables(results["many_cores"], many_cores_table),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def environment(results: Results) -> str:
    """What was measured on, and with what."""
    facts = results["environment"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["packages"].items() if name != "gte_np")
    return (
        f"{facts['date']}, {facts['processor']} ({facts['kernels']}), {facts['processors']} processors, "
        f"{facts['threads']} threads, {facts['system']}, Python {facts['python']}, {versions}."
    )


def model_tables(results: Results, table_of: Callable[[Any], str]) -> list[str]:
    """A heading and a table for each model."""
    return [part for model, figures in results["models"].items() for part in (f"### {model}", table_of(figures))]


def model_table(result: Results, comparisons: Sequence[Comparison]) -> str:
    """Milliseconds of each workload and of a cold start, and megabytes."""
    rows_of_times = dict(result["times"])
    if result["cold_start"]:
        starts = result["cold_start"].items()
        cold = {engine: {"seconds": seconds, "runs": COLD_ROUNDS} for engine, seconds in starts}
        rows_of_times["cold process to first vector"] = cold
    header, memory = ["milliseconds"], ["peak memory, MB"]
    rows = [[workload] for workload in rows_of_times]
    for comparison in comparisons:
        header += [*comparison.engines, "ratio", "runs"]
        memory += [*(short(result["memory_mb"][engine]["peak"]) for engine in comparison.engines), "", ""]
        for row, figures in zip(rows, rows_of_times.values(), strict=True):
            row += [short(figures[engine]["seconds"] * 1e3) for engine in comparison.engines]
            runs = min(figures[engine]["runs"] for engine in comparison.engines)
            row += [f"{comparison.ratio(figures):.2f}", str(runs)]
    return table(header, [*rows, memory])


def quality_table(results: Results) -> str:
    """How much the vectors of each engine agree with those of float32, and its speed."""
    rows = [
        [engine, *(f"{figures[name]:.5f}" for name in AGREEMENT), f"{figures['sentences_per_second']:.0f}"]
        for engine, figures in results["engines"].items()
    ]
    return table(["engine", *AGREEMENT.values(), "sentences a second"], rows)


def all_ratios(results: Results, fewer_bits: Results) -> Results:
    """The ratios of each model and workload."""
    found: Results = {model: ratios(result, FLOAT32) for model, result in results["models"].items()}
    for model, result in fewer_bits["models"].items():
        found[f"{model}, bfloat16"] = ratios(result, BFLOAT16)
        found[f"{model}, int8"] = ratios(result, INT8)
    return found


def ratios(result: Results, comparison: Comparison) -> dict[str, float]:
    """The ratio of each workload."""
    return {workload: round(comparison.ratio(figures), 2) for workload, figures in result["times"].items()}


if __name__ == "__main__":
    main()
