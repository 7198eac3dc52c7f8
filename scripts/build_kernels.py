"""Build the kernels ahead of time: a shared object for each target, with the code of every weight format.

    python -m scripts.build_kernels                              # for all targets, into build/kernels
    python -m scripts.build_kernels --target x86-64-v3 --out DIR

Numba compiles for any target on any machine, and LLVM's linker, in the package ziglang, makes shared objects for
Linux, which use no library and so suit every C library. The same source, Numba and Python give the same bytes.
`setup.py` runs this for a wheel; `gte_np.kernels.runtime.prebuilt` loads what it wrote.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

from gte_np.kernels.runtime.prebuilt import library_name
from gte_np.kernels.runtime.threads import available_processors
from gte_np.kernels.targets import TARGETS

OUT = Path("build/kernels")
# Of LLVM's linker: relocations of code, an executable stack and undefined names are errors; no name of this machine
# or moment gets into the file; the hash tables of both kinds, for every C library.
LINKER = (
    *(sys.executable, "-m", "ziglang", "ld.lld", "-shared", "--no-undefined", "--gc-sections", "--strip-all"),
    *("-z", "text", "-z", "noexecstack", "-z", "relro", "-z", "now", "--build-id=none", "--hash-style=both"),
)


def main() -> None:
    """Run the command line."""
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--target", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    processes = min(available_processors(), len(options.target))
    # New processes, which have compiled nothing and hold no locks of LLVM.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for path in pool.map(build, options.target, repeat(options.out)):
            print(f"{path}  {path.stat().st_size:,} bytes", flush=True)


def build(name: str, folder: Path) -> Path:
    """Compile and link the kernels of a target; return the shared object."""
    from gte_np.kernels.runtime.compile import compile_for_linker, entries

    target = next(target for target in TARGETS if target.name == name)
    path = folder / library_name(target)
    with tempfile.TemporaryDirectory() as temporary:
        objects = [Path(temporary, f"{function}.o") for function in entries(target)]
        for file, (function, entry) in zip(objects, entries(target).items(), strict=True):
            file.write_bytes(compile_for_linker(function, entry, target))
        subprocess.run([*LINKER, "-soname", path.name, "-o", path, *objects], check=True)
    return path


if __name__ == "__main__":
    main()
