"""Names and folders, against the real client of the hub and a hub on 127.0.0.1."""

from __future__ import annotations

import io
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gte_np.checkpoint.hub import choose_files, resolve_model
from gte_np.errors import InputError, MissingDependencyError, ModelNotFoundError
from tests.hub_server import HubServer, client_environment, commit_of

NAME = "owner/model"
REPOSITORY = ("1_Pooling/config.json", "config.json", "vocab.txt", "model.safetensors")  # the least of a model
DESCRIPTIONS = (
    "1_Pooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
UNNEEDED = (
    ".gitattributes",
    "README.md",
    "flax_model.msgpack",
    "onnx/config.json",
    "onnx/model.onnx",
    "openvino/openvino_model.bin",
    "photo.png",
    "tf_model.h5",
)
SAFE_SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
TORCH_SHARDS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")


def make_repository(folder: Path, *names: str, text: str = "") -> Path:
    """Write files that hold their own names, since nothing here looks into them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name + text)
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repository", *REPOSITORY, "pytorch_model.bin", "onnx/model.onnx")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def closed_endpoint() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(autouse=True)
def no_hub(home: Path, closed_endpoint: str) -> Iterator[None]:
    """Keep a test that goes wrong from the network and from the user's cache."""
    with client_environment(home, closed_endpoint):
        yield


@pytest.fixture
def hub(repository: Path, home: Path) -> Iterator[HubServer]:
    with HubServer({NAME: repository}) as server, client_environment(home, server.endpoint):
        yield server


# --- Which files of a repository are needed ---


@pytest.mark.parametrize(
    ("weights", "chosen"),
    [
        (["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"], ["model.safetensors"]),
        (
            ["model.safetensors.index.json", *SAFE_SHARDS, "pytorch_model.bin"],
            [*SAFE_SHARDS, "model.safetensors.index.json"],
        ),
        (["pytorch_model.bin", "pytorch_model.bin.index.json", *TORCH_SHARDS], ["pytorch_model.bin"]),
        (["pytorch_model.bin.index.json", *TORCH_SHARDS], [*TORCH_SHARDS, "pytorch_model.bin.index.json"]),
        (["model.safetensors.index.json", SAFE_SHARDS[1], "pytorch_model.bin"], ["pytorch_model.bin"]),
        ([*SAFE_SHARDS, "pytorch_model.bin"], ["pytorch_model.bin"]),
        (["model.fp16.safetensors", "tf_model.h5", "onnx/model.onnx", "model.ckpt"], []),
    ],
)
def test_one_set_of_weights_is_chosen(weights: list[str], chosen: list[str]) -> None:
    assert choose_files([*weights, "config.json"]) == ["config.json", *chosen]


def test_all_descriptions_and_nothing_unneeded_are_chosen() -> None:
    old_names = ["added_tokens.json", "sentence_roberta_config.json", "sentence_xlm_roberta_config.json"]
    assert choose_files([*UNNEEDED, *old_names, *DESCRIPTIONS]) == sorted([*old_names, *DESCRIPTIONS])


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_module_folder_comes_with_its_weights(weights: str) -> None:
    needed = ["2_Dense/config.json", f"2_Dense/{weights}", "config.json", "model.safetensors"]
    unneeded = ["2_Dense/README.md", "2_Dense/onnx/config.json", "2023_backup/model.safetensors", "Dense/config.json"]
    assert choose_files([*needed, *unneeded]) == needed


def test_one_set_of_weights_is_chosen_in_a_module_folder_too() -> None:
    files = ["2_Dense/config.json", "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin"]
    assert choose_files(files) == files[:2]


def test_an_old_transformer_folder_is_chosen_like_the_top() -> None:
    needed = ["config.json", "pytorch_model.bin", "sentence_bert_config.json", "tokenizer.json", "vocab.txt"]
    files = [f"0_Transformer/{name}" for name in [*needed, "tf_model.h5"]]
    assert choose_files([*files, "modules.json"]) == [*files[:-1], "modules.json"]


@pytest.mark.parametrize(
    "name",
    [
        "/config.json",
        "../config.json",
        "..\\config.json",
        "C:\\config.json",
        "1_Pooling/../config.json",
        "1_Pooling/../../config.json",
        "1_Pooling\\config.json",
        "1_../config.json",
        "0_x/../1_y/config.json",
        "//host/1_Pooling/config.json",
        "config.json\n",
        "config.json\0",
        "sentence_/../x_config.json",
        "[c]onfig.json",
        "1_*/config.json",
        "\u0661_Pooling/config.json",
        "",
    ],
)
def test_a_name_that_leads_elsewhere_is_never_chosen(name: str) -> None:
    assert choose_files([name, "model.safetensors"]) == ["model.safetensors"]


# --- Local folders ---

NO_NETWORK = """
import socket, sys
from pathlib import Path
def refuse(*args, **kwargs): raise AssertionError("the network was used")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.create_connection = socket.getaddrinfo = refuse
from gte_np.checkpoint.hub import resolve_model
from gte_np.errors import ModelNotFoundError
assert resolve_model("folder") == resolve_model(Path("folder")) == Path("folder")
assert resolve_model("owner/name") == Path("owner/name")
try:
    resolve_model("./nothing")
except ModelNotFoundError:
    assert "huggingface_hub" not in sys.modules
    print("passed")
"""


def test_a_local_folder_needs_neither_network_nor_client(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "owner" / "name").mkdir(parents=True)
    child = subprocess.run(
        [sys.executable, "-c", NO_NETWORK], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (child.stdout.strip(), child.stderr) == ("passed", "")


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve_model("~/model") == tmp_path / "model"
    assert resolve_model(Path("~/model")) == tmp_path / "model"


@pytest.mark.parametrize(
    "name",
    [
        "./nothing",
        "../nothing",
        "~/nothing-of-this-name",
        "~no-such-user/model",
        "/no/such/folder",
        "a/b/c",
        "models\\gte",
        "C:\\models",
        "https://huggingface.co/owner/name",
        "/" + "long" * 2000,
        Path("owner/name"),
    ],
)
def test_a_folder_that_is_not_there(name: str | Path) -> None:
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        resolve_model(name)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_in_place_of_a_folder(tmp_path: Path, kind: type[Any]) -> None:
    make_repository(tmp_path, "model.safetensors")
    with pytest.raises(ModelNotFoundError, match="expected a checkpoint's folder, got the file"):
        resolve_model(kind(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a b",
        "owner/",
        "owner/..",
        "owner/a..b",
        "owner/a--b",
        "-a",
        "a-",
        "owner/.a",
        "owner/a.git",
        "a\0b",
        "./a\0b",
        "a\n",
        "owner/a?b",
        "owner/a@b",
        "模型",
        "a" * 97,
        "owner/" + "a" * 5000,
    ],
)
def test_a_text_that_can_be_no_name(name: str) -> None:
    with pytest.raises(InputError, match="expected a folder"):
        resolve_model(name)


@pytest.mark.parametrize("name", [None, 3, b"x", ["a"]])
def test_a_name_of_a_wrong_type(name: Any) -> None:
    with pytest.raises(TypeError, match="expected"):
        resolve_model(name)


# --- Downloads ---


def test_just_the_needed_files_are_fetched(hub: HubServer, repository: Path) -> None:
    make_repository(repository, *DESCRIPTIONS, *UNNEEDED)
    needed = sorted([*DESCRIPTIONS, "model.safetensors"])
    folder = resolve_model(NAME)
    assert names_in(folder) == needed
    assert all((folder / name).read_text() == name for name in needed)
    assert hub.files("GET") == hub.files("HEAD") == needed


def test_what_is_cached_is_not_fetched_again(hub: HubServer) -> None:
    folder = resolve_model(NAME)
    hub.requests.clear()
    assert resolve_model(NAME) == folder
    assert hub.files("GET") == hub.files("HEAD") == []


def test_torch_weights_are_fetched_where_there_are_no_others(hub: HubServer, repository: Path) -> None:
    (repository / "model.safetensors").unlink()
    assert names_in(resolve_model(NAME)) == sorted([*REPOSITORY[:3], "pytorch_model.bin"])


def test_all_shards_are_fetched(hub: HubServer, repository: Path) -> None:
    (repository / "model.safetensors").unlink()
    shards = [*SAFE_SHARDS, "model.safetensors.index.json"]
    make_repository(repository, *shards)
    assert names_in(resolve_model(NAME)) == sorted([*REPOSITORY[:3], *shards])


def test_a_name_without_owner(hub: HubServer, repository: Path) -> None:
    hub.repositories["model"] = repository
    assert (resolve_model("model") / "model.safetensors").is_file()


def test_a_repository_without_weights(hub: HubServer, repository: Path) -> None:
    (repository / "model.safetensors").unlink()
    (repository / "pytorch_model.bin").unlink()
    make_repository(repository, "2_Dense/config.json", "2_Dense/model.safetensors", SAFE_SHARDS[0])
    with pytest.raises(
        ModelNotFoundError, match=r"no weights \(model.safetensors, pytorch_model.bin, model_int8.safetensors, or the"
    ):
        resolve_model(NAME)
    assert hub.files() == []


def test_a_changed_branch_is_fetched_anew(hub: HubServer, repository: Path) -> None:
    before = resolve_model(NAME)
    make_repository(repository, "config.json", text=" of a new commit")
    hub.requests.clear()
    after = resolve_model(NAME)
    assert (after / "config.json").read_text() == "config.json of a new commit"
    assert (before / "config.json").read_text() == "config.json"
    assert hub.files() == ["config.json"]


def test_a_branch_and_a_commit(hub: HubServer, tmp_path: Path) -> None:
    files = ["config.json", "pytorch_model.bin"]  # not those of the main branch
    branch = make_repository(tmp_path / "branch", *files, text=" of v2")
    hub.repositories[f"{NAME}@v2"] = branch
    folder = resolve_model(NAME, revision="v2")
    assert names_in(folder) == files
    assert (folder / "config.json").read_text() == "config.json of v2"
    assert resolve_model(NAME, revision=commit_of(branch)) == folder
    assert names_in(resolve_model(NAME)) == sorted(REPOSITORY)


@pytest.mark.parametrize("revision", ["no-such-branch", "0" * 40])
def test_a_wrong_revision(hub: HubServer, revision: str) -> None:
    resolve_model(NAME)  # what is cached of another revision is no answer
    with pytest.raises(ModelNotFoundError, match=f"at revision '{revision}' cannot be fetched: there is no such"):
        resolve_model(NAME, revision=revision)


def test_a_wrong_name(hub: HubServer) -> None:
    with pytest.raises(ModelNotFoundError, match=r"'owner/modle' cannot be fetched: .* Check the name; a private"):
        resolve_model("owner/modle")


def test_the_cache_folder_of_the_caller(hub: HubServer, tmp_path: Path, home: Path) -> None:
    folder = resolve_model(NAME, cache_dir=tmp_path / "mine")
    assert folder.is_relative_to(tmp_path / "mine")
    assert not (home / "hub").exists()
    assert resolve_model(NAME, cache_dir=str(tmp_path / "mine"), local_files_only=True) == folder


def test_the_environment_of_a_child_process(hub: HubServer, home: Path) -> None:
    """HF_ENDPOINT and HF_HOME as a user sets them; and no progress bar goes into a file."""
    code = f"from gte_np.checkpoint.hub import resolve_model; print(resolve_model({NAME!r}))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.stderr == ""
    assert Path(child.stdout.strip()).is_relative_to(home / "hub")
    assert "model.safetensors" in hub.files()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stderr", [io.StringIO(), Terminal()])
def test_progress_is_shown_on_a_terminal_only(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    resolve_model(NAME)
    assert ("Fetching" in stderr.getvalue()) == isinstance(stderr, Terminal)
    assert bool(stderr.getvalue()) == stderr.isatty()


# --- Private, restricted and broken ---


def test_a_private_model_needs_its_token(hub: HubServer) -> None:
    hub.token = "hf_secret"
    for wrong in (None, False, "hf_wrong"):
        with pytest.raises(ModelNotFoundError, match="needs a valid token= or HF_TOKEN") as caught:
            resolve_model(NAME, token=wrong)
        assert "hf_wrong" not in str(caught.value)
    assert names_in(resolve_model(NAME, token="hf_secret"))


def test_the_token_of_the_environment(hub: HubServer, home: Path) -> None:
    hub.token = "hf_secret"
    with client_environment(home, hub.endpoint, HF_TOKEN="hf_secret"):
        with pytest.raises(ModelNotFoundError, match="HF_TOKEN"):
            resolve_model(NAME, token=False)
        assert resolve_model(NAME) == resolve_model(NAME, token=True)


def test_a_token_that_is_asked_for_and_not_there(hub: HubServer) -> None:
    resolve_model(NAME)
    with pytest.raises(ModelNotFoundError, match="`token=True`"):
        resolve_model(NAME, token=True)


def test_a_revision_or_token_that_cannot_be_sent(hub: HubServer) -> None:
    for value in (3, b"hf_secret"):
        for setting in ("revision", "token"):
            with pytest.raises(TypeError, match=f"expected the {setting} as str"):
                resolve_model(NAME, **{setting: value})  # type: ignore[arg-type]
    for word in ("", "hf_secret\n", "hf secret", "hf_sécret"):
        for setting in ("revision", "token"):
            with pytest.raises(InputError, match=f"expected the {setting} in visible ASCII") as caught:
                resolve_model(NAME, **{setting: word})  # type: ignore[arg-type]
            assert "secret" not in str(caught.value)
    assert hub.requests == []


def test_a_restricted_model(hub: HubServer) -> None:
    hub.failures["/resolve/"] = (403, "GatedRepo")  # as on the real hub, its list of files can be read
    with pytest.raises(ModelNotFoundError, match=r"access to it is restricted.*HF_TOKEN"):
        resolve_model(NAME)


def test_an_endpoint_that_is_no_hub(hub: HubServer) -> None:
    resolve_model(NAME)  # an answer is no reason to take what is cached
    hub.failures["/"] = (404, "")
    with pytest.raises(ModelNotFoundError, match=r"cannot be fetched: .*404"):
        resolve_model(NAME)


def test_a_file_that_is_listed_and_not_there(hub: HubServer) -> None:
    hub.failures["vocab.txt"] = (404, "EntryNotFound")
    with pytest.raises(ModelNotFoundError, match=r"cannot be fetched: .*vocab\.txt") as caught:
        resolve_model(NAME)
    assert "\n" not in str(caught.value)


MIB = 1 << 20
LARGE = bytes(range(256)) * (11 * MIB // 256)  # the client keeps what has arrived of a file in steps of 10 MiB


@pytest.fixture
def large_hub(hub: HubServer, repository: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    (repository / "model.safetensors").write_bytes(LARGE)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between two attempts the client waits
    return hub


def test_a_connection_that_breaks_once_is_resumed(large_hub: HubServer) -> None:
    large_hub.cut("model.safetensors", after=10 * MIB + 5)
    folder = resolve_model(NAME)
    assert (folder / "model.safetensors").read_bytes() == LARGE
    assert large_hub.ranges("model.safetensors") == ["", f"bytes={10 * MIB}-"]


def test_a_connection_that_keeps_breaking(large_hub: HubServer) -> None:
    """The client tries six times and then deletes what it has. The next call begins this file anew, and no other."""
    large_hub.cut("model.safetensors", after=10 * MIB, always=True)
    with pytest.raises(ModelNotFoundError, match="cannot be fetched: RemoteProtocolError: peer closed"):
        resolve_model(NAME)
    assert large_hub.ranges("model.safetensors") == ["", *[f"bytes={10 * MIB}-"] * 5]
    with pytest.raises(ModelNotFoundError, match=r"in the cache without model\.safetensors, and local_files_only"):
        resolve_model(NAME, local_files_only=True)
    large_hub.cuts.clear()
    large_hub.requests.clear()
    assert (resolve_model(NAME) / "model.safetensors").read_bytes() == LARGE
    assert large_hub.files() == ["model.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk(hub: HubServer, repository: Path) -> None:
    (repository / "model.safetensors").write_bytes(bytes(1 << 16))
    code = f"""
import resource
from gte_np.checkpoint.hub import resolve_model
from gte_np.errors import ModelNotFoundError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, 1 << 15))
try:
    resolve_model({NAME!r})
except ModelNotFoundError as error:
    print(error)
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.stdout.startswith("'owner/model' cannot be fetched: OSError: [Errno"), child.stderr
    assert child.stdout.count("\n") == 1


def test_a_cache_folder_that_cannot_be_made(hub: HubServer, repository: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="'owner/model' cannot be fetched: "):
        resolve_model(NAME, cache_dir=repository / "config.json")


# --- Offline ---


def test_local_files_only(hub: HubServer, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"not in the cache, and local_files_only is set\. .* `hf download own"
    ):
        resolve_model(NAME, local_files_only=True)
    assert hub.requests == []
    folder = resolve_model(NAME)
    hub.requests.clear()
    with caplog.at_level(logging.INFO, "gte_np"):
        assert resolve_model(NAME, local_files_only=True) == folder
    assert hub.requests == []
    assert [(record.name, record.levelname) for record in caplog.records] == [("gte_np", "INFO")]


def test_offline_by_the_environment(hub: HubServer, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = resolve_model(NAME)
    hub.requests.clear()
    with client_environment(home, hub.endpoint, HF_HUB_OFFLINE="1"), caplog.at_level(logging.INFO, "gte_np"):
        assert resolve_model(NAME) == folder
        with pytest.raises(ModelNotFoundError, match="'owner/other' is not in the cache, and HF_HUB_OFFLINE is set"):
            resolve_model("owner/other")
        with pytest.raises(ModelNotFoundError, match=r"at revision 'v2' is not .* Unset it, run .* --revision v2`"):
            resolve_model(NAME, revision="v2")
    assert hub.requests == []
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_an_unreachable_hub(
    hub: HubServer, home: Path, closed_endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = resolve_model(NAME)
    with client_environment(home, closed_endpoint):  # again, since the fixture hub has set another
        assert resolve_model(NAME) == folder
        with pytest.raises(
            ModelNotFoundError, match=r"not in the cache, and the hub cannot be reached \(Conn"
        ) as caught:
            resolve_model("owner/other")
    assert type(caught.value.__cause__).__name__.startswith("Connect")
    assert [(record.name, record.levelname) for record in caplog.records] == [("gte_np", "WARNING")]


def test_a_hub_that_fails_between_two_questions(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the client takes the cached folder as it is, if it keeps no record of what belongs there."""
    from huggingface_hub import hf_hub_download

    hf_hub_download(NAME, "config.json")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between two attempts the client waits
    hub.failures["/tree/"] = (503, "")
    with pytest.raises(ModelNotFoundError, match=r"1_Pooling/config.json, model.safetensors, vocab.txt did not come"):
        resolve_model(NAME)


def test_a_hub_that_is_down(hub: HubServer, caplog: pytest.LogCaptureFixture) -> None:
    folder = resolve_model(NAME)
    for status in (429, 500, 503):
        hub.failures["/"] = (status, "")
        assert resolve_model(NAME) == folder
        assert f"{status}" in caplog.records[-1].getMessage()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3


def test_a_hub_that_never_answers(hub: HubServer, home: Path) -> None:
    folder = resolve_model(NAME)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        end = threading.Timer(8, silent.close)  # for a client that would wait for ever
        end.start()
        with client_environment(home, f"http://127.0.0.1:{silent.getsockname()[1]}", HF_HUB_ETAG_TIMEOUT="1"):
            assert resolve_model(NAME) == folder
        assert end.is_alive()
        end.cancel()
        end.join()


def test_a_cached_folder_that_is_incomplete(hub: HubServer) -> None:
    for name in REPOSITORY:
        (resolve_model(NAME) / name).unlink()
        with pytest.raises(ModelNotFoundError, match=f"is in the cache without {name}, and local_files_only is set"):
            resolve_model(NAME, local_files_only=True)
    assert names_in(resolve_model(NAME)) == sorted(REPOSITORY)


@pytest.mark.parametrize(
    ("cached", "missing"),
    [
        (["config.json", "model.safetensors"], None),
        (["config.json", "pytorch_model.bin"], None),
        (["0_Transformer/config.json", "0_Transformer/pytorch_model.bin"], None),
        (["model.safetensors"], "config.json"),
        (["config.json"], "weights"),
        (["config.json", "model.safetensors.index.json", SAFE_SHARDS[1]], "weights"),
        (["config.json", "2_Dense/config.json", "2_Dense/model.safetensors"], "weights"),
    ],
)
def test_a_cache_without_record(hub: HubServer, repository: Path, cached: list[str], missing: str | None) -> None:
    """Another program, or an older client, has fetched single files."""
    from huggingface_hub import hf_hub_download

    make_repository(repository, *cached)
    for name in cached:
        hf_hub_download(NAME, name)
    if missing is None:
        assert names_in(resolve_model(NAME, local_files_only=True)) == sorted(cached)
    else:
        with pytest.raises(ModelNotFoundError, match=f"is in the cache without {missing}"):
            resolve_model(NAME, local_files_only=True)


def test_without_the_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match="huggingface_hub"):
        resolve_model(NAME)
    assert resolve_model(tmp_path) == tmp_path
