"""scripts.compare_card, on figures of gte-large-zh's card and on small result files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import compare_card
from scripts.compare_card import by_kind, compare, line_by_line, read_averages, read_figures, read_results

# The card's main figures, as its metadata have them.
MAIN_FIGURES = {
    "max_ap": "Cmnli 89.49905141462749, Ocnli 79.32131557636497",
    "map": "CMedQAv1 86.09191911031553, CMedQAv2 86.45781885502122, MMarcoReranking 31.188333827724108, "
    "T2Reranking 65.8563449629786",
    "v_measure": "CLSClusteringP2P 42.098169316685045, CLSClusteringS2S 38.90716707051822, "
    "ThuNewsClusteringP2P 68.36477832710159, ThuNewsClusteringS2S 62.92080622759053",
    "ndcg_at_10": "CmedqaRetrieval 43.146, CovidRetrieval 88.405, DuRetrieval 85.038, EcomRetrieval 67.246, "
    "MMarcoRetrieval 77.534, MedicalRetrieval 62.883, T2Retrieval 81.932, VideoRetrieval 73.699",
    "cos_sim_spearman": "AFQMC 54.58261199731436, ATEC 54.601019783506466, BQ 64.40573802644984, "
    "LCQMC 74.40054474949213, PAWSX 38.54612530948101, QBQTC 33.35945567162729, STS22-(zh) 62.975074386224286, "
    "STSB 79.68425102631514",
    "accuracy": "AmazonReviewsClassification-(zh) 47.233999999999995, IFlyTek 49.60369372835706, "
    "JDReview 86.71669793621012, MassiveIntentClassification-(zh-CN) 73.30531271015468, "
    "MassiveScenarioClassification-(zh-CN) 75.7128446536651, MultilingualSentiment 76.47666666666667, "
    "OnlineShopping 92.68, TNews 51.979000000000006, Waimai 88.36999999999999",
}

TABLE = """
| Models | Language |
|:-----: | :-----: |
| [GTE-large-zh](https://example.org) | Chinese |

| Model | Sequence Length | Average (35 datasets) | Classification  (9 datasets) | Clustering (4 datasets) | Pair Classification        (2 datasets) | Reranking (4 datasets) | Retrieval  (8 datasets) | STS         (8 datasets) |
| ----- | --- | --- | --- | --- | --- | --- | --- | --- |
| **gte-large-zh** | 512 | **66.72** | 71.34 | 53.07 | 81.14 | 67.42 | 72.49 | 57.82 |
| gte-base-zh | 512 | 65.92 | 71.26 | 53.86 | 80.44 | 67.00 | 71.71 | 55.96 |
"""  # noqa: E501

PAGE = """gte-large-zh
Model | Sequence Length | Average (35 datasets) | Classification (9 datasets) | Clustering (4 datasets) | Pair Classification (2 datasets) | Reranking (4 datasets) | Retrieval (8 datasets) | STS (8 datasets) |
---|---|---|---|---|---|---|---|---|
gte-large-zh | 512 | 66.72 | 71.34 | 53.07 | 81.14 | 67.42 | 72.49 | 57.82 |
Evaluation results
- cos_sim_pearson on MTEB AFQMCvalidation set self-reported48.941
- cos_sim_spearman on MTEB AFQMCvalidation set self-reported54.583
- manhattan_spearman on MTEB AFQMCvalidation set self-reported54.573
- accuracy on MTEB AmazonReviewsClassification (zh)test set self-reported47.234
- map on MTEB CMedQAv1test set self-reported86.092
- mrr on MTEB CMedQAv1test set self-reported88.675
- map_at_1000 on MTEB CmedqaRetrievalself-reported38.524
- ndcg_at_10 on MTEB CmedqaRetrievalself-reported43.146
- cos_sim_ap on MTEB Cmnlivalidation set self-reported89.499
- max_ap on MTEB Cmnlivalidation set self-reported89.499
"""  # noqa: E501

RESULTS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "AFQMC": {
        "test": [{"hf_subset": "default", "cosine_spearman": 0.1}],
        "validation": [{"hf_subset": "default", "cosine_pearson": 0.4896, "cosine_spearman": 0.54573}],
    },
    "AmazonReviewsClassification": {
        "test": [{"hf_subset": "en", "accuracy": 0.3}, {"hf_subset": "zh", "accuracy": 0.47}]
    },
    "CMedQAv1-reranking": {
        "test": [{"hf_subset": "default", "map_at_1000": 0.8619, "mrr_at_1000": 0.88675, "map_at_1": 0.5}]
    },
    "CmedqaRetrieval": {"dev": [{"hf_subset": "default", "map_at_1000": 0.38524, "ndcg_at_10": 0.43146}]},
    "Cmnli": {"validation": [{"hf_subset": "default", "cosine_ap": 0.89, "max_ap": 0.895}]},
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of results as mteb writes it."""
    folder = tmp_path / "results" / "thenlper__gte-large-zh" / "revision"
    folder.mkdir(parents=True)
    (folder / "model_meta.json").write_text('{"name": "thenlper/gte-large-zh"}')
    for task, scores in RESULTS.items():
        (folder / f"{task}.json").write_text(json.dumps({"task_name": task, "scores": scores}))
    return tmp_path


def metadata(figures: dict[str, str] = MAIN_FIGURES) -> str:
    """The beginning of a README.md with figures."""
    lines = ["---", "model-index:", "- name: gte-large-zh", "  results:"]
    for metric, tasks in figures.items():
        for task, value in (entry.split() for entry in tasks.split(", ")):
            name = task.replace("-(", " (")
            lines += [f"  - dataset: {{name: MTEB {name}, config: default, split: test}}", "    metrics:"]
            lines += [f"    - {{type: {metric}, value: {value}}}"]
    return "\n".join([*lines, "---", ""])


def test_lines() -> None:
    rows = list(line_by_line(compare(read_figures(PAGE), RESULTS)))[1:]
    assert rows == [
        ("AFQMC", "validation", "cos_sim_pearson", "48.94", "48.96", "+0.02"),
        ("AFQMC", "validation", "cos_sim_spearman", "54.58", "54.57", "-0.01"),
        ("AFQMC", "validation", "manhattan_spearman", "54.57", "-", "-"),
        ("AmazonReviewsClassification (zh)", "test", "accuracy", "47.23", "47.00", "-0.23"),
        ("CMedQAv1", "test", "map", "86.09", "86.19", "+0.10"),
        ("CMedQAv1", "test", "mrr", "88.67", "88.67", "+0.00"),
        ("CmedqaRetrieval", "", "map_at_1000", "38.52", "38.52", "+0.00"),
        ("CmedqaRetrieval", "", "ndcg_at_10", "43.15", "43.15", "+0.00"),
        ("Cmnli", "validation", "cos_sim_ap", "89.50", "89.00", "-0.50"),
        ("Cmnli", "validation", "max_ap", "89.50", "89.50", "+0.00"),
    ]


def test_the_card_contradicts_itself() -> None:
    """Its table has other means of pair classification and reranking than its figures, and than its own average."""
    card = metadata() + TABLE
    rows = list(by_kind(compare(read_figures(card), {}), read_averages(card, "gte-large-zh")))[1:]
    assert rows == [
        ("Classification", "9", "71.34", "9", "71.34", "0", "-", "-"),
        ("Clustering", "4", "53.07", "4", "53.07", "0", "-", "-"),
        ("Pair Classification", "2", "81.14", "2", "84.41", "0", "-", "-"),
        ("Reranking", "4", "67.42", "4", "67.40", "0", "-", "-"),
        ("Retrieval", "8", "72.49", "8", "72.49", "0", "-", "-"),
        ("STS", "8", "57.82", "8", "57.82", "0", "-", "-"),
        ("Average", "35", "66.72", "35", "66.72", "0", "-", "-"),
    ]


def test_means_are_of_the_same_tasks() -> None:
    card = metadata({"cos_sim_spearman": "AFQMC 50, ATEC 60", "accuracy": "Waimai 80"}) + TABLE
    results = {"AFQMC": {"test": [{"hf_subset": "default", "cosine_spearman": 0.52}]}}
    rows = {row[0]: row for row in by_kind(compare(read_figures(card), results), read_averages(card, "gte-large-zh"))}
    assert rows["STS"] == ("STS", "8", "57.82", "2", "55.00", "1", "52.00", "+2.00")
    assert rows["Average"] == ("Average", "35", "66.72", "3", "63.33", "1", "52.00", "+2.00")
    assert rows["Retrieval"] == ("Retrieval", "8", "72.49", "0", "-", "0", "-", "-")


def test_rows_of_the_table() -> None:
    assert read_averages(TABLE, "gte-base-zh")["STS"] == (8, 55.96)
    assert read_averages(PAGE, "gte-large-zh")["Pair Classification"] == (2, 81.14)
    with pytest.raises(SystemExit, match="expected a row of gte-large"):
        read_averages(TABLE, "gte-large")


def test_results_of_one_model(results: Path) -> None:
    assert read_results(results) == RESULTS
    other = results / "other"
    other.mkdir()
    (other / "AFQMC.json").write_text(json.dumps({"task_name": "AFQMC", "scores": {}}))
    with pytest.raises(SystemExit, match="expected one file of AFQMC"):
        read_results(results)


@pytest.mark.parametrize("card", [PAGE, metadata() + TABLE], ids=["page", "README"])
def test_the_script(
    card: str, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = results / "README.md"
    path.write_text(card, "utf-8")
    monkeypatch.setattr(sys, "argv", ["compare_card", str(path), str(results)])
    compare_card.main()
    printed = capsys.readouterr().out
    assert "| AmazonReviewsClassification (zh) | test | accuracy | 47.23 | 47.00 | -0.23 |" in printed
    assert "| Pair Classification | 2 | 81.14 |" in printed
    assert printed.splitlines()[-1].startswith("without results:")
