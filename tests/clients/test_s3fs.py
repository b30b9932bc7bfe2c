"""s3fs with pandas: how people read and write frames. Run in an environment of its own, whose botocore is older."""

import random

import pandas
import pytest
import s3fs


@pytest.mark.does("s3fs, pandas", "put", "get", "list", "range", "multipart", "copy", "delete", "sync twice")
def test_s3fs_and_pandas(cluster, key, bucket, tree, tmp_path):
    options = {"key": key.id, "secret": key.secret, "endpoint_url": cluster.endpoint}
    count = 50_000
    frame = pandas.DataFrame(
        {"id": range(count), "text": [f"row {n}" for n in range(count)], "x": [n / 7 for n in range(count)]}
    )
    for name in ("t.parquet", "t.csv"):
        url = f"s3://{bucket}/frames/{name}"
        if name.endswith("parquet"):
            frame.to_parquet(url, storage_options=options)
            back = pandas.read_parquet(url, storage_options=options)
        else:
            frame.to_csv(url, index=False, storage_options=options)
            back = pandas.read_csv(url, storage_options=options)
        pandas.testing.assert_frame_equal(frame, back)
    files = s3fs.S3FileSystem(**options)
    for _ in range(2):
        files.put(f"{tree}/", f"{bucket}/tree/", recursive=True)
    files.invalidate_cache()
    assert len(files.find(f"{bucket}/tree")) == 8 and files.isdir(f"{bucket}/tree/b")
    with files.open(f"{bucket}/tree/large.bin", "rb") as opened:
        opened.seek(15_000_000)
        assert opened.read(100) == (tree / "large.bin").read_bytes()[15_000_000:15_000_100]
    with files.open(f"{bucket}/stream", "wb", block_size=5 << 20) as opened:
        written = [random.Random(n).randbytes(3_000_000) for n in range(4)]
        for part in written:
            opened.write(part)
    assert files.cat(f"{bucket}/stream") == b"".join(written)
    files.copy(f"{bucket}/stream", f"{bucket}/second")
    files.rm(f"{bucket}/tree", recursive=True)
    files.invalidate_cache()
    assert not files.exists(f"{bucket}/tree") and files.exists(f"{bucket}/second")
    with pytest.raises(OSError, match="If-None-Match"), files.open(f"{bucket}/second", "xb") as opened:
        opened.write(b"x")
