"""pyarrow, DuckDB and object_store (obstore, polars): how people read and write tables."""

import random
from pathlib import Path

import duckdb
import duckdb_extension_httpfs
import obstore
import polars
import pyarrow
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet
import pytest
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store


def rows(count=50_000):
    return pyarrow.table(
        {"id": range(count), "text": [f"row {n}" for n in range(count)], "x": [n / 7 for n in range(count)]}
    )


@pytest.mark.does("pyarrow", "put", "get", "list", "range", "multipart", "copy", "delete")
def test_pyarrow(cluster, key, bucket):
    files = pyarrow.fs.S3FileSystem(
        access_key=key.id, secret_key=key.secret, endpoint_override=cluster.endpoint, region="us-east-1", scheme="http"
    )
    table = rows()
    for _ in range(2):
        pyarrow.dataset.write_dataset(
            table,
            f"{bucket}/set",
            filesystem=files,
            format="parquet",
            max_rows_per_file=20_000,
            max_rows_per_group=20_000,
            existing_data_behavior="overwrite_or_ignore",
        )
    found = pyarrow.dataset.dataset(f"{bucket}/set", filesystem=files, format="parquet")
    assert found.count_rows() == 50_000
    assert found.to_table(filter=pyarrow.dataset.field("id") == 41_234)["text"].to_pylist() == ["row 41234"]
    large = random.Random(5).randbytes(25_000_000)
    with files.open_output_stream(f"{bucket}/large") as out:
        out.write(large)
    with files.open_input_file(f"{bucket}/large") as opened:
        assert opened.read_at(1_000, 17_000_000) == large[17_000_000:17_001_000]
        opened.seek(0)
        assert opened.read() == large
    files.copy_file(f"{bucket}/large", f"{bucket}/second")
    names = {info.path for info in files.get_file_info(pyarrow.fs.FileSelector(bucket, recursive=True)) if info.is_file}
    assert {f"{bucket}/large", f"{bucket}/second"} < names
    files.delete_dir_contents(f"{bucket}/set")
    files.delete_file(f"{bucket}/second")
    assert files.get_file_info(f"{bucket}/second").type == pyarrow.fs.FileType.NotFound


@pytest.fixture
def database(cluster, key):
    connection = duckdb.connect()
    extension = next(Path(duckdb_extension_httpfs.__file__).parent.rglob("httpfs.duckdb_extension"))
    connection.execute(f"LOAD '{extension}'")
    host = cluster.endpoint.removeprefix("http://")
    connection.execute(
        f"CREATE SECRET (TYPE s3, KEY_ID '{key.id}', SECRET '{key.secret}', ENDPOINT '{host}', URL_STYLE 'path', "
        "USE_SSL false, REGION 'us-east-1')"
    )
    return connection


@pytest.mark.does("DuckDB", "put", "get", "list", "range", "multipart")
def test_duckdb(database, bucket, s3):
    database.execute("CREATE TABLE t AS SELECT range AS id, 'row ' || range AS text FROM range(300000)")
    for _ in range(2):
        database.execute(f"COPY t TO 's3://{bucket}/t.parquet' (FORMAT parquet, ROW_GROUP_SIZE 50000)")
    assert database.execute(f"SELECT count(*), sum(id) FROM 's3://{bucket}/t.parquet'").fetchone() == (
        300_000,
        44_999_850_000,
    )
    one = database.execute(f"SELECT text FROM 's3://{bucket}/t.parquet' WHERE id = 271828").fetchone()
    assert one == ("row 271828",)
    database.execute(f"COPY t TO 's3://{bucket}/parts' (FORMAT parquet, PER_THREAD_OUTPUT true)")
    assert database.execute(f"SELECT count(*) FROM 's3://{bucket}/parts/*.parquet'").fetchone() == (300_000,)
    database.execute(f"COPY (SELECT * FROM t LIMIT 1000) TO 's3://{bucket}/t.csv'")
    assert database.execute(f"SELECT count(*) FROM 's3://{bucket}/t.csv'").fetchone() == (1_000,)


def store_of(cluster, key, bucket):
    return S3Store(
        bucket,
        endpoint=cluster.endpoint,
        access_key_id=key.id,
        secret_access_key=key.secret,
        region="us-east-1",
        client_options={"allow_http": True},
    )


@pytest.mark.does("object_store", "put", "get", "list", "range", "multipart", "copy", "delete", "conditional")
def test_object_store(cluster, key, bucket):
    store = store_of(cluster, key, bucket)
    for name in ("a/1", "a/2", "b"):
        obstore.put(store, name, name.encode())
    assert bytes(obstore.get(store, "a/1").bytes()) == b"a/1"
    assert [one["path"] for page in obstore.list(store) for one in page] == ["a/1", "a/2", "b"]
    assert [one["path"] for page in obstore.list(store, offset="a/1") for one in page] == ["a/2", "b"]
    level = obstore.list_with_delimiter(store)
    assert (level["common_prefixes"], [one["path"] for one in level["objects"]]) == (["a"], ["b"])
    large = random.Random(9).randbytes(23_000_000)
    obstore.put(store, "large", large, use_multipart=True, chunk_size=5 << 20)
    assert bytes(obstore.get(store, "large").bytes()) == large
    parts = obstore.get_ranges(store, "large", starts=[0, 22_000_000], lengths=[10, 10])
    assert [bytes(part) for part in parts] == [large[:10], large[22_000_000:22_000_010]]
    obstore.put(store, "lock", b"1", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(store, "lock", b"2", mode="create")
    obstore.copy(store, "large", "second")
    obstore.rename(store, "second", "third")
    obstore.delete(store, ["large", "third", "lock"])
    assert {one["path"] for page in obstore.list(store) for one in page} == {"a/1", "a/2", "b"}


@pytest.mark.does("polars", "put", "get", "list", "range")
def test_polars(cluster, key, bucket):
    options = {
        "aws_endpoint_url": cluster.endpoint,
        "aws_access_key_id": key.id,
        "aws_secret_access_key": key.secret,
        "aws_region": "us-east-1",
        "aws_allow_http": "true",
    }
    frame = polars.from_arrow(rows())
    for _ in range(2):
        frame.write_parquet(f"s3://{bucket}/p/t.parquet", storage_options=options)
    scanned = polars.scan_parquet(f"s3://{bucket}/p/*.parquet", storage_options=options)
    assert scanned.filter(polars.col("id") == 12_345).select("text").collect().item() == "row 12345"
    assert scanned.collect().equals(frame)
