#!/usr/bin/env python3
"""Finds the texts that are nearest to a question: search_corpus.py VECTORS.parquet COLUMN QUESTION

VECTORS is what embed_corpus.py made, and COLUMN its column of texts. Prints the five nearest, the nearest first.
"""

import sys

import duckdb
import idunno
from embed_corpus import MODEL

# The vectors have length 1, so this is the cosine of their angle.
QUERY = """
    SELECT list_dot_product(output::DOUBLE[], $vector::DOUBLE[]) AS similarity, {column}
    FROM read_parquet($file) WHERE output IS NOT NULL
    ORDER BY similarity DESC LIMIT 5
"""


def main(vectors: str, column: str, question: str) -> None:
    (row,) = idunno.connect().run(MODEL, [question]).results()
    quoted = '"' + column.replace('"', '""') + '"'
    found = duckdb.execute(QUERY.format(column=quoted), {"vector": row["output"], "file": vectors}).fetchall()
    for similarity, text in found:
        print(f"{similarity:.3f}  {text}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
