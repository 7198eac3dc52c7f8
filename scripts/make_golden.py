"""Make tests/golden with transformers and sentence-transformers: `python -m scripts.make_golden`.

Needs the packages of the extra "parity" and the model of `scripts.fetch_minilm`. The manifest has the versions that
made the arrays, and the hash of each file.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gte_np import KNOWN_MODELS
from scripts import oracle
from scripts.fetch_minilm import FOLDER as MINILM
from tests import samples
from tests.checkpoints import CHINESE, small_model
from tests.layouts import write_layout
from tests.samples import GOLDEN
from tests.texts import generated


def main() -> None:
    """Make all golden files and their manifest."""
    oracle.go_offline()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save("minilm", **minilm())
        save("bert_output", **bert_output(small_model(folder / "small")))
        save("layouts", **layouts(folder))
        save("shapes", **shapes(folder))
    token_hashes = {
        name: samples.hashes(oracle.token_ids(oracle.load_tokenizer(path), list(generated(samples.GENERATED_TEXTS))))
        for name, path in (("all-MiniLM-L6-v2", MINILM), ("bert-base-chinese", CHINESE))
    }
    (GOLDEN / "token_ids.json").write_text(json.dumps(token_hashes, indent=1) + "\n")
    write_manifest()


def save(name: str, **arrays: Any) -> None:
    """Write one .npz file."""
    np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)
    print(name, (GOLDEN / f"{name}.npz").stat().st_size, "bytes")


def minilm() -> dict[str, Any]:
    """Vectors and token counts of texts; hidden states of each layer at the first, middle and last token."""
    model = oracle.load_bert(MINILM)
    arrays = {"vectors": oracle.load_sentence_transformer(MINILM).encode(samples.MINILM_TEXTS)}
    for length in samples.MINILM_LENGTHS:
        states = oracle.hidden_states(model, samples.ids_of_length(length, model.config.vocab_size))
        arrays[f"states_{length}"] = states[:, [0, length // 2, length - 1]]
    return arrays


def bert_output(folder: Path) -> dict[str, Any]:
    """Everything that a small BertModel gives for padded texts, one of them padded on the left."""
    random = np.random.default_rng(1)
    ids = random.integers(5, 200, (4, 11))
    mask = np.ones_like(ids)
    mask[1, 6:] = mask[2, 1:] = mask[3, :4] = 0
    types = (random.random(ids.shape) < 0.3).astype(np.int64)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    output = oracle.bert_output(oracle.load_bert(folder), **inputs)
    return inputs | {
        "last_hidden_state": output.last_hidden_state.numpy(),
        "pooler_output": output.pooler_output.numpy(),
        "hidden_states": np.stack([layer.numpy() for layer in output.hidden_states]),
        "attentions": np.stack([layer.numpy() for layer in output.attentions]),
    }


def layouts(folder: Path) -> dict[str, Any]:
    """sentence-transformers' vectors for the small checkpoint of each known model."""
    return {
        name: oracle.load_sentence_transformer(write_layout(name, folder / name)).encode(samples.LAYOUT_TEXTS)
        for name in KNOWN_MODELS
    }


def shapes(folder: Path) -> dict[str, Any]:
    """sentence-transformers' vectors for checkpoints of the exact shapes of the Chinese GTE models."""
    texts = [samples.chinese_text(length) for length in samples.SHAPE_LENGTHS]
    return {
        name: oracle.load_sentence_transformer(samples.write_shape(name, folder / name)).encode(texts)
        for name in samples.SHAPES
    }


def write_manifest() -> None:
    """Write what made the golden files, and their hashes."""
    files = sorted(path for path in GOLDEN.iterdir() if path.name != "manifest.json")
    manifest = {
        "made by": "python -m scripts.make_golden",
        "versions": oracle.versions(),
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
    (GOLDEN / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
