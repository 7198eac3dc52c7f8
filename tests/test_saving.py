"""Models that are saved, and loaded again."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from gte_np import CheckpointError, EmbeddingModel, InputError
from gte_np.architectures.tensors import WORDS
from gte_np.checkpoint.safetensors import read_safetensors
from gte_np.cli import main
from gte_np.files import _exchange
from gte_np.formats.int8 import INT8, SCALE
from gte_np.formats.stored_tensor import StoredTensor
from gte_np.saving import write_safetensors
from tests.checkpoints import small_model, write_json, write_modules, write_weights
from tests.compiled import same_bits
from tests.layouts import write_layout
from tests.programs import run_program
from tests.texts import ORDINARY

DTYPES = ("float32", "bfloat16", "int8")
NAMES = ("thenlper/gte-large-zh", "thenlper/gte-small", "infgrad/stella-base-zh", "BAAI/bge-small-zh-v1.5")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_saved_model_gives_the_same_bits(name: str, dtype: str, tmp_path: Path) -> None:
    model = EmbeddingModel(write_layout(name, tmp_path / "published"), dtype=dtype)
    model.save_pretrained(tmp_path / "saved")
    again = EmbeddingModel(tmp_path / "saved")
    assert again.bert.dtype == dtype
    assert same_bits(again.encode(ORDINARY), model.encode(ORDINARY))
    assert same_bits(again.encode_query(ORDINARY[:2]), model.encode_query(ORDINARY[:2]))
    assert again.max_seq_length == model.max_seq_length
    assert again.similarity_fn_name == model.similarity_fn_name


def test_what_was_set_is_saved(folder: Path, tmp_path: Path) -> None:
    model = EmbeddingModel(folder, prompts={"query": "find: "}, default_prompt_name="query", pooling="cls")
    model.max_seq_length, model.similarity_fn_name = 7, "dot"
    model.save_pretrained(tmp_path / "new" / "saved")
    again = EmbeddingModel(tmp_path / "new" / "saved")
    assert (again.max_seq_length, again.similarity_fn_name) == (7, "dot")
    assert (again.prompts["query"], again.default_prompt_name) == ("find: ", "query")
    assert again.pooling_modes == ("cls",)
    assert same_bits(again.encode(ORDINARY), model.encode(ORDINARY))


@pytest.mark.parametrize("modes", [["mean", "cls"], ["cls", "mean"]])
def test_several_poolings_keep_their_order(modes: list[str], folder: Path, tmp_path: Path) -> None:
    write_modules(folder, {"pooling_mode": modes, "embedding_dimension": 32}, "Normalize")
    model = EmbeddingModel(folder)
    model.save_pretrained(tmp_path / "saved")
    assert EmbeddingModel(tmp_path / "saved").pooling_modes == tuple(modes)


def test_files_are_as_large_as_their_values(tmp_path: Path) -> None:
    published = small_model(tmp_path / "published", hidden_size=128, intermediate_size=512, num_attention_heads=4)
    sizes = {}
    for dtype in DTYPES:
        EmbeddingModel(published, dtype=dtype).save_pretrained(tmp_path / dtype)
        (file,) = (tmp_path / dtype).glob("*.safetensors")
        assert (file.name == INT8.file) == (dtype == "int8")
        sizes[dtype] = file.stat().st_size
    assert sizes["bfloat16"] / sizes["float32"] == pytest.approx(0.5, abs=0.05)
    assert sizes["int8"] / sizes["float32"] == pytest.approx(0.25, abs=0.08)  # scales, biases and layer norms


def test_bfloat16_files_are_a_checkpoint_like_any_other(folder: Path, tmp_path: Path) -> None:
    model = EmbeddingModel(folder, dtype="bfloat16")
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text("utf-8"))["torch_dtype"] == "bfloat16"
    in_float32 = EmbeddingModel(tmp_path / "saved", dtype="float32")
    assert in_float32.bert.dtype == "float32"
    cosines = (in_float32.encode(ORDINARY) * model.encode(ORDINARY)).sum(axis=1)
    assert cosines.min() > 0.999
    assert EmbeddingModel(tmp_path / "saved", dtype="int8").bert.dtype == "int8"


def test_int8_weights_have_no_other_dtype(folder: Path, tmp_path: Path) -> None:
    EmbeddingModel(folder, dtype="int8").save_pretrained(tmp_path / "saved")
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(InputError, match=f"dtype int8 or None .* got {dtype}"):
            EmbeddingModel(tmp_path / "saved", dtype=dtype)


def test_int8_is_refused_where_sums_could_overflow(tmp_path: Path) -> None:
    published = small_model(tmp_path, hidden_size=4, num_attention_heads=1, intermediate_size=65794)
    with pytest.raises(InputError, match="at most 65793 features"):
        EmbeddingModel(published, dtype="int8")
    assert EmbeddingModel(published, dtype="bfloat16").bert.dtype == "bfloat16"


def test_the_folder_that_it_came_from_is_not_overwritten(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="another folder"):
        EmbeddingModel(folder).save_pretrained(folder / ".." / folder.name)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def break_scales(tensors: dict[str, StoredTensor], how: str) -> None:
    """Damage the scales of the words."""
    name = WORDS + SCALE
    if how == "missing":
        del tensors[name]
    elif how == "nan":
        tensors[name] = StoredTensor("float32", np.full_like(tensors[name].data, np.nan))
    elif how == "shape":
        tensors[name] = StoredTensor("float32", tensors[name].data[:-1])
    else:
        tensors[name] = StoredTensor("float16", tensors[name].data.astype(np.float16))


@pytest.mark.parametrize("how", ["missing", "nan", "shape", "dtype"])
def test_damaged_scales_are_an_error(how: str, folder: Path, tmp_path: Path) -> None:
    EmbeddingModel(folder, dtype="int8").save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / INT8.file
    tensors = {
        name: StoredTensor(tensor.dtype, tensor.data.copy()) for name, tensor in read_safetensors(file).items()
    }
    break_scales(tensors, how)
    write_safetensors(tensors, file)
    with pytest.raises(CheckpointError, match="word_embeddings"):
        EmbeddingModel(tmp_path / "saved")


def test_integers_in_an_ordinary_file_are_an_error(folder: Path, tmp_path: Path) -> None:
    EmbeddingModel(folder, dtype="int8").save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / INT8.file).rename(tmp_path / "saved" / "model.safetensors")
    with pytest.raises(CheckpointError, match="is int8, not one of float32"):
        EmbeddingModel(tmp_path / "saved")


def test_an_unknown_dtype_in_the_configuration_is_an_error(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"gte_np_dtype": "int4"}), "utf-8")
    with pytest.raises(CheckpointError, match="gte_np_dtype"):
        EmbeddingModel(folder)


def test_quantize_on_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "saved"
    assert main(["quantize", str(folder), "-o", str(saved)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{saved / INT8.file}: ")
    assert ", int8 (was " in out
    texts = tmp_path / "texts.txt"
    texts.write_text("happy person", "utf-8")
    assert main(["embed", str(saved), str(texts), "-o", str(tmp_path / "vectors.npy")]) == 0
    assert main(["quantize", str(folder), "--dtype", "bfloat16", "-o", str(tmp_path / "half")]) == 0
    assert EmbeddingModel(tmp_path / "half").bert.dtype == "bfloat16"
    capsys.readouterr()
    assert main(["quantize", str(folder), "-o", str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "file").write_text("", "utf-8")
    assert main(["quantize", str(folder), "-o", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- a folder that is whole or not there ------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A model of the same shapes as `folder`, of other weights in another format, and with a Dense module."""
    folder = small_model(tmp_path / "other")
    (folder / "model.safetensors").unlink()
    write_weights(folder, files=["pytorch_model.bin"], seed=1)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("dtypes", [("float32", "int8"), ("int8", "float32"), ("float32", "float32")])
def test_a_model_replaces_another(dtypes: tuple[str, str], folder: Path, other: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    EmbeddingModel(other, dtype=dtypes[0]).save_pretrained(saved)
    model = EmbeddingModel(folder, dtype=dtypes[1])
    model.save_pretrained(tmp_path / "alone")
    model.save_pretrained(saved)
    assert contents(saved) == contents(tmp_path / "alone")
    assert same_bits(EmbeddingModel(saved).encode(ORDINARY), model.encode(ORDINARY))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_all_of_the_replaced_model_goes(folder: Path, tmp_path: Path) -> None:
    """Its shards, its modules and its limits, too."""
    saved = tmp_path / "saved"
    model = EmbeddingModel(folder)
    model.save_pretrained(saved)
    for name in (
        *("pytorch_model-00001-of-00002.bin", "model.safetensors.index.json", "sentence_roberta_config.json"),
        *("tokenizer.json", "0_Transformer/model.safetensors", "2_Dense/config.json"),
    ):
        (saved / name).parent.mkdir(exist_ok=True)
        (saved / name).write_text("old", "utf-8")
    model.save_pretrained(saved)
    model.save_pretrained(tmp_path / "alone")
    assert contents(saved) == contents(tmp_path / "alone")
    assert {path.name for path in saved.iterdir()} == {path.name for path in (tmp_path / "alone").iterdir()}


def test_what_the_user_keeps_in_the_folder_stays(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "saved"
    model = EmbeddingModel(folder)
    model.save_pretrained(saved)
    own = ("README.md", ".git/HEAD", "onnx/model.safetensors", "model-of-may.safetensors", "2_notes/config.json")
    for name in own:
        (saved / name).parent.mkdir(exist_ok=True)
        (saved / name).write_text(f"the user's {name}", "utf-8")
    (saved / "link").symlink_to("README.md")
    for _ in range(2):
        model.save_pretrained(saved)
        assert [(saved / name).read_text("utf-8") for name in own] == [f"the user's {name}" for name in own]
        assert (saved / "link").readlink() == Path("README.md")
        monkeypatch.setattr("os.link", refuse)  # the second time, without hard links


def refuse(*arguments: object, **options: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.skipif(sys.platform == "win32", reason="modes and links are others there")
def test_a_replaced_folder_keeps_its_mode_and_its_links(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir(mode=0o750)
    (tmp_path / "link").symlink_to("saved")
    (tmp_path / "dangling").symlink_to("new")
    EmbeddingModel(folder).save_pretrained(tmp_path / "link")
    EmbeddingModel(folder).save_pretrained(tmp_path / "dangling")
    assert (tmp_path / "link").readlink() == Path("saved")
    assert (tmp_path / "saved").stat().st_mode & 0o777 == 0o750
    assert contents(tmp_path / "saved") == contents(tmp_path / "new")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "new").rglob("*") if path.is_file()}
    umask = os.umask(0)
    os.umask(umask)
    assert modes == {0o666 & ~umask}


def test_a_folder_of_other_things_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("all my work", "utf-8")
    with pytest.raises(InputError, match="new or an empty folder, or the folder of a model"):
        EmbeddingModel(folder).save_pretrained(tmp_path / "thesis")
    assert contents(tmp_path / "thesis") == {"chapter.txt": b"all my work"}


@pytest.mark.parametrize("where", ["model", "model/new", "model/1_Pooling", ".", "link", "link/new"])
def test_neither_in_the_source_nor_around_it(where: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    write_json(tmp_path / "config.json", {})  # else the folder around it is none to replace
    before = contents(tmp_path)
    with pytest.raises(InputError, match="another folder than the one that the model was loaded from"):
        EmbeddingModel(folder).save_pretrained(tmp_path / where)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("where", [".", ".."])
def test_the_working_directory_stays(
    where: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "around" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "around" / "here")
    with pytest.raises(InputError, match="not the working directory"):
        EmbeddingModel(folder).save_pretrained(where)


def test_a_folder_that_cannot_be_written_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = EmbeddingModel(folder)
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(InputError, match="expected a folder to write to, got the file"):
        model.save_pretrained(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match=re.escape(repr(str(tmp_path / "file" / "saved")))):
        model.save_pretrained(tmp_path / "file" / "saved")
    monkeypatch.setattr(Path, "mkdir", refuse)  # as in a folder that is read-only
    with pytest.raises(PermissionError, match=re.escape(repr(str(tmp_path / "saved")))):
        model.save_pretrained(tmp_path / "saved")


FULL_DISK = """
import resource, sys
from gte_np import EmbeddingModel
model = EmbeddingModel(sys.argv[1], backend="numpy", dtype=sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
try:
    model.save_pretrained(sys.argv[2])
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of the size of files")
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 5000), ("int8", 5000), ("int8", 100)])
def test_a_full_disk_leaves_the_old_model(dtype: str, limit: int, folder: Path, other: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    EmbeddingModel(other, dtype="int8").save_pretrained(saved)
    before = contents(saved)
    said = run_program(FULL_DISK, folder, saved, dtype, str(limit))
    assert "File too large" in said
    assert repr(str(saved)) in said
    assert ".part" not in said
    assert contents(saved) == before
    assert {path.name for path in tmp_path.iterdir()} == {"model", "other", "saved"}


# Children that save one model after the other are killed, some at any time and some before each step that they take
# in the file system. Each leaves one of the models, whole.
KILLED = """
import itertools, os, random, shutil, signal, sys, time
from pathlib import Path
from gte_np import EmbeddingModel

saved, way, *sources = sys.argv[1:]
saved = Path(saved)
if way == "two renames":
    from gte_np import files
    files._exchange = lambda first, second: False
texts = ["happy person", "北京"]
models = [EmbeddingModel(sources[0], backend="numpy"), EmbeddingModel(sources[1], backend="numpy", dtype="int8")]
vectors = [model.encode(texts).tobytes() for model in models]
models[0].save_pretrained(saved)
(saved / "README.md").write_text("the user's")
begin = time.perf_counter()
models[1].save_pretrained(saved)
duration = time.perf_counter() - begin

def die_before_step(last):
    steps, names = itertools.count(), ("os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "ctypes.dlsym")
    sys.addaudithook(lambda name, _: name in names and next(steps) == last and os.kill(os.getpid(), signal.SIGKILL))

found = set()
for turn in range(80):
    child = os.fork()
    if not child:
        if turn % 2:
            die_before_step(turn // 2)
        while True:
            for model in models:
                model.save_pretrained(saved)
    if turn % 2 == 0:
        time.sleep(random.uniform(0, 3 * duration))
        os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    if way == "two renames":  # between which the old folder is aside
        if not saved.exists():
            (old,) = saved.parent.glob(f".{saved.name}.*.old")
            old.rename(saved)
        for leftover in saved.parent.glob(f".{saved.name}.*"):
            shutil.rmtree(leftover)
    assert (saved / "README.md").read_text() == "the user's"
    found.add(vectors.index(EmbeddingModel(saved, backend="numpy").encode(texts).tobytes()))
assert all(path.suffix in (".part", ".old") for path in saved.parent.iterdir() if path.name.startswith("."))
print(sorted(found))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no fork")
@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_a_kill_leaves_the_old_model_or_the_new_one(way: str, folder: Path, other: Path, tmp_path: Path) -> None:
    assert run_program(KILLED, tmp_path / "saved", way, other, folder) == "[0, 1]\n"


@pytest.mark.skipif(sys.platform == "win32", reason="has no such call")
def test_two_folders_change_places(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name, "utf-8")
    assert _exchange(tmp_path / "first", tmp_path / "second")
    assert contents(tmp_path) == {"first/file": b"second", "second/file": b"first"}
    assert not _exchange(tmp_path / "first", tmp_path / "missing")


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_leaves_the_old_model(
    failing: int, folder: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "saved"
    model = EmbeddingModel(folder)
    EmbeddingModel(other).save_pretrained(saved)
    before = contents(saved)
    rename, calls = Path.rename, []

    def fail_once(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == 1 + failing:  # the first finds the old folder in the way
            refuse()
        return rename(path, target)

    monkeypatch.setattr("gte_np.files._exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(PermissionError, match=re.escape(repr(str(saved)))):
        model.save_pretrained(saved)
    assert contents(saved) == before
    assert {path.name for path in tmp_path.iterdir()} == {"model", "other", "saved"}
