"""The adapters of gte_np.integrations with the real libraries, and every snippet of INTEGRATIONS.md.

`make integrations` installs the libraries.
"""

from __future__ import annotations

import ast
import asyncio
import os
import pickle
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from bertopic import BERTopic
from haystack import Document, Pipeline
from haystack.components.retrievers import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore
from keybert import KeyBERT
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import Document as LlamaDocument
from llama_index.core import VectorStoreIndex
from sentence_transformers import SentenceTransformer
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from umap import UMAP

from gte_np import EmbeddingModel, InputError, cos_sim
from gte_np.integrations import bertopic, keybert
from gte_np.integrations.chroma import GteEmbeddingFunction
from gte_np.integrations.haystack import GteDocumentEmbedder, GteTextEmbedder
from gte_np.integrations.langchain import GteEmbeddings
from gte_np.integrations.llama_index import GteEmbedding
from gte_np.integrations.scikit_learn import TextEmbedder

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = {"query": "query: ", "document": "passage: "}  # MiniLM has none: with these, queries differ from documents
TEXTS = [
    "a tower with a light that gives warning of shoals to passing ships",
    "directions for making something to eat or drink",
    "an aircraft without wings that obtains its lift from the rotation of overhead blades",
]
QUERY = "a machine that flies"


@pytest.fixture(autouse=True)
def _no_other_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a library loads a model of its own in place of the one that it was given."""

    def refuse(self: object, *arguments: object, **options: object) -> None:
        raise AssertionError(f"another model was loaded: {arguments}")

    monkeypatch.setattr(SentenceTransformer, "__init__", refuse)


@pytest.fixture(scope="module")
def name(minilm_folder: Path) -> str:
    return str(minilm_folder.resolve())


@pytest.fixture(scope="module")
def model(name: str) -> EmbeddingModel:
    return EmbeddingModel(name, prompts=PROMPTS)


@pytest.fixture(scope="module")
def query(model: EmbeddingModel) -> list[float]:
    return model.encode_query(QUERY).tolist()


@pytest.fixture(scope="module")
def documents(model: EmbeddingModel) -> list[list[float]]:
    return model.encode_document(TEXTS).tolist()


def test_queries_and_documents_can_be_told_apart(query: list[float], model: EmbeddingModel) -> None:
    assert cos_sim(query, model.encode_document(QUERY))[0, 0] < 0.99


def test_langchain(name: str, query: list[float], documents: list[list[float]]) -> None:
    embeddings = GteEmbeddings(name, prompts=PROMPTS)
    assert embeddings.embed_query(QUERY) == query
    assert embeddings.embed_documents(TEXTS) == documents
    assert asyncio.run(embeddings.aembed_query(QUERY)) == query
    assert asyncio.run(embeddings.aembed_documents(TEXTS)) == documents
    store = InMemoryVectorStore.from_texts(TEXTS, embeddings)
    [(found, score)] = store.similarity_search_with_score(QUERY, k=1)
    assert found.page_content == TEXTS[2]
    assert score == pytest.approx(cos_sim(query, documents[2])[0, 0], abs=1e-6)  # a sum in another order


def test_chroma(name: str, query: list[float], documents: list[list[float]], tmp_path: Path) -> None:
    function = GteEmbeddingFunction(name, prompts=PROMPTS)
    client = chromadb.PersistentClient(str(tmp_path))
    collection = client.create_collection("words", embedding_function=function)
    collection.add(ids=["0", "1", "2"], documents=TEXTS)
    stored = collection.get(include=["embeddings"])["embeddings"]
    # The function gives the bits of `encode_document`; what a collection with cosines stores differs in the last one.
    assert np.array_equal(function(TEXTS), np.array(documents, np.float32))
    assert np.asarray(stored) == pytest.approx(np.array(documents), abs=1e-7)
    assert np.array_equal(function.embed_query([QUERY]), np.array([query], np.float32))
    program = (
        "import sys, chromadb, gte_np.integrations.chroma\n"
        "words = chromadb.PersistentClient(sys.argv[1]).get_collection('words')\n"
        "found = words.query(query_texts=[sys.argv[2]], n_results=1)\n"
        "print(found['ids'][0][0], 1 - found['distances'][0][0], words.configuration['hnsw']['space'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), QUERY],
        capture_output=True, text=True, check=True, timeout=120, cwd=ROOT,
    )  # fmt: skip
    number, score, space = done.stdout.split()
    assert (number, space) == ("2", "cosine")
    assert float(score) == pytest.approx(cos_sim(query, documents[2])[0, 0], abs=1e-6)


def test_chroma_stores_no_token(name: str) -> None:
    with pytest.raises(InputError, match="HF_TOKEN"):
        GteEmbeddingFunction(name, token="secret")


FOOD = ["a sweet baked cake", "soup of boiled beans", "fried fish with lemon", "bread with butter", "a bowl of rice"]
TRAVEL = [
    "a train to the coast",
    "an airport at night",
    "a ferry over the bay",
    "a tent in the hills",
    "a rented car",
]


def test_scikit_learn(name: str) -> None:
    embedder = TextEmbedder(name, truncate_dim=8, threads=1)
    with pytest.raises(NotFittedError):
        embedder.transform(TEXTS)
    vectors = embedder.fit_transform(TEXTS)
    assert np.array_equal(vectors, EmbeddingModel(name).encode(TEXTS, truncate_dim=8))
    assert embedder.get_feature_names_out().tolist() == [f"textembedder{number}" for number in range(8)]
    copy = clone(embedder)
    assert copy.get_params() == embedder.get_params()
    assert not hasattr(copy, "model_")
    pickled = pickle.dumps(embedder)
    assert len(pickled) < 100_000  # the names of the files, and not the weights
    assert np.array_equal(pickle.loads(pickled).transform(TEXTS), vectors)
    with pytest.raises(InputError, match="choose one column"):
        embedder.transform(np.array([TEXTS]))


def test_scikit_learn_searches_a_pipeline_in_two_processes(name: str) -> None:
    pipeline = make_pipeline(TextEmbedder(name, threads=1), LogisticRegression())
    search = GridSearchCV(pipeline, {"textembedder__truncate_dim": [2, 384]}, cv=5, n_jobs=2, error_score="raise")
    search.fit(FOOD + TRAVEL, ["food"] * 5 + ["travel"] * 5)
    assert search.best_params_ == {"textembedder__truncate_dim": 384}
    assert search.best_score_ == 1
    assert search.predict(["roasted potatoes", "a bus ticket"]).tolist() == ["food", "travel"]


def test_llama_index(name: str, query: list[float], documents: list[list[float]]) -> None:
    model = GteEmbedding(name, model_options={"prompts": PROMPTS})
    assert model.get_query_embedding(QUERY) == query
    assert model.get_text_embedding(TEXTS[0]) == documents[0]
    assert model.get_text_embedding_batch(TEXTS) == documents
    assert asyncio.run(model.aget_query_embedding(QUERY)) == query
    assert asyncio.run(model.aget_text_embedding(TEXTS[0])) == documents[0]
    assert asyncio.run(model.aget_text_embedding_batch(TEXTS)) == documents
    index = VectorStoreIndex.from_documents([LlamaDocument(text=text) for text in TEXTS], embed_model=model)
    [found] = index.as_retriever(similarity_top_k=1).retrieve(QUERY)
    assert found.text == TEXTS[2]
    assert found.score == pytest.approx(cos_sim(query, documents[2])[0, 0], abs=1e-6)


def test_llama_index_stores_a_model(name: str, query: list[float]) -> None:
    model = GteEmbedding(name, model_options={"prompts": PROMPTS}, embed_batch_size=5)
    for again in (GteEmbedding.from_dict(model.to_dict()), pickle.loads(pickle.dumps(model))):
        assert again.embed_batch_size == 5
        assert again.get_query_embedding(QUERY) == query


@pytest.mark.parametrize("adapter", [keybert.GteBackend, bertopic.GteBackend])
def test_backends_take_a_loaded_model_only(adapter: Any, name: str) -> None:
    with pytest.raises(TypeError, match="expected an EmbeddingModel, got str"):
        adapter(name)


def test_keybert(model: EmbeddingModel) -> None:
    text = f"A lighthouse is {TEXTS[0]}."
    keywords = KeyBERT(keybert.GteBackend(model)).extract_keywords(text, top_n=3)
    assert keywords[0][0] == "lighthouse"
    for word, score in keywords:  # KeyBERT rounds to four digits
        assert score == pytest.approx(cos_sim(model.encode(word), model.encode(text))[0, 0], abs=6e-5)


def docstrings() -> list[str]:
    """The first paragraphs of what Python's standard library says of its functions and classes, 2,000 of them."""
    found: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                found[text.partition("\n\n")[0]] = None
    return [text for text in found if len(text) > 20][:2000]


def test_bertopic(model: EmbeddingModel) -> None:
    texts = docstrings()
    assert len(texts) == 2000
    topics = BERTopic(embedding_model=bertopic.GteBackend(model), umap_model=UMAP(metric="cosine", random_state=0))
    numbers, _ = topics.fit_transform(texts)
    assert len(set(numbers)) > 10  # 2,000 texts about some 150 modules
    vectors, topic_of = model.encode(texts), np.array(numbers)
    for topic in (0, 1):  # BERTopic's vector of a topic is the mean of its documents' vectors
        row = topic - min(numbers)
        mean = vectors[topic_of == topic].mean(axis=0)
        assert np.asarray(topics.topic_embeddings_)[row] == pytest.approx(mean, abs=1e-5)
    found, _ = topics.find_topics("dates and times of the day", top_n=3)
    words = {word for number in found for word, _ in topics.get_topic(number)}
    assert words & {"date", "time", "datetime", "timezone", "utc"}


def test_haystack(name: str, query: list[float], documents: list[list[float]]) -> None:
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    indexing = Pipeline()
    indexing.add_component("embedder", GteDocumentEmbedder(name, prompts=PROMPTS))
    indexing.add_component("writer", DocumentWriter(store))
    indexing.connect("embedder.documents", "writer.documents")
    given = [Document(content=text) for text in TEXTS]
    indexing.run({"embedder": {"documents": given}})
    assert [document.embedding for document in given] == [None] * 3  # the given ones are not changed
    assert sorted(document.embedding or [] for document in store.filter_documents()) == sorted(documents)

    pipeline = Pipeline()
    pipeline.add_component("embedder", GteTextEmbedder(name, prompts=PROMPTS))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.warm_up()
    assert pipeline.get_component("embedder").run(text=QUERY) == {"embedding": query}
    [found] = pipeline.run({"embedder": {"text": QUERY}})["retriever"]["documents"]
    assert found.content == TEXTS[2]
    assert found.score == pytest.approx(cos_sim(query, documents[2])[0, 0], abs=1e-6)


def test_haystack_components_are_stored(name: str, model: EmbeddingModel) -> None:
    embedder = GteDocumentEmbedder(name, meta_fields_to_embed=["title", "year"], prompts=PROMPTS)
    again = GteDocumentEmbedder.from_dict(embedder.to_dict())
    [document] = again.run([Document(content="a tower", meta={"title": "lighthouse", "year": None})])["documents"]
    assert document.embedding == model.encode_document("lighthouse\na tower").tolist()
    text_embedder = GteTextEmbedder(name, prompts=PROMPTS)
    assert GteTextEmbedder.from_dict(text_embedder.to_dict()).to_dict() == text_embedder.to_dict()
    with pytest.raises(TypeError, match="documents are for GteDocumentEmbedder"):
        text_embedder.run([Document(content="a tower")])


# --- INTEGRATIONS.md --------------------------------------------------------------------------------------------

SECTIONS = re.split(r"^## ", (ROOT / "INTEGRATIONS.md").read_text("utf-8"), flags=re.MULTILINE)[1:]
SNIPPETS = [
    pytest.param(snippet, output, id=section.partition("\n")[0])
    for section in SECTIONS
    for snippet, output in re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", section, re.DOTALL)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """Where all snippets are run, one after the other: each finds the files of those before it."""
    folder = tmp_path_factory.mktemp("page")
    (folder / ".models").mkdir()
    (folder / ".models" / Path(name).name).symlink_to(name)
    return folder


@pytest.mark.parametrize(("snippet", "output"), SNIPPETS)
def test_the_page(snippet: str, output: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=folder, timeout=300, capture_output=True, text=True, encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    number = r"\d\.\d{4}"  # the last digits of scores are those of a machine
    assert re.split(number, done.stdout) == re.split(number, output)
    scores = [[float(score) for score in re.findall(number, text)] for text in (done.stdout, output)]
    assert scores[0] == pytest.approx(scores[1], abs=2e-4)


def test_the_page_has_a_session_of_each_library() -> None:
    assert len(SNIPPETS) == len(SECTIONS) + 1  # Chroma has two
