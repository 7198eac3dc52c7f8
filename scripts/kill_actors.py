"""Kill the actors of jobs on Ray at random, and compare the bytes: python -m scripts.kill_actors.

A job with a model of two layers is done in one process, and then by actors of a Ray on this machine, one of which is
killed every few seconds. The outputs must be the same, file by file. Needs the extra "ray"; Linux only.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from scripts.fetch_minilm import FOLDER as MINILM
from scripts.interrupt_jobs import digests
from tests.checkpoints import two_layers

ACTOR = "ray::MapWorker(MapBatches(ShardWorker)"  # as Ray names the process of an actor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rows-per-shard", type=int, default=1000)
    parser.add_argument("--actors", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seconds", type=float, default=4, help="between two kills, on average")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        work = Path(folder)
        two_layers(work / "model", MINILM)
        write_texts(work / "texts.txt", options.rows)
        command = [sys.executable, "-m", "gte_np", "embed", str(work / "model"), str(work / "texts.txt")]
        command += ["--rows-per-shard", str(options.rows_per_shard)]
        subprocess.run([*command, "-o", f"{work}/one/"], check=True)
        failed = False
        for actors in options.actors:
            on_ray = [*command, "-o", f"{work}/{actors}/", "--threads", "1", "--actors", str(actors), "--ray"]
            kills = run_and_kill(on_ray, options.seconds, Random(options.seed))
            same = digests(work / str(actors)) == digests(work / "one")
            print(f"{actors} actors: {kills} killed, the output is {'the same' if same else 'ANOTHER ONE'}")
            failed = failed or not same
    return int(failed)


def write_texts(path: Path, rows: int) -> None:
    """Write texts of 2 to 12 words, some of which are there twice."""
    words = [word for word in (MINILM / "vocab.txt").read_text("utf-8").split() if word.isalpha() and word.isascii()]
    random = Random(0)
    texts = [" ".join(random.choices(words, k=random.randint(2, 12))) for _ in range(rows)]
    for _ in range(rows // 20):
        texts[random.randrange(rows)] = texts[random.randrange(rows)]
    path.write_text("".join(f"{text}\n" for text in texts), "utf-8")


def run_and_kill(command: Sequence[str], seconds: float, random: Random) -> int:
    """Run a job, and kill one of its actors now and then; return how many were killed. Raises if the job fails."""
    process = subprocess.Popen(command)
    kills = 0
    while True:
        try:
            process.wait(random.uniform(0.5, 1.5) * seconds)
            break
        except subprocess.TimeoutExpired:
            actors = sorted(actors_of(process.pid))
            if actors:
                os.kill(random.choice(actors), signal.SIGKILL)
                kills += 1
    if process.returncode:
        raise SystemExit(f"the job has failed with status {process.returncode}")
    return kills


def actors_of(driver: int) -> Iterator[int]:
    """The processes of actors below a process."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has ended
            continue
    for number, name in names.items():
        above = number
        while above not in (0, driver):
            above = parents.get(above, 0)
        if above == driver and name.startswith(ACTOR):
            yield number


if __name__ == "__main__":
    begin = time.monotonic()
    status = main()
    print(f"{time.monotonic() - begin:.0f} s")
    sys.exit(status)
