"""mteb with the models of gte_np: the scores that sentence-transformers gets, on tasks of local data.

`make mteb` installs what these tests need, and `pytest -s` shows the tables of scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import torch
from datasets import Dataset
from mteb.models.models_protocols import EncoderProtocol
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer
from torch.utils.data import DataLoader

from gte_np import EmbeddingModel, InputError
from gte_np.cli import main
from gte_np.integrations.mteb import MtebEncoder
from gte_np.mteb_command import find_tasks
from tests.checkpoints import (
    copy_chinese_tokenizer,
    pooling_flags,
    write_config,
    write_json,
    write_modules,
    write_weights,
)
from tests.extras.local_tasks import STS, TASKS, LocalTask, Retrieval
from tests.hub_server import HubServer, client_environment

pytestmark = pytest.mark.filterwarnings("default")  # mteb and what it imports warn of each other

QUERY_PROMPT = "为这个句子生成表示以用于检索相关文章："


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> dict[str, Path]:
    """Models by language: MiniLM, and random weights in gte-small-zh's shape, with a prompt for queries."""
    chinese = tmp_path_factory.mktemp("chinese")
    sizes = {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048}
    write_config(chinese, vocab_size=21128, max_position_embeddings=512, **sizes)
    write_weights(chinese)
    copy_chinese_tokenizer(chinese, tokenizer_json=True, do_lower_case=True)
    write_modules(chinese, pooling_flags(512, "cls"), "Normalize")
    prompts = {"prompts": {"query": QUERY_PROMPT, "document": ""}, "similarity_fn_name": "cosine"}
    write_json(chinese / "config_sentence_transformers.json", prompts)
    return {"en": minilm_folder, "zh": chinese}


def scores(model: Any, task: LocalTask) -> dict[str, float]:
    """Every score of a task by its name, from 0 to 1."""
    [result] = mteb.evaluate(model, task, cache=None, show_progress_bar=False).task_results
    [subset] = result.scores["test"]
    return {name: value for name, value in subset.items() if isinstance(value, float)}


@pytest.mark.parametrize("kind", TASKS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_scores(language: str, kind: type[LocalTask], folders: dict[str, Path]) -> None:
    """Float32 must give sentence-transformers' scores: vectors differ by some 1e-6, which rarely moves a rank."""
    folder = folders[language]
    expected = scores(SentenceTransformer(str(folder), device="cpu"), kind(language))
    ours = scores(MtebEncoder(folder), kind(language))
    assert ours == pytest.approx(expected, abs=1e-4, nan_ok=True)
    main = kind.score
    int8 = scores(MtebEncoder(folder, dtype="int8"), kind(language))
    print(
        f"\n| {language} | {kind.__name__} | {main} | {100 * expected[main]:.2f} | {100 * ours[main]:.2f} "
        f"| {100 * int8[main]:.2f} | {100 * (int8[main] - ours[main]):+.2f} |"
    )
    assert 0 < expected[main] < 1  # a task that is too hard or too easy would hide a difference


def vectors(encoder: Any, task: LocalTask, prompt_type: PromptType | None, **options: Any) -> Any:
    """The vectors of some texts, encoded as evaluators of mteb do it."""
    loader = DataLoader(Dataset.from_dict({"text": ["首都是哪里", "北京", "今天中午吃什么"]}), batch_size=2)
    return encoder.encode(
        loader,
        task_metadata=task.metadata,
        hf_split="test",
        hf_subset="default",
        prompt_type=prompt_type,
        show_progress_bar=False,
        **options,
    )


PROMPTS = {
    "query": "查询：",
    "Retrieval-query": "问题：",
    "Retrieval": "检索：",
    "STS": "",
    "Reranking-document": "文章：",
    "Classification": "分类：",
}


@pytest.mark.parametrize("prompt_type", [None, *PromptType])
@pytest.mark.parametrize("kind", TASKS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("prompts", [None, PROMPTS], ids=["own", "given"])
@pytest.mark.filterwarnings("ignore")  # of prompts that are replaced
def test_prompts(
    prompts: dict[str, str] | None, kind: type[LocalTask], prompt_type: PromptType | None, folders: dict[str, Path]
) -> None:
    """The prompt of each task and type must be the one that mteb's own wrapper chooses."""
    theirs = SentenceTransformerEncoderWrapper(str(folders["zh"]), device="cpu", model_prompts=prompts)
    expected = vectors(theirs, kind("zh"), prompt_type)
    ours = vectors(MtebEncoder(folders["zh"], model_prompts=prompts), kind("zh"), prompt_type)
    assert ours.dtype == np.float32
    assert ours == pytest.approx(np.asarray(expected), abs=2e-6)  # another prompt moves numbers by 1e-3 at least


def test_a_prompt_that_mteb_does_not_know_is_left_out(folders: dict[str, Path]) -> None:
    with pytest.warns(UserWarning, match="Task name s2p_query is not valid"):
        encoder = MtebEncoder(folders["en"], model_prompts={"s2p_query": "find: "})
    assert encoder.model_prompts == {"query": "", "document": ""}


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities(name: str, folders: dict[str, Path]) -> None:
    ours, theirs = MtebEncoder(folders["en"]), SentenceTransformer(str(folders["en"]), device="cpu")
    ours.model.similarity_fn_name = theirs.similarity_fn_name = name
    a, b = torch.rand(3, 384), torch.rand(3, 384)
    # Sums of 384 numbers in another order: some 1e-5 of the largest, a Manhattan distance of 130.
    assert np.asarray(ours.similarity(a, b)) == pytest.approx(theirs.similarity(a, b).numpy(), rel=1e-5, abs=1e-5)
    pairs = theirs.similarity_pairwise(a, b).numpy()
    assert ours.similarity_pairwise(a, b.numpy()) == pytest.approx(pairs, rel=1e-5, abs=1e-5)


def test_what_mteb_keeps_of_a_model(folders: dict[str, Path]) -> None:
    meta = MtebEncoder(folders["en"]).mteb_model_meta
    assert (meta.name, meta.max_tokens, meta.embed_dim) == ("local/all-MiniLM-L6-v2", 256, 384)
    assert meta.n_parameters == 22_713_216  # as published
    assert meta.similarity_fn_name == "cosine"
    assert not meta.use_instructions
    assert MtebEncoder(folders["zh"]).mteb_model_meta.use_instructions
    assert isinstance(MtebEncoder(folders["en"]), EncoderProtocol)


def test_a_model_from_the_hub_is_loaded_again_as_it_was(folders: dict[str, Path], tmp_path: Path) -> None:
    with HubServer({"org/model": folders["zh"]}) as hub, client_environment(tmp_path, hub.endpoint):
        encoder = MtebEncoder("org/model", dtype="bfloat16", embed_dim=100)
        meta = encoder.mteb_model_meta
        again = meta.load_model()
    assert (meta.name, len(meta.revision or "")) == ("org/model", 40)
    assert again.model.bert.dtype == "bfloat16"
    assert np.array_equal(again.model.encode(["北京"]), encoder.model.encode(["北京"]))
    assert again.mteb_model_meta.experiment_name == meta.experiment_name


def test_a_model_that_is_given_is_not_changed(folders: dict[str, Path]) -> None:
    model = EmbeddingModel(folders["zh"])
    encoder = MtebEncoder(model, model_prompts={"query": "查询："})
    assert model.prompts["query"] == QUERY_PROMPT
    assert encoder.model.prompts["query"] == "查询："


def test_another_device_is_refused(folders: dict[str, Path]) -> None:
    assert MtebEncoder(folders["en"], device="cpu")
    with pytest.raises(InputError, match="expected device 'cpu', got 'cuda'"):
        MtebEncoder(folders["en"], device="cuda")


def test_results_of_other_settings_are_kept_apart(folders: dict[str, Path], tmp_path: Path) -> None:
    cache = mteb.ResultCache(tmp_path)
    for encoder in (MtebEncoder(folders["en"]), MtebEncoder(folders["en"], dtype="int8")):
        mteb.evaluate(encoder, STS("en"), cache=cache, show_progress_bar=False)
    assert len(list(tmp_path.glob("results/local__all-MiniLM-L6-v2/*/experiments/*/LocalSTS-en.json"))) == 2


def test_the_command(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    local = {"LocalSTS-en": STS("en"), "LocalRetrieval-en": Retrieval("en")}
    monkeypatch.setattr(mteb, "get_task", lambda name, hf_subsets=None: local[name])
    expected = "".join(
        f"{100 * scores(MtebEncoder(folders['en']), local[name])['main_score']:6.2f}  {name}  test\n"
        for name in local
    )
    command = ["mteb", str(folders["en"]), *local, "-o", str(tmp_path)]
    assert main(command) == 0
    assert capsys.readouterr().out == expected
    assert {path.stem for path in tmp_path.rglob("*.json")} == {"model_meta", *local}
    monkeypatch.setattr(MtebEncoder, "encode", None)  # what is there is not computed again
    assert main(command) == 0
    assert capsys.readouterr().out == expected


def test_names_of_tasks() -> None:
    assert len(find_tasks("MTEB(cmn, v1)")) == 31
    [task] = find_tasks("STS22 (zh)")
    assert (task.metadata.name, task.hf_subsets) == ("STS22", ["zh"])


@pytest.mark.parametrize("name", ["Nothing", "STS22 (nowhere)", "Nothing (zh)", "a b c"])
def test_names_of_no_task(name: str, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mteb", str(folders["en"]), name]) == 2
    assert f"or a benchmark of mteb, got '{name}'" in capsys.readouterr().err
