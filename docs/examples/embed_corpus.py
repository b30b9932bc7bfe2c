#!/usr/bin/env python3
"""Texts become vectors: embed_corpus.py CORPUS.parquet COLUMN VECTORS.parquet

COLUMN is the column of texts in CORPUS. VECTORS gets a row for each text, in their order: the number of its row in
CORPUS in the column `query`, counted from 0, and its vector in `output`. This program holds no row in memory.
"""

import sys
from pathlib import Path

import idunno

MODEL = "all-minilm-l6-v2"


def main(corpus: str, column: str, vectors: str) -> None:
    client = idunno.connect()
    job = client.run(MODEL, Path(corpus), input_column=column)
    print(f"{job.id}: it survives the end of this program", file=sys.stderr)
    stats = job.wait()
    client.command("get-job-results", "--format", "parquet", "--force", "--", job.id, vectors)
    print(f"{stats['done']} of {stats['submitted']} texts embedded, {stats['dead_letters']} failed: {vectors}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
