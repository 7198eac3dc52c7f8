"""Models that are saved, and loaded again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gte_np import CheckpointError, EmbeddingModel, InputError
from gte_np.architectures.tensors import INT8_FILE, WORDS, scale_of
from gte_np.checkpoint.safetensors import read_safetensors
from gte_np.cli import main
from gte_np.formats.stored_tensor import StoredTensor
from gte_np.saving import write_safetensors
from tests.checkpoints import small_model, write_modules
from tests.compiled import same_bits
from tests.layouts import write_layout
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
        assert (file.name == INT8_FILE) == (dtype == "int8")
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
    name = scale_of(WORDS)
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
    file = tmp_path / "saved" / INT8_FILE
    tensors = {
        name: StoredTensor(tensor.dtype, tensor.data.copy()) for name, tensor in read_safetensors(file).items()
    }
    break_scales(tensors, how)
    write_safetensors(tensors, file)
    with pytest.raises(CheckpointError, match="word_embeddings"):
        EmbeddingModel(tmp_path / "saved")


def test_integers_in_an_ordinary_file_are_an_error(folder: Path, tmp_path: Path) -> None:
    EmbeddingModel(folder, dtype="int8").save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / INT8_FILE).rename(tmp_path / "saved" / "model.safetensors")
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
    assert out.startswith(f"{saved / INT8_FILE}: ")
    assert ", int8 (was " in out
    assert main(["embed", str(saved), str(folder / "config.json"), "-o", str(tmp_path / "vectors.npy")]) == 0
    assert main(["quantize", str(folder), "--dtype", "bfloat16", "-o", str(tmp_path / "half")]) == 0
    assert EmbeddingModel(tmp_path / "half").bert.dtype == "bfloat16"
    capsys.readouterr()
    assert main(["quantize", str(folder), "-o", str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "file").write_text("", "utf-8")
    assert main(["quantize", str(folder), "-o", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
