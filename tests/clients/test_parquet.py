"""Files in Parquet: what DuckDB, pandas and polars write is a dataset, and they read results."""

import duckdb
import numpy
import pandas
import polars
import pytest

ROWS = 1_000
WORDS = [f"review {number} " + "word " * (number % 7) for number in range(ROWS)]
# Beyond what a double holds.
KEYS = [2**60 + number for number in range(ROWS)]
# What the model `vectors` answers.
VECTORS = [[float(len(text.encode())), float(text.encode().count(b" "))] for text in WORDS]


def write_pandas(path):
    frame = pandas.DataFrame({"key": KEYS, "text": WORDS, "when": pandas.Timestamp("2026-12-01T12:30", tz="UTC")})
    frame.to_parquet(path, row_group_size=300, compression="snappy", index=False)


def write_polars(path):
    frame = polars.DataFrame({"key": KEYS, "text": WORDS}).with_columns(
        when=polars.lit("2026-12-01T12:30:00+00:00").str.to_datetime(time_zone="UTC")
    )
    frame.write_parquet(path, row_group_size=300, compression="zstd")


def write_duckdb(path):
    table = polars.DataFrame({"key": KEYS, "text": WORDS})
    query = "SELECT *, TIMESTAMPTZ '2026-12-01 12:30:00+00' AS \"when\" FROM found ORDER BY key"
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        database.register("found", table)
        database.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 2048, COMPRESSION gzip)")


def read_pandas(path):
    frame = pandas.read_parquet(path)
    assert frame["id"].dtype == numpy.int64
    return frame["id"].tolist(), [vector.tolist() for vector in frame["output"]], frame["when"].tolist()


def read_polars(path):
    frame = polars.scan_parquet(path).collect()
    assert frame.schema["id"] == polars.Int64
    assert frame.schema["output"] in (polars.List(polars.Float32), polars.List(polars.Float64))
    return frame["id"].to_list(), frame["output"].to_list(), frame["when"].to_list()


def read_duckdb(path):
    with duckdb.connect() as database:
        found = database.execute(f"SELECT id, output, \"when\" FROM '{path}' ORDER BY query").fetchall()
        mean = database.execute(f"SELECT avg(output[1]) FROM '{path}' WHERE error IS NULL").fetchone()[0]
    assert mean == pytest.approx(sum(vector[0] for vector in VECTORS) / ROWS)
    return [row[0] for row in found], [row[1] for row in found], [row[2] for row in found]


WRITERS = {"pandas": write_pandas, "polars": write_polars, "DuckDB": write_duckdb}
READERS = {"pandas": read_pandas, "polars": read_polars, "DuckDB": read_duckdb}


@pytest.mark.parametrize("program", WRITERS)
def test_a_file_of_another_program_is_a_data_set_and_all_read_the_results(openai_cluster, tmp_path, program):
    source, target = tmp_path / "source.parquet", tmp_path / "results.parquet"
    WRITERS[program](source)
    name = f"parquet-{program.lower()}"
    openai_cluster.idunno("put", str(source), f"{name}.parquet")
    columns = ["--input-column", "text", "--id-column", "key", "--keep", "when"]
    openai_cluster.idunno("add-job", "vectors", "--dataset", f"{name}.parquet", "--name", name, *columns)
    started = openai_cluster.idunno("start-job", name, "--wait")
    assert "reads Parquet: input 'text', id 'key', keeps 'when'" in started
    openai_cluster.idunno("get-job-results", name, str(target), "--format", "parquet")
    for read in READERS.values():
        keys, vectors, when = read(target)
        assert (keys, vectors) == (KEYS, VECTORS)
        assert set(when) == {"2026-12-01T12:30:00Z"}


def test_results_of_failed_queries_and_of_texts_are_read(openai_cluster, tmp_path):
    source, target = tmp_path / "source.jsonl", tmp_path / "results.parquet"
    source.write_text('{"input": "a b", "id": "x"}\n{"input": 1e999, "id": 7}\n')
    openai_cluster.idunno("put", str(source), "mixed.jsonl")
    openai_cluster.idunno("add-job", "vectors", "--dataset", "mixed.jsonl", "--name", "mixed")
    openai_cluster.idunno("start-job", "mixed", "--wait", check=False)
    openai_cluster.idunno("get-job-results", "mixed", str(target), "--format", "parquet")
    frame = polars.read_parquet(target)
    # Ids of several types are JSON.
    assert frame["id"].to_list() == ['"x"', "7"]
    assert frame["output"].to_list() == [[3.0, 1.0], None]
    assert "number out of range" in frame["error"][1]
    assert pandas.read_parquet(target)["query"].tolist() == [0, 1]
    assert duckdb.execute(f"SELECT count(*) FROM '{target}' WHERE error IS NOT NULL").fetchone() == (1,)
