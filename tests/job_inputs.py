"""The inputs of jobs: the same rows in each format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TEXTS = ["happy person", "北京", "", "today is\na day", "happy person", 'a "quoted", text', "very long " * 90]
IDS = [f"id-{number}" for number in range(len(TEXTS))]
YEARS = [2000, None, 2002, 2003, 2004, 2005, 2006]


def write_inputs(folder: Path) -> dict[str, Path]:
    """The same rows in each format; .txt has the texts of one line only."""
    folder.mkdir(exist_ok=True)
    rows = [{"body": text, "key": key, "year": year} for text, key, year in zip(TEXTS, IDS, YEARS, strict=True)]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n\n", "utf-8")
    for name, separator in (("rows.csv", ","), ("rows.tsv", "\t")):
        quoted = [
            separator.join(
                '"' + str(value if value is not None else "").replace('"', '""') + '"' for value in row.values()
            )
            for row in rows
        ]
        (folder / name).write_text("\ufeff" + separator.join(rows[0]) + "\r\n" + "\r\n".join(quoted), "utf-8")
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet", row_group_size=3)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress((folder / "rows.jsonl").read_bytes()))
    with pa.CompressedOutputStream(str(folder / "rows.csv.zst"), "zstd") as file:
        file.write((folder / "rows.csv").read_bytes())
    return {path.name.removeprefix("rows."): path for path in folder.iterdir()}
