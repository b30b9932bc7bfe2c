"""Throughput of one machine's cluster over S3, with the native client, and of another S3 server on the same disk.

    IDUNNO_PROGRAMS=FOLDER python tests/clients/figures.py [--rounds 5] [--members 5] [--other s3s-fs]

The programs should be optimised. One round writes and reads back a file of 1 GiB, and 2,000 files of 20 KB, in each of
the ways, one after another; the bytes are new in every round, so nothing is stored already. It prints the median and
the spread of all rounds in MiB/s, and in files per second for the small ones. `--other` names the program of the crate
s3s-fs (`cargo install s3s-fs --features binary`): it writes one copy and does not sync, a cluster writes four and syncs
each.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
from botocore.config import Config
from gateway import Cluster, Key, wait_until

MIB = 1 << 20
SMALL_BYTES = 20_000
THREADS = 16


def client(endpoint: str, key: Key):
    """A client of boto3 with a connection per thread."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=key.id,
        aws_secret_access_key=key.secret,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=THREADS),
    )


class OverS3:
    """An S3 server, with boto3 and its transfer manager."""

    def __init__(self, name: str, endpoint: str, key: Key):
        self.name, self.s3 = name, client(endpoint, key)
        self.s3.create_bucket(Bucket="figures")

    def put(self, path: Path, name: str) -> None:
        self.s3.upload_file(str(path), "figures", name)

    def get(self, name: str, path: Path) -> None:
        self.s3.download_file("figures", name, str(path))

    def put_all(self, folder: Path, name: str) -> None:
        def put(path: Path) -> None:
            self.s3.put_object(Bucket="figures", Key=f"{name}/{path.name}", Body=path.read_bytes())

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(put, sorted(folder.iterdir())))

    def get_all(self, names: list[str], name: str, folder: Path) -> None:
        def get(one: str) -> None:
            body = self.s3.get_object(Bucket="figures", Key=f"{name}/{one}")["Body"].read()
            (folder / one).write_bytes(body)

        folder.mkdir()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(get, names))


class Native:
    """The command line."""

    name = "idunno"

    def __init__(self, cluster: Cluster):
        self.idunno = cluster.idunno

    def put(self, path: Path, name: str) -> None:
        self.idunno("put", str(path), name)

    def get(self, name: str, path: Path) -> None:
        self.idunno("get", name, str(path))

    def put_all(self, folder: Path, name: str) -> None:
        self.idunno("populate-test-data", str(folder), "--dataset", name)

    def get_all(self, names: list[str], name: str, folder: Path) -> None:
        self.idunno("get-dataset", name, str(folder))


def timed(action, *arguments) -> float:
    """The seconds that an action takes."""
    started = time.monotonic()
    action(*arguments)
    return time.monotonic() - started


def one_round(number: int, way, directory: Path, large_mib: int, small_count: int) -> dict[str, float]:
    """Writes and reads back, compares, and answers the seconds of each step."""
    content = random.Random(f"{way.name} {number}")
    source, back = directory / "source", directory / "back"
    for folder in (source / "small", back):
        folder.mkdir(parents=True)
    large = source / "large"
    with large.open("wb") as file:
        for _ in range(large_mib):
            file.write(content.randbytes(MIB))
    names = [f"{index:05}.bin" for index in range(small_count)]
    for name in names:
        (source / "small" / name).write_bytes(content.randbytes(SMALL_BYTES))
    os.sync()
    label = f"round-{number}"
    seconds = {
        "put 1 file": timed(way.put, large, f"{label}-large"),
        "get 1 file": timed(way.get, f"{label}-large", back / "large"),
        "put small": timed(way.put_all, source / "small", f"{label}-small"),
        "get small": timed(way.get_all, names, f"{label}-small", back / "small"),
    }
    assert subprocess.run(["cmp", large, back / "large"]).returncode == 0
    for name in names:
        assert (source / "small" / name).read_bytes() == (back / "small" / name).read_bytes(), name
    shutil.rmtree(source)
    shutil.rmtree(back)
    return seconds


def start_other(program: str, directory: Path) -> tuple[subprocess.Popen, OverS3]:
    """Starts s3s-fs over a folder of the same disk."""
    key, folder = Key("AKEXAMPLE", "SKEXAMPLE"), directory / "other"
    folder.mkdir()
    command = [
        program,
        "--host",
        "127.0.0.1",
        "--port",
        "8014",
        "--access-key",
        key.id,
        "--secret-key",
        key.secret,
    ]
    process = subprocess.Popen([*command, folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def is_up() -> bool:
        try:
            client("http://127.0.0.1:8014", key).list_buckets()
        except Exception:
            return False
        return True

    wait_until(is_up, 30, "s3s-fs answers")
    return process, OverS3("s3s-fs", "http://127.0.0.1:8014", key)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--large-mib", type=int, default=1_024)
    parser.add_argument("--small", type=int, default=2_000)
    parser.add_argument("--other", help="the program s3s-fs")
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="figures-"))
    (directory / "cluster").mkdir(mode=0o700)
    cluster = Cluster(
        Path(os.environ["IDUNNO_PROGRAMS"]),
        directory / "cluster",
        members=asked.members,
    )
    other = None
    try:
        cluster.start()
        ways = [
            OverS3("gateway", cluster.endpoint, cluster.key("tester")),
            Native(cluster),
        ]
        if asked.other:
            other, way = start_other(asked.other, directory)
            ways.append(way)
        rows: dict[tuple[str, str], list[float]] = {}
        for number in range(asked.rounds):
            for way in ways:
                for step, seconds in one_round(number, way, directory, asked.large_mib, asked.small).items():
                    rows.setdefault((step, way.name), []).append(seconds)
                    print(f"# {number} {way.name} {step} {seconds:.2f} s", flush=True)
        for (step, name), all_seconds in rows.items():
            mib = asked.large_mib if "1 file" in step else asked.small * SMALL_BYTES / MIB
            speeds = [mib / seconds for seconds in all_seconds]
            line = f"{step:10} {name:8} {statistics.median(speeds):7.1f} MiB/s ({min(speeds):.1f} to {max(speeds):.1f})"
            if "small" in step:
                line += f", {asked.small / statistics.median(all_seconds):.0f} files/s"
            print(line)
    finally:
        if other is not None:
            other.terminate()
            other.wait(timeout=10)
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
