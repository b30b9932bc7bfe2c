"""Datasets of objects that stay where they are: on moto's S3 server, on our own gateway, and on a plain web server."""

import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import openai_cluster as models
import pytest
from conftest import client_at
from gateway import Cluster, wait_until

JOB_OBJECTS = 120
TEXT = "word " * 3


def text(number: int) -> str:
    return f"review {number} " + "word " * (number % 7)


def vector(content: str) -> list[float]:
    """What the model `vectors` answers."""
    return [float(len(content.encode())), float(content.encode().count(b" "))]


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    """The address of a server that others wrote."""
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("w") as stream:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        server = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        address = None
        wait_until(lambda: "Running on http" in log.read_text(), 60, "moto listens")
        address = re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text()).group(1)
        yield address
    finally:
        server.kill()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def key(cluster):
    """A key of the gateway, which moto takes like any other."""
    return cluster.key("referrer")


@pytest.fixture(scope="module")
def workers(key, tmp_path_factory):
    """A cluster whose members have the key in their environment, as a role would give it to them."""
    directory = tmp_path_factory.mktemp("references")
    directory.chmod(0o700)
    running = Cluster(
        Path(os.environ["IDUNNO_PROGRAMS"]),
        directory / "cluster",
        members=3,
        model_server_python=Path(os.environ["IDUNNO_TEST_PYTHON"]),
    )
    running.directory.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in key.environment.items():
            patch.setenv(name, value)
        try:
            running.idunno("local", "up", "--members", "3", "--model-server-python", str(running.model_server_python))
            models.add_vectors(running, directory)
            yield running
        finally:
            running.idunno("local", "down", "--purge", "--yes", check=False)


def refused(workers, *arguments):
    """What a command says that must fail."""
    command = [workers.programs / "idunno", "--dir", workers.directory, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode != 0, done.stdout
    return done.stderr


def job_of(dataset):
    return dataset.replace(".", "-")


def run(workers, dataset):
    """Runs the model over a dataset, and answers what its rows say by id."""
    job = job_of(dataset)
    workers.idunno("add-job", "vectors", "--dataset", dataset, "--batch-size", "16", "--name", job)
    workers.idunno("start-job", job, "--wait", check=False)
    rows = workers.idunno("get-job-results", job)
    return {row["id"]: row for row in map(json.loads, rows.splitlines())}


NAMES = [
    "plain.txt",
    "a b%20c.txt",
    "grüße.txt",
    "hash#question?.txt",
    "quote'\".txt",
    "plus+and&.txt",
    "sub/deep/x.txt",
]


@pytest.mark.parametrize("service", ["moto", "gateway"])
def test_what_is_in_a_bucket_is_put(service, workers, moto, cluster, key, tmp_path):
    endpoint = moto if service == "moto" else cluster.endpoint
    s3 = client_at(endpoint, key)
    bucket, dataset = f"put-{service}", f"put-{service}"
    s3.create_bucket(Bucket=bucket)
    contents = {name: text(number).encode() for number, name in enumerate(NAMES)} | {"empty": b""}
    for name, content in contents.items():
        s3.put_object(Bucket=bucket, Key=f"in/{name}", Body=content)
    s3.put_object(Bucket=bucket, Key="in/.DS_Store", Body=b"junk")
    # Larger than the parts in which it is read, and its length is no multiple of theirs.
    large = os.urandom(40 * 1024 * 1024 + 7)
    s3.put_object(Bucket=bucket, Key="large.bin", Body=large)
    reach = ["--endpoint-url", endpoint]

    workers.idunno("put", f"s3://{bucket}/large.bin", f"{service}/large.bin", *reach)
    workers.idunno("get", f"{service}/large.bin", str(tmp_path / "large.bin"))
    assert (tmp_path / "large.bin").read_bytes() == large
    populate = ["populate-test-data", f"s3://{bucket}/in/", "--dataset", dataset, *reach]
    assert f"put {len(contents)} files" in workers.idunno(*populate, "--dry-run")
    said = workers.idunno(*populate)
    assert f"{dataset}: {len(contents)} files put" in said
    assert "files of a system" in said
    workers.idunno("get-dataset", dataset, str(tmp_path / "back"))
    assert {name: (tmp_path / "back" / name).read_bytes() for name in contents} == contents
    s3.put_object(Bucket=bucket, Key="in/plain.txt", Body=b"new")
    assert f"1 file put (3 B), {len(contents) - 1} already there" in workers.idunno(*populate)

    assert "populate-test-data takes all" in refused(workers, "put", f"s3://{bucket}/in/", "x", *reach)
    assert "missing" in refused(workers, "put", f"s3://{bucket}/missing", "x", *reach)


@pytest.mark.parametrize("service", ["moto", "gateway"])
def test_a_bucket_is_read_where_it_is(service, workers, moto, cluster, key):
    endpoint = moto if service == "moto" else cluster.endpoint
    s3 = client_at(endpoint, key)
    bucket, dataset = f"references-{service}", f"{service}.refs"
    s3.create_bucket(Bucket=bucket)
    contents = {f"in/{name}": text(number) for number, name in enumerate(NAMES)}
    contents |= {f"in/many/{number:04}.txt": text(number) for number in range(JOB_OBJECTS)}
    for name, content in contents.items():
        s3.put_object(Bucket=bucket, Key=name, Body=content.encode())
    # What tools leave in buckets.
    s3.put_object(Bucket=bucket, Key="in/.DS_Store", Body=b"junk")
    s3.put_object(Bucket=bucket, Key="in/many/", Body=b"")

    url = f"s3://{bucket}/in/"
    reach = ["--endpoint-url", endpoint]
    made = workers.idunno("reference-data", url, dataset, *reach)
    assert f"{len(contents)} objects" in made
    assert "files of a system" in made
    rows = run(workers, dataset)
    assert {name: row["output"] for name, row in rows.items()} == {
        f"s3://{bucket}/{name}": vector(content) for name, content in contents.items()
    }

    # The results become objects of the bucket: once, however often that is asked for, and the manifest last.
    out = f"s3://{bucket}/out/"
    written = workers.idunno("get-job-results", job_of(dataset), out, *reach)
    assert f"{len(contents)} rows (0 dead) in 1 part at {out}" in written
    manifest = json.loads(s3.get_object(Bucket=bucket, Key="out/manifest.json")["Body"].read())
    assert (manifest["rows"], [part["name"] for part in manifest["parts"]]) == (len(contents), ["part-00000.jsonl"])
    part = s3.get_object(Bucket=bucket, Key="out/part-00000.jsonl")["Body"].read()
    assert len(part) == manifest["parts"][0]["bytes"]
    assert {row["id"]: row for row in map(json.loads, part.splitlines())} == rows
    assert "1 of them there already" in workers.idunno("get-job-results", job_of(dataset), out, *reach)
    s3.put_object(Bucket=bucket, Key="out/part-00000.jsonl", Body=b"{}\n")
    refusal = refused(workers, "get-job-results", job_of(dataset), out, *reach)
    assert "is there already, with other content" in refusal

    # Each query reads the object that was listed, or fails and says why.
    workers.idunno("delete-job", job_of(dataset), "--yes")
    s3.put_object(Bucket=bucket, Key="in/plain.txt", Body=text(0).upper().encode())
    s3.delete_object(Bucket=bucket, Key="in/many/0007.txt")
    run(workers, dataset)
    failed = json.loads(workers.idunno("--output", "json", "dead-letters", "list", job_of(dataset)))["items"]
    reasons = {letter["id"]: letter["error"] for letter in failed}
    assert "has changed since it was listed" in reasons.pop(f"s3://{bucket}/in/plain.txt")
    assert "is gone" in reasons.pop(f"s3://{bucket}/in/many/0007.txt")
    assert not reasons

    selected = workers.idunno("reference-data", url, "some.refs", *reach, "--include", "many/*1.txt")
    assert f"{JOB_OBJECTS // 10} objects" in selected
    one = workers.idunno("reference-data", f"{url}sub/deep/x.txt", "one.refs", *reach)
    assert "1 object " in one


def test_a_dataset_of_references_holds_no_credentials(workers, moto, key):
    workers.idunno("reference-data", "s3://references-moto/in/", "kept.refs", "--endpoint-url", moto)
    kept = workers.idunno("cat", "kept.refs")
    assert key.secret not in kept
    assert key.id not in kept
    assert json.loads(kept.splitlines()[0])["references"]["endpoint"] == moto


def test_an_object_of_the_web_is_read_by_its_url(workers, tmp_path):
    (tmp_path / "a page.txt").write_text(TEXT)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a%20page.txt"
        try:
            workers.idunno("reference-data", f"{url}?token=secret", "web.refs")
            rows = run(workers, "web.refs")
        finally:
            server.shutdown()
    # The query of a signed URL lets its holder in: it is in no row.
    assert {name: row["output"] for name, row in rows.items()} == {url: vector(TEXT)}


def test_what_cannot_be_listed_says_why(workers, moto, key):
    def why(*arguments):
        return refused(workers, "reference-data", *arguments)

    reach = ("--endpoint-url", moto)
    assert "'x.refs'" in why("s3://references-moto/in/", "x", *reach)
    assert "leads to no object" in why("s3://references-moto/none/", "x.refs", *reach)
    assert "NoSuchBucket" in why("s3://no-such-bucket/", "x.refs", *reach)
    assert "s3://BUCKET/KEY" in why("ftp://host/x", "x.refs")
    client_at(moto, key).put_object(Bucket="references-moto", Key="odd//name", Body=b"x")
    assert "odd//name" in why("s3://references-moto/odd/", "x.refs", *reach)
