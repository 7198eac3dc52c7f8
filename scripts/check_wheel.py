"""Install a wheel in an empty environment, and check that it runs there: python -m scripts.check_wheel WHEEL.

The environment gets the wheel and what it requires, nothing else. Neither Numba nor LLVM may be there, none of the
modules in `FOREIGN` may be imported to encode texts, the kernels must be those of the wheel, and the vectors those of
this checkout's, bit for bit. Prints what was checked and the size of the packages, in megabytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gte_np import EmbeddingModel
from scripts.fetch_minilm import FOLDER

FOREIGN = ("numba", "llvmlite", "huggingface_hub", "torch", "transformers")
TEXTS = ["How many people live in London?", "北京", "a", "word " * 300]
DTYPES = ("float32", "bfloat16", "int8")

# Runs in the environment: prints what is imported, which kernels are used, and the bits of the vectors.
PROGRAM = f"""
import json, sys
from gte_np import EmbeddingModel
from gte_np.doctor import report
vectors = {{}}
for dtype in {DTYPES!r}:
    model = EmbeddingModel(sys.argv[1], dtype=dtype, backend="numba")
    vectors[dtype] = model.encode({TEXTS!r}).tobytes().hex()
foreign = [name for name in {FOREIGN!r} if name in sys.modules]
print(json.dumps({{"foreign": foreign, "kernels": report()["kernels"], "vectors": vectors}}))
"""


def main() -> int:
    """Run the command line; return 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wheel", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        packages = Path(temporary, "packages")
        install(options.wheel.resolve(), packages)
        found = run(packages)
        size = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file()) / 1e6
        installed = sorted(path.name.split("-")[0] for path in packages.glob("*.dist-info"))
    problems = list(differences(found, installed))
    print(f"installed: {', '.join(installed)}: {size:.1f} MB")
    print(f"kernels: {found['kernels']}")
    print("\n".join(problems) or "the vectors are those of this checkout, bit for bit, in " + ", ".join(DTYPES))
    return int(bool(problems))


def install(wheel: Path, packages: Path) -> None:
    """Install a wheel and what it requires into an empty folder."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-warn-conflicts", "--target", str(packages)]
    subprocess.run([*command, str(wheel)], check=True)


def run(packages: Path) -> dict[str, Any]:
    """What `PROGRAM` prints, of a Python that sees these packages and no others."""
    start = f"import sys; sys.path.insert(0, {str(packages)!r})"
    command = [sys.executable, "-I", "-S", "-c", start + PROGRAM, str(FOLDER.resolve())]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


def differences(found: dict[str, Any], installed: list[str]) -> list[str]:
    """What is not as it should be, a sentence each."""
    problems = [f"{name} was imported" for name in found["foreign"]]
    problems += [f"{name} was installed" for name in ("numba", "llvmlite") if name in installed]
    if "built ahead of time" not in found["kernels"]:
        problems.append("the kernels are not those of the wheel")
    for dtype in DTYPES:
        vectors = EmbeddingModel(FOLDER, dtype=dtype, backend="numba").encode(TEXTS)
        if np.asarray(vectors).tobytes().hex() != found["vectors"][dtype]:
            problems.append(f"the vectors in {dtype} are others than those of this checkout")
    return problems


if __name__ == "__main__":
    sys.exit(main())
