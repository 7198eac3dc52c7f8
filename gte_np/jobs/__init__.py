"""Jobs: files of texts to files of vectors, resumable, with the same bytes however they were run.

Read in this order: `rows` (what is read from a record), `inputs`, `input_formats` and `input_files` (files to chunks
of records), `parts` (rows and vectors to files), `workspace` (the folder of a job: its lock, its journal, its
manifest), `vector_cache` (equal texts once), `job` (what a shard is made of), `run` (the work), `spread` (the same,
by many processes), `stream` (to standard output), `results` (a finished output), `search` and `verify`.

An input is divided into *chunks* of records, each of which becomes a *shard* of the output: one or more files that
are written whole. A line of the journal names a shard that is finished; when all are, the manifest takes its place.

    corpus.jsonl   [ rows 0 .. 2047 | rows 2048 .. 4095 | rows 4096 .. 4999 ]      chunks
                          |                  |                   |
    vectors/         part-000000.npy   part-000001.npy     part-000002.npy         shards, each with its .rows.jsonl
                     journal.jsonl, and in the end manifest.json

An output that is one file is made of the shards in the folder `FILE.parts`, which is removed afterwards.
"""

from gte_np.jobs.job import ON_ERROR, ROWS_PER_SHARD, Job, JobOptions
from gte_np.jobs.results import Results, model_of
from gte_np.jobs.run import Progress, Report, Summary, run_job
from gte_np.jobs.search import Hit, search
from gte_np.jobs.spread import check_spread
from gte_np.jobs.stream import stream_format, stream_job
from gte_np.jobs.verify import verify
from gte_np.jobs.workspace import Place, reserved

__all__ = [
    "ON_ERROR",
    "ROWS_PER_SHARD",
    "Hit",
    "Job",
    "JobOptions",
    "Place",
    "Progress",
    "Report",
    "Results",
    "Summary",
    "check_spread",
    "model_of",
    "reserved",
    "run_job",
    "search",
    "stream_format",
    "stream_job",
    "verify",
]
