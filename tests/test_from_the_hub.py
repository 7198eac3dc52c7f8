"""Whole models from a hub on loopback, and from a folder without any network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_np import BertModel, EmbeddingModel, InputError, ModelNotFoundError, Tokenizer, cos_sim, normalize
from gte_np.cli import main
from tests.checkpoints import small_model, write_json
from tests.hub_server import HubServer, client_environment
from tests.layouts import write_layout

GTE, BGE, STELLA = "thenlper/gte-large-zh", "BAAI/bge-small-zh-v1.5", "infgrad/stella-base-zh"
LOADERS: list[Callable[..., Any]] = [EmbeddingModel, BertModel.from_pretrained, Tokenizer.from_pretrained]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("repositories")
    found = {name: write_layout(name, folder / name) for name in (GTE, BGE, STELLA)}
    return found | {"some/model": small_model(folder / "some"), "some/model@other": small_model(folder / "other")}


@pytest.fixture
def hub(repositories: dict[str, Path], tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(repositories) as hub, client_environment(tmp_path / "home", hub.endpoint):
        yield hub


def test_the_first_snippet_of_the_card(hub: HubServer, repositories: dict[str, Path], capsys: Any) -> None:
    """The card's text; only the lines that import are changed."""
    import gte_np as F  # noqa: N812
    from gte_np import BertModel as AutoModel
    from gte_np import Tokenizer as AutoTokenizer

    # fmt: off
    input_texts = [
    "中国的首都是哪里",
    "你喜欢去哪里旅游",
    "北京",
    "今天中午吃什么"
    ]
    tokenizer = AutoTokenizer.from_pretrained("thenlper/gte-large-zh")
    model = AutoModel.from_pretrained("thenlper/gte-large-zh")
    # Tokenize the input texts
    batch_dict = tokenizer(input_texts, max_length=512, padding=True, truncation=True, return_tensors='pt')
    outputs = model(**batch_dict)
    embeddings = outputs.last_hidden_state[:, 0]
    # (Optionally) normalize embeddings
    embeddings = F.normalize(embeddings, p=2, dim=1)
    scores = (embeddings[:1] @ embeddings[1:].T) * 100
    print(scores.tolist())
    # fmt: on
    vectors = EmbeddingModel(repositories[GTE]).encode(input_texts)
    assert np.array(scores) == pytest.approx(100 * cos_sim(vectors[:1], vectors[1:]), abs=1e-4)
    assert capsys.readouterr().out.startswith("[[")


def test_the_second_snippet_of_the_card(hub: HubServer, repositories: dict[str, Path], capsys: Any) -> None:
    """The card's text; only the lines that import are changed."""
    from gte_np import EmbeddingModel as SentenceTransformer
    from gte_np import cos_sim

    # fmt: off
    sentences = ['That is a happy person', 'That is a very happy person']
    model = SentenceTransformer('thenlper/gte-large-zh')
    embeddings = model.encode(sentences)
    print(cos_sim(embeddings[0], embeddings[1]))
    # fmt: on
    vectors = EmbeddingModel(repositories[GTE]).encode(sentences)
    assert np.array_equal(embeddings, vectors)
    assert capsys.readouterr().out == f"{normalize(vectors[:1]) @ normalize(vectors[1:]).T}\n"


def test_a_tokenizer_needs_no_weights(hub: HubServer) -> None:
    Tokenizer.from_pretrained(GTE)
    assert not [name for name in hub.files() if name.endswith((".safetensors", ".bin"))]
    EmbeddingModel(GTE)
    assert [name for name in hub.files("GET") if name.endswith((".safetensors", ".bin"))] == ["model.safetensors"]


@pytest.mark.parametrize("load", LOADERS)
def test_every_loader_passes_on_where_to_look(hub: HubServer, tmp_path: Path, load: Callable[..., Any]) -> None:
    hub.token = "the-token"
    with pytest.raises(ModelNotFoundError, match="HF_TOKEN"):
        load("some/model")
    load("some/model", token="the-token", cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir())
    load("some/model", token="the-token", revision="other")
    hub.requests.clear()
    load("some/model", cache_dir=tmp_path / "cache", local_files_only=True)
    assert not hub.requests
    with pytest.raises(ModelNotFoundError, match="no such branch"):
        load("some/model", token="the-token", revision="nothing")


def test_the_command_passes_on_where_to_look(hub: HubServer, tmp_path: Path, capsys: Any) -> None:
    cache = str(tmp_path / "cache")
    assert main(["info", "some/model", "--revision", "other", "--cache-dir", cache]) == 0
    assert main(["info", "some/model", "--cache-dir", cache, "--local-files-only"]) == 2
    assert "not in the cache" in capsys.readouterr().err


def test_a_name_has_the_prompts_of_the_table(hub: HubServer, repositories: dict[str, Path]) -> None:
    named, folder = EmbeddingModel(BGE), EmbeddingModel(repositories[BGE])
    prompt = "为这个句子生成表示以用于检索相关文章："
    assert named.prompts == {"query": prompt, "document": ""}
    assert folder.prompts == {"query": "", "document": ""}
    assert np.array_equal(named.encode_query("北京"), folder.encode("北京", prompt=prompt))
    assert np.array_equal(named.encode("北京"), folder.encode("北京"))
    stella = EmbeddingModel(STELLA)
    assert np.array_equal(stella.encode_document("北京"), stella.encode("结果: 北京"))


def test_the_repository_goes_before_the_table(repositories: dict[str, Path], tmp_path: Path) -> None:
    folder = write_layout(BGE, tmp_path / "model")
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "查询"}})
    with HubServer({BGE: folder}) as hub, client_environment(tmp_path / "home", hub.endpoint):
        assert EmbeddingModel(BGE).prompts["query"] == "查询"
        assert EmbeddingModel(BGE, prompts={"query": "我"}).prompts["query"] == "我"


def test_the_table_tells_the_pooling_that_a_repository_does_not(hub: HubServer, caplog: Any) -> None:
    assert EmbeddingModel(STELLA).pooling_modes == ("mean",)
    assert "no pooling files" not in caplog.text


@pytest.mark.parametrize(
    "options", [{"backend": "nmba"}, {"dtype": "f4"}, {"threads": 0}, {"prompts": 3}, {"pooling": "best"}]
)
def test_arguments_are_checked_before_a_download(hub: HubServer, options: dict[str, Any]) -> None:
    with pytest.raises((InputError, TypeError, ValueError)):
        EmbeddingModel("some/model", **options)
    assert not hub.requests


def test_parity_of_a_name_looks_it_up(hub: HubServer) -> None:
    program = (
        "import sys\n"
        "from unittest import mock\n"
        "from scripts import oracle, parity\n"
        "oracle.versions = dict\n"
        "sys.argv = ['parity', 'some/model']\n"
        "with mock.patch.object(parity, 'compare_model', lambda name, folder, backend: sys.exit(str(folder))):\n"
        "    parity.main()"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=False)
    assert "models--some--model" in done.stderr.splitlines()[-1]


def test_a_folder_works_with_all_sockets_refused(small_folder: Path) -> None:
    program = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise AssertionError('the network was used')\n"
        "socket.socket = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from gte_np import EmbeddingModel\n"
        "assert EmbeddingModel(sys.argv[1]).encode(['happy', '北京']).shape == (2, 32)\n"
        "assert 'huggingface_hub' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(small_folder)], check=True)
