"""The tables of limits, scaling and many cores, of figures made by hand."""

from __future__ import annotations

from typing import Any

from benchmarks.limit_tables import limits_sentence, limits_table, listed, many_cores_table, scaling_table


def figures(memory_share: float, percent: int) -> dict[str, Any]:
    """A workload, whose call reaches so many percent of the limit, and whose encoder ten more."""
    return {
        "memory_share": memory_share,
        "limit_ms": 1.0,
        "encoder_ms": 1.5,
        "call_ms": 2.0,
        "encoder_percent": [percent + 9, percent + 10, percent + 11],
        "call_percent": [percent - 1, percent, percent + 1],
    }


def rows(table: str) -> list[list[str]]:
    """The cells below the header."""
    return [line[2:-2].split(" | ") for line in table.splitlines()[2:]]


def test_limits() -> None:
    workloads = {"1 x 12": figures(0.9, 60), "16 x 128": figures(0.1, 80)}
    assert rows(limits_table({"int8": workloads})) == [
        ["int8", "1 x 12", "memory", "1.00", "1.50", "70 (69 to 71)", "2.00", "60 (59 to 61)"],
        ["int8", "16 x 128", "arithmetic", "1.00", "1.50", "90 (89 to 91)", "2.00", "80 (79 to 81)"],
    ]


def test_the_sentence_on_limits() -> None:
    models = {
        name: {"float32": {"1 x 12": figures(1, low), "16 x 128": figures(0, high)}, "int8": {}}
        for name, low, high in (("small", 61, 81), ("base", 62, 82), ("large", 63, 83))
    }
    sentence = limits_sentence({"models": models})
    assert "small, base and large in float32 reach 61, 62 and 63 %" in sentence
    assert "81, 82 and 83 % for 16 texts of 128" in sentence
    assert listed(["one"]) == "one"


def test_scaling() -> None:
    measured = [
        {"texts": texts, "tokens": tokens, "threads": threads, "seconds": seconds, "of_limit": share}
        for texts, tokens, threads, seconds, share in (
            (1, 12, 2, 0.001, 0.5), (4, 128, 2, 0.2, 0.9), (1, 12, 1, 0.0015, 0.667), (4, 128, 1, 0.4, 0.91)
        )
    ]  # fmt: skip
    table = scaling_table(measured)
    assert table.splitlines()[0] == "| milliseconds | 1 thread | of the peak | 2 threads | of the peak |"
    assert rows(table) == [["1 x 12", "1.5", "67 %", "1.0", "50 %"], ["4 x 128", "400", "91 %", "200", "90 %"]]


def test_many_cores() -> None:
    found = {
        "loads": {"1 x 12": {"chosen": 0.5, "chosen_by": "tile, 8 threads"}},
        "by_text_from": {"than_team_of_all": 3, "than_best_team": None, "chosen": 8},
    }
    model = {"int8": {"check": {"1 x 12": {"predicted": 1.0, "measured": 1.25}}, "processors": {"EPYC": found}}}
    assert rows(many_cores_table(model)) == [
        ["two threads here", "int8", "1 (measured: 1.25)", "", ""],
        ["EPYC", "int8", "0.5 (tile, 8 threads)", "none", "8"],
    ]
