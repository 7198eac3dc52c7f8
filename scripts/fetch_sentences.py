"""Fetch real sentences from PyPI: tweets, film reviews, newspaper editorials, product reviews.

The package vaderSentiment 0.5 (MIT) carries the sentences of Hutto and Gilbert, "VADER" (ICWSM 2014). It is taken as
data: nothing of it is installed or run, and the files must have the hashes below.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "vaderSentiment==0.5"
ARCHIVE = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
SHA256 = {
    "amazonReviewSnippets_GroundTruth.txt": "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2",
    "movieReviewSnippets_GroundTruth.txt": "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
    "nytEditorialSnippets_GroundTruth.txt": "7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e",
    "tweets_GroundTruth.txt": "dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f",
}
EACH = 750  # sentences of each file
FILE = Path(__file__).resolve().parent.parent / ".models" / "sentences.json"


def main() -> int:
    """Write the sentences, unless they are there; print where they are."""
    if not FILE.is_file():
        with tempfile.TemporaryDirectory() as temporary:
            files = unpack(download(Path(temporary)))
        if {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} != SHA256:
            print(f"{PACKAGE}: the files do not have the expected hashes", file=sys.stderr)
            return 1
        sentences = [sentence for content in files.values() for sentence in sentences_of(content)]
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(json.dumps(sentences, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    print(FILE)
    return 0


def download(folder: Path) -> Path:
    """Download the package's archive, and nothing that it depends on."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--dest", str(folder), PACKAGE], check=True)
    return next(folder.glob("vaderSentiment*"))


def unpack(package: Path) -> dict[str, bytes]:
    """The content of each file for which there is a hash."""
    with zipfile.ZipFile(package) as outer, tarfile.open(fileobj=io.BytesIO(outer.read(ARCHIVE))) as archive:
        files = {name: archive.extractfile(f"hutto_ICWSM_2014/{name}") for name in SHA256}
        return {name: file.read() for name, file in files.items() if file is not None}


def sentences_of(content: bytes) -> list[str]:
    """The first sentences of a file: the third column of lines of tab-separated values."""
    lines = content.decode("latin-1").splitlines()
    return [line.split("\t")[2].strip() for line in lines[:EACH]]


if __name__ == "__main__":
    sys.exit(main())
