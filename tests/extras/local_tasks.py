"""Tasks of mteb from two small tables of facts, which need no network: one of each kind that the card's table has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTask,
    AbsTaskClassification,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata


class Fact(NamedTuple):
    """One line of facts-en.tsv or facts-zh.tsv.

    A topic, a statement, the same in other words, what contradicts it in almost the same words, a question about it,
    and another statement on the topic.
    """

    topic: str
    statement: str
    paraphrase: str
    contrary: str
    question: str
    other: str


def facts(language: str) -> list[Fact]:
    """The lines of the table of a language."""
    _, *lines = Path(__file__).with_name(f"facts-{language}.tsv").read_text("utf-8").splitlines()
    return [Fact(*line.split("\t")) for line in lines]


class LocalTask(AbsTask):
    """What the tasks have in common: `LocalTask("en")` or `LocalTask("zh")`."""

    kind: str
    score: str

    def __init__(self, language: str) -> None:
        self.language = language
        self.facts = facts(language)
        super().__init__()

    @property
    def metadata(self) -> TaskMetadata:
        """What mteb knows of a task."""
        return TaskMetadata(
            name=f"Local{type(self).__name__}-{self.language}",
            description="Facts in other words, questions about them, and other statements on their topics.",
            dataset={"path": "local", "revision": "1"},
            type=self.kind,
            eval_langs=[{"en": "eng-Latn", "zh": "zho-Hans"}[self.language]],
            main_score=self.score,
        )

    def load_data(self, num_proc: int | None = None, **options: Any) -> None:
        """Make the task's data of the facts."""
        self.dataset = self.made()
        self.data_loaded = True

    def made(self) -> Any:
        """The dataset, of the form that tasks of this kind have."""
        raise NotImplementedError

    def next_topic(self, index: int) -> Fact:
        """The fact of the same number on the next topic: there are three on each."""
        return self.facts[(index + 3) % len(self.facts)]


def rows(**columns: list[Any]) -> DatasetDict:
    """A dataset whose test split has these columns."""
    return DatasetDict({"test": Dataset.from_dict(columns)})


class Classification(LocalTask, AbsTaskClassification):
    """The topic of a text: learned from statements, asked of questions and others."""

    kind, score = "Classification", "accuracy"
    samples_per_label = 4

    def made(self) -> DatasetDict:
        topics = list(dict.fromkeys(fact.topic for fact in self.facts))

        def split(*fields: str) -> Dataset:
            texts = [getattr(fact, field) for field in fields for fact in self.facts]
            return Dataset.from_dict(
                {"text": texts, "label": [topics.index(fact.topic) for _ in fields for fact in self.facts]}
            )

        return DatasetDict({"train": split("statement", "paraphrase"), "test": split("question", "other")})


class Clustering(LocalTask, AbsTaskClusteringLegacy):
    """All texts by topic, as in the legacy tasks of the card's table."""

    kind, score = "Clustering", "v_measure"

    def made(self) -> DatasetDict:
        texts = [text for fact in self.facts for text in fact[1:]]
        return rows(sentences=[texts], labels=[[fact.topic for fact in self.facts for _ in fact[1:]]])


class PairClassification(LocalTask, AbsTaskPairClassification):
    """Whether two statements say the same."""

    kind, score = "PairClassification", "max_ap"

    def made(self) -> DatasetDict:
        first = [fact.statement for fact in self.facts]
        return rows(
            sentence1=[first * 3],
            sentence2=[
                [fact.paraphrase for fact in self.facts]
                + [fact.contrary for fact in self.facts]
                + [fact.other for fact in self.facts]
            ],
            labels=[[1] * len(first) + [0] * (2 * len(first))],
        )


class STS(LocalTask, AbsTaskSTS):
    """How similar two texts are, from 0, another topic, to 5, the same."""

    kind, score = "STS", "cosine_spearman"

    def made(self) -> DatasetDict:
        first, second, scores = zip(*self.pairs(), strict=True)
        return rows(sentence1=list(first), sentence2=list(second), score=list(scores))

    def pairs(self) -> Iterator[tuple[str, str, float]]:
        """Two texts and their similarity."""
        for index, fact in enumerate(self.facts):
            yield fact.statement, fact.paraphrase, 5
            yield fact.paraphrase, fact.contrary, 3
            yield fact.statement, fact.other, 1
            yield fact.statement, self.next_topic(index).other, 0


class Retrieval(LocalTask, AbsTaskRetrieval):
    """The two statements that answer a question, among all of them."""

    kind, score = "Retrieval", "ndcg_at_10"

    def made(self) -> dict[str, dict[str, RetrievalSplitData]]:
        fields = ("statement", "paraphrase", "contrary", "other")
        documents = {f"{field}-{i}": getattr(fact, field) for i, fact in enumerate(self.facts) for field in fields}
        split = RetrievalSplitData(
            corpus=Dataset.from_dict({"id": list(documents), "text": list(documents.values())}),
            queries=Dataset.from_dict(
                {"id": [f"question-{i}" for i in range(len(self.facts))], "text": [f.question for f in self.facts]}
            ),
            relevant_docs={
                f"question-{i}": {f"statement-{i}": 1, f"paraphrase-{i}": 1} for i in range(len(self.facts))
            },
            top_ranked=self.candidates(),
        )
        return {"default": {"test": split}}

    def candidates(self) -> dict[str, list[str]] | None:
        """The documents that are ranked for each question; None for all of them."""
        return None


class Reranking(Retrieval):
    """The two statements that answer a question, among twelve documents."""

    kind, score = "Reranking", "map_at_1000"

    def candidates(self) -> dict[str, list[str]]:
        count, fields = len(self.facts), ("contrary", "statement", "paraphrase")
        return {
            f"question-{i}": [f"{field}-{(i + step) % count}" for step in range(4) for field in fields]
            for i in range(count)
        }


TASKS: tuple[type[LocalTask], ...] = (Classification, Clustering, PairClassification, Reranking, Retrieval, STS)
