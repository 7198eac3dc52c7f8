"""Models in pickles, copies and other processes: files are named, settings are carried, weights are shared."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gte_np import BertModel, CheckpointError, EmbeddingModel, ModelNotFoundError, Tokenizer
from gte_np.architectures.config import read_config
from gte_np.architectures.weights import read_weights
from gte_np.checkpoint import hub as hub_module
from gte_np.checkpoint import source
from gte_np.tokenization import read_text_encoder
from tests.checkpoints import dense_model, small_model, write_json, write_weights
from tests.compiled import same_bits
from tests.hub_server import HubServer, client_environment
from tests.texts import ORDINARY

IDS = [[2, 9, 17, 3], [2, 11, 8, 3]]
SETTINGS = ("max_seq_length", "truncate_dim", "prompts", "default_prompt_name", "similarity_fn_name", "pooling_modes")


class Watched(pickle.Unpickler):
    """Unpickles, and keeps the names of all that is looked up."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.found: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        self.found.append(module)
        return super().find_class(module, name)


def arrived(value: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> Any:
    return pickle.loads(pickle.dumps(value, protocol))


@pytest.fixture(autouse=True)
def no_hashes_yet() -> None:
    source._digest.cache_clear()


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("options", [{}, {"dtype": "int8", "threads": 1}, {"dtype": "bfloat16", "backend": "numpy"}])
def test_a_pickled_model_gives_the_same_bits(options: dict[str, Any], protocol: int, folder: Path) -> None:
    model = EmbeddingModel(folder, **options)
    again = arrived(model, protocol)
    assert same_bits(again.encode(ORDINARY), model.encode(ORDINARY))
    assert again.bert.dtype == model.bert.dtype
    assert again.bert._options == model.bert._options
    assert type(again.bert._encoder) is type(model.bert._encoder)
    assert vars(again).keys() == vars(model).keys()
    assert same_bits(arrived(again).encode(ORDINARY), model.encode(ORDINARY))


def test_a_pickled_bert_model_and_tokenizer(folder: Path) -> None:
    bert, tokenizer = BertModel.from_pretrained(folder), Tokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 7
    assert same_bits(arrived(bert)(IDS).pooler_output, bert(IDS).pooler_output)
    again = arrived(tokenizer)
    assert again(ORDINARY, padding=True, truncation=True)["input_ids"].tolist() == (
        tokenizer(ORDINARY, padding=True, truncation=True)["input_ids"].tolist()
    )
    assert again.model_max_length == 7
    from_folder = BertModel.from_folder(folder, dtype="int8")
    assert arrived(from_folder).dtype == "int8"


@pytest.mark.parametrize("carry", [arrived, copy.copy, copy.deepcopy])
def test_settings_are_carried(carry: Callable[[Any], Any], tmp_path: Path) -> None:
    model = EmbeddingModel(dense_model(tmp_path), prompts={"passage": "that "}, pooling="cls")
    model.max_seq_length, model.truncate_dim, model.similarity_fn_name = 9, 11, "dot"
    model.prompts["query"] = "is "
    model.default_prompt_name = "query"
    again = carry(model)
    assert [getattr(again, name) for name in SETTINGS] == [getattr(model, name) for name in SETTINGS]
    before = model.encode(ORDINARY)
    assert same_bits(again.encode(ORDINARY), before)
    again.max_seq_length, again.truncate_dim, again.default_prompt_name, again.prompts["query"] = 5, 3, None, "very "
    again.tokenizer.model_max_length = 3
    assert (model.max_seq_length, model.truncate_dim, model.default_prompt_name) == (9, 11, "query")
    assert model.prompts["query"] == "is "
    assert model.tokenizer.model_max_length == 64
    assert same_bits(model.encode(ORDINARY), before)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_share_the_weights(duplicate: Callable[[Any], Any], folder: Path) -> None:
    model = EmbeddingModel(folder)
    shutil.rmtree(folder)  # nothing is loaded again
    twin, twin_of_bert = duplicate([model])[0], duplicate([model.bert])[0]
    again = twin if duplicate is copy.deepcopy else duplicate(model)
    assert again.bert._encoder is model.bert._encoder
    assert twin_of_bert._encoder is model.bert._encoder
    assert again.tokenizer._encoder.backend is model.tokenizer._encoder.backend
    assert same_bits(again.encode(ORDINARY), model.encode(ORDINARY))


def test_a_pickle_is_small_and_looks_up_only_this_package(folder: Path) -> None:
    content = pickle.dumps(EmbeddingModel(folder))
    assert len(content) < 10_000
    watched = Watched(content)
    watched.load()
    assert {name.partition(".")[0] for name in watched.found} == {"gte_np"}


def test_other_processes(folder: Path) -> None:
    model = EmbeddingModel(folder, truncate_dim=8)
    expected = model.encode(ORDINARY)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as executor:
        assert same_bits(executor.submit(model.encode, ORDINARY).result(), expected)
    with spawn.Pool(1) as processes:
        assert same_bits(processes.apply(model.encode, (ORDINARY,)), expected)


CHANGES: dict[str, Callable[[Path], object]] = {
    "weights": lambda folder: write_weights(folder, seed=9),
    "one byte of the weights": lambda folder: flip_a_byte(folder / "model.safetensors"),
    "the precision": lambda folder: write_weights(folder, dtype="float16"),
    "the words": lambda folder: (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n", "utf-8"),
    "the pooling": lambda folder: write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "cls"}),
    "a new file": lambda folder: write_json(folder / "sentence_bert_config.json", {"max_seq_length": 5}),
}


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_files_where_it_arrives_are_an_error(change: Callable[[Path], object], folder: Path) -> None:
    content = pickle.dumps(EmbeddingModel(folder))
    pickle.loads(content)
    change(folder)
    with pytest.raises(CheckpointError, match="expected the files of the pickled model, got others: "):
        pickle.loads(content)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_files_that_change_before_pickling_are_an_error(change: Callable[[Path], object], folder: Path) -> None:
    model = EmbeddingModel(folder)
    change(folder)
    with pytest.raises(CheckpointError, match=r"changed after the model was loaded.* Load the model again"):
        pickle.dumps(model)


def test_the_same_files_at_another_time_are_the_same(folder: Path, tmp_path: Path) -> None:
    content = pickle.dumps(EmbeddingModel(folder))
    shutil.copytree(folder, tmp_path / "new")  # other inodes, other times
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "new", folder, copy_function=shutil.copyfile)
    (folder / "README.md").write_text("is not read", "utf-8")
    pickle.loads(content)


def test_a_folder_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps(EmbeddingModel(folder))
    monkeypatch.setattr(hub_module, "_from_hub", pytest.fail)  # a folder is never looked up there
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"model.safetensors in .* Copy the folder to that place, or"):
        pickle.loads(content)


def test_a_relative_folder_is_found_from_elsewhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    model = EmbeddingModel(f"./{folder.name}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert same_bits(arrived(model).encode(ORDINARY), model.encode(ORDINARY))


def test_an_old_folder_for_the_transformer(tmp_path: Path) -> None:
    model_folder = small_model(tmp_path / "model")
    transformer = model_folder / "0_Transformer"
    transformer.mkdir()
    for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"):
        (model_folder / name).rename(transformer / name)
    modules = [("0_Transformer", "Transformer"), ("1_Pooling", "Pooling")]
    write_json(
        model_folder / "modules.json",
        [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules],
    )
    with HubServer({"some/model": model_folder}) as hub, client_environment(tmp_path / "home", hub.endpoint):
        model = EmbeddingModel("some/model")
        content = pickle.dumps(model)
        shutil.rmtree(tmp_path / "home")
        again = pickle.loads(content)
    assert again.transformer_folder.name == "0_Transformer"
    assert same_bits(again.encode(ORDINARY), model.encode(ORDINARY))


@pytest.mark.parametrize("kind", [BertModel, Tokenizer])
def test_what_was_not_loaded_from_files_has_no_pickle(kind: type[Any], folder: Path) -> None:
    config = read_config(folder)
    made = (
        BertModel(config, read_weights(folder, config))
        if kind is BertModel
        else Tokenizer(read_text_encoder(folder, lowercase_first=False))
    )
    with pytest.raises(
        TypeError, match=rf"cannot pickle a {kind.__name__} that was not loaded from files.* use from_"
    ):
        pickle.dumps(made)
    assert isinstance(copy.deepcopy(made), kind)


# --- from the hub -----------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    repository = small_model(tmp_path / "repository")
    with HubServer({"some/model": repository}) as hub, client_environment(tmp_path / "home", hub.endpoint):
        yield hub


def forget_downloads(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "home")


LOADERS: list[Callable[..., Any]] = [EmbeddingModel, BertModel.from_pretrained, Tokenizer.from_pretrained]


@pytest.mark.parametrize("load", LOADERS)
def test_a_cached_model_needs_no_network(hub: HubServer, load: Callable[..., Any], tmp_path: Path) -> None:
    content = pickle.dumps(load("some/model", cache_dir=tmp_path / "cache", token="the-secret"))
    assert b"the-secret" not in content
    hub.requests.clear()
    pickle.loads(content)
    assert not hub.requests


@pytest.mark.parametrize("load", LOADERS)
def test_another_machine_fetches_the_same_commit(hub: HubServer, load: Callable[..., Any], tmp_path: Path) -> None:
    content = pickle.dumps(load("some/model", revision="main"))
    forget_downloads(tmp_path)
    again = pickle.loads(content)
    commit = again._files.source.revision
    assert len(commit) == 40
    assert hub.files("GET")
    assert commit in again._files.source.folder.parts
    if load is LOADERS[2]:
        assert "model.safetensors" not in hub.files("GET")


def test_settings_of_a_model_by_name_are_carried(hub: HubServer, tmp_path: Path) -> None:
    model = EmbeddingModel("some/model", prompts={"query": "is "})
    content = pickle.dumps(model)
    forget_downloads(tmp_path)
    again = pickle.loads(content)
    assert again.prompts == model.prompts
    assert same_bits(again.encode_query(ORDINARY), model.encode_query(ORDINARY))


def test_another_machine_that_may_not_fetch(hub: HubServer, tmp_path: Path) -> None:
    EmbeddingModel("some/model")
    content = pickle.dumps(EmbeddingModel("some/model", local_files_only=True))
    forget_downloads(tmp_path)
    hub.requests.clear()
    with pytest.raises(ModelNotFoundError, match="not in the cache, and local_files_only is set"):
        pickle.loads(content)
    assert not hub.requests


def test_one_line_says_where_a_model_came_from(hub: HubServer, folder: Path) -> None:
    model = EmbeddingModel("some/model")
    commit = model._files.source.revision if model._files else None
    for part in (model, model.bert, model.tokenizer):
        assert repr(part).startswith(f"{type(part).__name__}('some/model', revision='{commit}', ")
    made = BertModel(model.bert.config, read_weights(folder, model.bert.config), backend="numpy")
    assert repr(made) == "BertModel(num_hidden_layers=2, hidden_size=32, dtype='float32', backend='numpy')"
