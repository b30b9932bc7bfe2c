#!/usr/bin/env python3
"""Finds the texts that are nearest to a question: search_corpus.py CORPUS.parquet COLUMN VECTORS.parquet QUESTION

VECTORS is what embed_corpus.py made of CORPUS. Prints the five nearest texts, the nearest first.
"""

import sys

import duckdb
import idunno
from embed_corpus import MODEL

# The vectors have length 1, so this is the cosine of their angle.
QUERY = """
    SELECT list_dot_product(output::DOUBLE[], $vector::DOUBLE[]) AS similarity, corpus.{column}
    FROM read_parquet($vectors) AS vectors
    JOIN read_parquet($corpus, file_row_number = true) AS corpus ON vectors.query = corpus.file_row_number
    WHERE output IS NOT NULL ORDER BY similarity DESC LIMIT 5
"""


def main(corpus: str, column: str, vectors: str, question: str) -> None:
    (row,) = idunno.connect().run(MODEL, [question]).results()
    quoted = '"' + column.replace('"', '""') + '"'
    given = {"vector": row["output"], "vectors": vectors, "corpus": corpus}
    found = duckdb.execute(QUERY.format(column=quoted), given).fetchall()
    for similarity, text in found:
        print(f"{similarity:.3f}  {text}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
