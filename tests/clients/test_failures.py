"""The coordinator and the gateway die in the middle of an upload of 1 GiB: the client resumes it."""

import hashlib
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import botocore.exceptions
import pytest
from conftest import client_of
from gateway import wait_until

MIB = 1 << 20
PART = 16 * MIB
PARTS = int(os.environ.get("IDUNNO_CLIENTS_PARTS", "64"))


@pytest.mark.does("boto3", "failover")
def test_an_upload_survives_the_coordinator_and_the_gateway(cluster, key, s3, bucket):
    client = client_of(cluster, key, max_pool_connections=8, read_timeout=90)
    seeds = [random.Random(n).randbytes(64) for n in range(PARTS)]

    def body(number):
        return (seeds[number - 1] * (PART // 64))[: PART if number < PARTS else PART - 77]

    upload = client.create_multipart_upload(Bucket=bucket, Key="large", Metadata={"a": "b"})["UploadId"]
    named = {"Bucket": bucket, "Key": "large", "UploadId": upload}
    done, seen_whole, stop = [], [], threading.Event()

    def send(number):
        deadline = time.monotonic() + 240
        while True:
            try:
                tag = client.upload_part(**named, PartNumber=number, Body=body(number))["ETag"]
                done.append(number)
                return {"PartNumber": number, "ETag": tag}
            except botocore.exceptions.EndpointConnectionError:
                # No gateway listens: that is for whoever runs several to hide.
                assert time.monotonic() < deadline, "the gateway does not come back"
                time.sleep(0.2)

    def watch():
        watcher = client_of(cluster, key)
        while not stop.is_set():
            try:
                seen_whole.append(watcher.head_object(Bucket=bucket, Key="large")["ContentLength"])
            except botocore.exceptions.ClientError as error:
                assert error.response["Error"]["Code"] in ("404", "SlowDown", "503"), error
            except botocore.exceptions.BotoCoreError:
                pass
            stop.wait(0.3)

    observer = threading.Thread(target=watch)
    observer.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            parts = [pool.submit(send, number) for number in range(1, PARTS + 1)]
            wait_until(lambda: len(done) >= PARTS // 4, 240, "a quarter of the parts")
            cluster.kill_coordinator()
            wait_until(lambda: len(done) >= PARTS // 2, 240, "half of the parts")
            cluster.kill_gateway()
            cluster.start_gateway()
            parts = [part.result(timeout=300) for part in parts]
        assert seen_whole == [], "nothing of the object is visible before its completion"
        client.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    finally:
        stop.set()
        observer.join()
        cluster.idunno("local", "start")
    size = PARTS * PART - 77
    assert set(seen_whole) <= {size}
    whole = hashlib.sha256()
    for number in range(1, PARTS + 1):
        whole.update(body(number))
    got = hashlib.sha256()
    for chunk in s3.get_object(Bucket=bucket, Key="large")["Body"].iter_chunks(4 * MIB):
        got.update(chunk)
    assert got.digest() == whole.digest()
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@pytest.mark.does("boto3", "no quorum")
def test_without_a_majority_programs_are_asked_to_slow_down(cluster, key, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    cluster.idunno("local", "kill", "--random", str(cluster.members // 2 + 1))
    try:
        hasty = client_of(cluster, key, read_timeout=60, retries={"total_max_attempts": 1})
        with pytest.raises(botocore.exceptions.ClientError) as slow:
            hasty.put_object(Bucket=bucket, Key="k", Body=b"y")
        response = slow.value.response
        assert response["Error"]["Code"] in ("SlowDown", "503"), response
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 503
        assert response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "1"
    finally:
        cluster.idunno("local", "start")
    s3.put_object(Bucket=bucket, Key="k", Body=b"z")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"z"
