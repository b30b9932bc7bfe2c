#!/usr/bin/env python3
"""Images of a folder become a table of labels: label_images.py MODEL FOLDER TABLE.parquet

Each file of FOLDER is a query. TABLE has a row for each file, in the order of their names: file, label, probability,
and error, which says why a file has no label.
"""

import sys
from pathlib import Path

import idunno
import pyarrow
import pyarrow.parquet

SCHEMA = pyarrow.schema(
    {"file": pyarrow.string(), "label": pyarrow.string(), "probability": pyarrow.float64(), "error": pyarrow.string()}
)


def line(row: idunno.Row, dataset: str) -> dict:
    """A row of results as a line of the table. The store has the files below the name of the dataset."""
    best = row["output"]["top5"][0] if "output" in row else {"label": None, "probability": None}
    return {
        "file": row["name"].removeprefix(dataset + "/"),
        "label": best["label"],
        "probability": best["probability"],
        "error": row.get("error"),
    }


def main(model: str, folder: str, table: str) -> None:
    client = idunno.connect()
    job = client.run(model, Path(folder))
    print(f"{job.id}: it survives the end of this program", file=sys.stderr)
    dataset = job.stats["dataset"]
    lines = [line(row, dataset) for row in job.results()]
    lines.sort(key=lambda one: one["file"])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(lines, SCHEMA), table)
    failed = sum(one["error"] is not None for one in lines)
    print(f"{len(lines) - failed} of {len(lines)} images labelled, {failed} failed: {table}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
