"""A loaded model whose weights are not mapped needs its files no more: they may be replaced or cut under it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gte_np import EmbeddingModel
from gte_np.kernels.runtime.saved_panels import PANELS_FILES
from tests.checkpoints import dense_model, small_model, write_weights
from tests.programs import run_program

# In a process of its own, which a page that is no longer there would end.
PROGRAM = """
import sys
import numpy as np
from pathlib import Path
from gte_np import BertModel, EmbeddingModel

backend, *folders = sys.argv[1:]
models = [EmbeddingModel(folder, backend=backend) for folder in folders]
berts = [BertModel.from_pretrained(folder, backend=backend) for folder in folders]
results = lambda: [model.encode(["happy person", "that is"]) for model in models] + [
    bert([[2, 9, 17, 3]]).pooler_output for bert in berts
]
before = results()
files = [path for folder in folders for path in Path(folder).rglob("*") if path.suffix in (".safetensors", ".bin")]
assert len(files) >= len(folders)
for change in ("overwritten", "cut"):
    for path in files:
        size = path.stat().st_size
        with path.open("r+b") as file:
            if change == "overwritten":
                file.write(b"\\x3c" * size)
            else:
                file.truncate(0)
    for index, (old, new) in enumerate(zip(before, results())):
        assert np.array_equal(old, new), (change, index)
"""


def model_of(folder: Path, dtype: str, file: str) -> Path:
    small_model(folder)
    (folder / "model.safetensors").unlink()
    write_weights(folder, dtype=dtype, files=(file,))
    return folder


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_files_may_change_after_loading(backend: str, tmp_path: Path) -> None:
    folders = [
        model_of(tmp_path / f"{dtype}-{file}", dtype, file)
        for dtype in ("float32", "float16", "bfloat16")
        for file in ("model.safetensors", "pytorch_model.bin")
    ]
    EmbeddingModel(folders[0], dtype="int8").save_pretrained(tmp_path / "int8")
    EmbeddingModel(folders[0], dtype="bfloat16").save_pretrained(tmp_path / "saved-bfloat16")
    for panels in tmp_path.glob(f"*/{PANELS_FILES}"):  # with them, weights stay mapped: see test_saved_panels
        panels.unlink()
    folders += [tmp_path / "int8", tmp_path / "saved-bfloat16", dense_model(tmp_path / "dense")]
    run_program(PROGRAM, backend, *folders)
