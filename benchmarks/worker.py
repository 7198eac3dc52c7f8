"""A process that has loaded one engine and runs what it is told: one JSON object a line, in and out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.engines import ENGINES
from benchmarks.workloads import workloads

ROOT = Path(__file__).resolve().parent.parent


class Worker:
    """The other side's view of such a process, which runs in the checkout `root`, with more environment variables."""

    root, variables = ROOT, dict[str, str]()

    def __init__(self, engine: str, model: str, folder: Path, threads: int, cache: Path) -> None:
        self.engine = engine
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": str(threads),
            "TRANSFORMERS_VERBOSITY": "error",
            "TQDM_DISABLE": "1",
            "NUMBA_CACHE_DIR": str(cache),
            **self.variables,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", engine, model, str(folder), str(threads)],
            cwd=self.root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.load: dict[str, float] = self._answer()

    def run(self, workload: str, batch_size: int, repeat: int = 1, text: bool = False) -> list[float]:
        """Seconds of each run."""
        return self._ask(workload=workload, batch_size=batch_size, repeat=repeat, text=text)["seconds"]

    def vectors(self, workload: str) -> NDArray[np.float32]:
        """What the engine gives for a workload."""
        return np.array(self._ask(workload=workload, batch_size=8, vectors=True)["vectors"], np.float32)

    def memory(self) -> dict[str, float]:
        """Peak and present resident memory, in megabytes."""
        return self._ask(memory=True)

    def close(self) -> None:
        """End the process."""
        self.process.communicate()

    def _ask(self, **question: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.engine}: the process ended with status {self.process.wait()}")


def memory() -> dict[str, float]:
    """Peak and present resident memory of this process, in megabytes (Linux)."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmHWM", "VmRSS"))}
    return {"peak": kilobytes["VmHWM"] / 1000, "steady": kilobytes["VmRSS"] / 1000}


def main(name: str, model: str, folder: Path, threads: int) -> None:
    """Load an engine, then answer until the input ends."""
    start = time.perf_counter()
    engine = ENGINES[name](folder, threads)
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
    loads = workloads(model, folder)
    for line in sys.stdin:
        question = json.loads(line)
        if "memory" in question:
            answer: dict[str, Any] = memory()
        elif "vectors" in question:
            answer = {"vectors": engine.encode_ids(loads[question["workload"]].ids, 8).tolist()}
        else:
            answer = {"seconds": [_seconds(engine, loads, question) for _ in range(question["repeat"])]}
        print(json.dumps(answer), flush=True)


def _seconds(engine: Any, loads: Any, question: dict[str, Any]) -> float:
    workload = loads[question["workload"]]
    start = time.perf_counter()
    if question["text"]:
        engine.encode_texts(workload.texts, question["batch_size"])
    else:
        engine.encode_ids(workload.ids, question["batch_size"])
    return time.perf_counter() - start


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
