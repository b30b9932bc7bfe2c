"""boto3: the transfer manager, paginators, presigned URLs, conditions, errors."""

import hashlib
import io
import random
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError
from conftest import client_of
from gateway import Key

MIB = 1 << 20


def code(excinfo) -> str:
    return excinfo.value.response["Error"]["Code"]


@pytest.mark.does("boto3", "put", "get", "metadata", "delete")
def test_an_object_comes_back_as_it_was_put(s3, bucket):
    body = b"hello \xff\x00"
    put = s3.put_object(
        Bucket=bucket,
        Key="a/b c+ü.txt",
        Body=body,
        ContentType="text/x-own",
        CacheControl="no-store",
        ContentEncoding="gzip",
        Metadata={"owner": "anna", "mtime": "1.5"},
    )
    assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="a/b c+ü.txt")
    assert got["Body"].read() == body
    assert (got["ContentType"], got["CacheControl"], got["ContentEncoding"]) == ("text/x-own", "no-store", "gzip")
    assert got["Metadata"] == {"owner": "anna", "mtime": "1.5"}
    assert got["ETag"] == put["ETag"] and got["VersionId"] == put["VersionId"]
    head = s3.head_object(Bucket=bucket, Key="a/b c+ü.txt")
    assert head["ContentLength"] == len(body) and head["Metadata"] == got["Metadata"]
    s3.delete_object(Bucket=bucket, Key="a/b c+ü.txt")
    s3.delete_object(Bucket=bucket, Key="a/b c+ü.txt")
    with pytest.raises(ClientError) as gone:
        s3.get_object(Bucket=bucket, Key="a/b c+ü.txt")
    assert code(gone) == "NoSuchKey"


@pytest.mark.does("boto3", "put", "get")
@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 17 * MIB])
def test_sizes_at_borders(s3, bucket, size):
    body = random.Random(size).randbytes(size)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body


@pytest.mark.does("boto3", "range")
def test_ranges(s3, bucket):
    body = random.Random(1).randbytes(20 * MIB)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    for text, expected in [
        ("bytes=0-0", body[:1]),
        ("bytes=5-9", body[5:10]),
        (f"bytes={16 * MIB - 3}-{16 * MIB + 2}", body[16 * MIB - 3 : 16 * MIB + 3]),
        (f"bytes={20 * MIB - 7}-", body[-7:]),
        ("bytes=-11", body[-11:]),
        (f"bytes=0-{99 * MIB}", body),
    ]:
        got = s3.get_object(Bucket=bucket, Key="k", Range=text)
        assert got["Body"].read() == expected, text
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    with pytest.raises(ClientError) as beyond:
        s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={20 * MIB}-")
    assert code(beyond) == "InvalidRange"


@pytest.mark.does("boto3", "multipart")
@pytest.mark.parametrize("part", [5 * MIB, 8 * MIB, 5 * MIB + 1])
def test_the_transfer_manager_sends_parts_side_by_side(s3, bucket, part):
    body = random.Random(part).randbytes(33 * MIB + 77)
    config = TransferConfig(multipart_threshold=part, multipart_chunksize=part, max_concurrency=6)
    s3.upload_fileobj(io.BytesIO(body), bucket, "large", Config=config, ExtraArgs={"Metadata": {"x": "y"}})
    back = io.BytesIO()
    s3.download_fileobj(bucket, "large", back, Config=config)
    assert back.getvalue() == body
    head = s3.head_object(Bucket=bucket, Key="large")
    assert head["ETag"].strip('"').endswith(f"-{-(-len(body) // part)}") and head["Metadata"] == {"x": "y"}
    # The digest of the whole, merged from those of the parts, is that of the same bytes put at once.
    once = s3.put_object(Bucket=bucket, Key="once", Body=body)
    assert head["VersionId"].split(".")[1] == once["VersionId"].split(".")[1]


@pytest.mark.does("boto3", "multipart")
def test_parts_come_in_any_order_and_again(s3, bucket):
    parts = {n: random.Random(n).randbytes(5 * MIB if n < 3 else 1_234) for n in (3, 1, 2)}
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    named = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    s3.upload_part(**named, PartNumber=2, Body=b"to be replaced" * 1_000)
    s3.upload_part(**named, PartNumber=7, Body=b"not named in the end")
    tags = {n: s3.upload_part(**named, PartNumber=n, Body=body)["ETag"] for n, body in parts.items()}
    listed = s3.list_parts(**named)["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in listed] == [(1, 5 * MIB), (2, 5 * MIB), (3, 1_234), (7, 20)]
    page = s3.list_parts(**named, MaxParts=2)
    assert page["IsTruncated"] and page["NextPartNumberMarker"] == 2
    assert [one["UploadId"] for one in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload]
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket), "nothing is visible yet"
    complete = {"Parts": [{"PartNumber": n, "ETag": tags[n]} for n in (1, 2, 3)]}
    made = s3.complete_multipart_upload(**named, MultipartUpload=complete)
    again = s3.complete_multipart_upload(**named, MultipartUpload=complete)
    assert (made["ETag"], made["VersionId"]) == (again["ETag"], again["VersionId"])
    md5s = b"".join(hashlib.md5(parts[n]).digest() for n in (1, 2, 3))
    assert made["ETag"] == f'"{hashlib.md5(md5s).hexdigest()}-3"'
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == parts[1] + parts[2] + parts[3]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@pytest.mark.does("boto3", "multipart")
def test_a_completion_is_refused_with_the_right_code(s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    named = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    tags = {n: s3.upload_part(**named, PartNumber=n, Body=b"small")["ETag"] for n in (1, 2)}

    def complete(*parts):
        with pytest.raises(ClientError) as refused:
            s3.complete_multipart_upload(**named, MultipartUpload={"Parts": list(parts)})
        return code(refused)

    one, two = ({"PartNumber": n, "ETag": tags[n]} for n in (1, 2))
    assert complete(one, two) == "EntityTooSmall"
    assert complete(two, one) == "InvalidPartOrder"
    assert complete({**one, "ETag": '"0123"'}) == "InvalidPart"
    assert complete({**one, "PartNumber": 9}) == "InvalidPart"
    s3.abort_multipart_upload(**named)
    assert complete(one) == "NoSuchUpload"
    with pytest.raises(ClientError) as gone:
        s3.upload_part(**named, PartNumber=1, Body=b"x")
    assert code(gone) == "NoSuchUpload"


@pytest.mark.does("boto3", "multipart", "copy")
def test_parts_of_other_objects(s3, bucket):
    body = random.Random(3).randbytes(12 * MIB)
    s3.put_object(Bucket=bucket, Key="source", Body=body)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    named = {"Bucket": bucket, "Key": "k", "UploadId": upload, "CopySource": {"Bucket": bucket, "Key": "source"}}
    first = s3.upload_part_copy(**named, PartNumber=1, CopySourceRange=f"bytes=0-{6 * MIB - 1}")
    second = s3.upload_part_copy(**named, PartNumber=2)
    parts = [{"PartNumber": n, "ETag": it["CopyPartResult"]["ETag"]} for n, it in [(1, first), (2, second)]]
    named.pop("CopySource")
    s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body[: 6 * MIB] + body


@pytest.mark.does("boto3", "copy", "metadata")
def test_a_copy_moves_no_bytes_and_may_have_other_metadata(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"x" * 5_000, Metadata={"n": "1"}, ContentType="text/one")
    source = {"Bucket": bucket, "Key": "a"}
    copied = s3.copy_object(Bucket=bucket, Key="b/c", CopySource=source)
    head = s3.head_object(Bucket=bucket, Key="b/c")
    assert (head["Metadata"], head["ContentType"], head["ETag"]) == (
        {"n": "1"},
        "text/one",
        copied["CopyObjectResult"]["ETag"],
    )
    s3.copy_object(Bucket=bucket, Key="a", CopySource=source, MetadataDirective="REPLACE", Metadata={"n": "2"})
    assert s3.head_object(Bucket=bucket, Key="a")["Metadata"] == {"n": "2"}
    with pytest.raises(ClientError) as itself:
        s3.copy_object(Bucket=bucket, Key="a", CopySource=source)
    assert code(itself) == "InvalidRequest"
    with pytest.raises(ClientError) as changed:
        s3.copy_object(Bucket=bucket, Key="d", CopySource=source, CopySourceIfMatch='"0"')
    assert code(changed) == "PreconditionFailed"
    s3.delete_object(Bucket=bucket, Key="a")
    assert s3.get_object(Bucket=bucket, Key="b/c")["Body"].read() == b"x" * 5_000


@pytest.mark.does("boto3", "list")
def test_lists_and_pages(s3, bucket):
    keys = ["a", "b/1", "b/2", "b/c/3", "b0", "c%d", "c/x", "d", "ü/1"]
    for name in keys:
        s3.put_object(Bucket=bucket, Key=name, Body=b"1")
    for operation in ("list_objects", "list_objects_v2"):
        for size in (1, 2, 3, 1000):
            pages = list(
                s3.get_paginator(operation).paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": size})
            )
            found = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
            prefixes = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]
            assert found == ["a", "b0", "c%d", "d"], (operation, size)
            assert prefixes == ["b/", "c/", "ü/"], (operation, size)
            flat = s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": size})
            assert [entry["Key"] for page in flat for entry in page.get("Contents", [])] == keys
    assert s3.list_objects_v2(Bucket=bucket, Prefix="b/", Delimiter="/")["KeyCount"] == 3
    after = s3.list_objects_v2(Bucket=bucket, StartAfter="b/2")
    assert [entry["Key"] for entry in after["Contents"]] == keys[3:]
    none = s3.list_objects_v2(Bucket=bucket, MaxKeys=0)
    assert none["KeyCount"] == 0 and not none["IsTruncated"]
    assert bucket in [one["Name"] for one in s3.list_buckets()["Buckets"]]


@pytest.mark.does("boto3", "delete")
def test_deletes_by_thousands(s3, bucket):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: s3.put_object(Bucket=bucket, Key=f"k/{n:04}", Body=b"x"), range(1_200)))
    with pytest.raises(ClientError) as full:
        s3.delete_bucket(Bucket=bucket)
    assert code(full) == "BucketNotEmpty"
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        objects = [{"Key": entry["Key"]} for entry in page["Contents"]]
        done = s3.delete_objects(Bucket=bucket, Delete={"Objects": [*objects, {"Key": "none"}][:1_000]})
        assert not done.get("Errors")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    s3.delete_bucket(Bucket=bucket)
    with pytest.raises(ClientError) as gone:
        s3.list_objects_v2(Bucket=bucket)
    assert code(gone) == "NoSuchBucket"
    with pytest.raises(ClientError):
        s3.head_bucket(Bucket=bucket)


@pytest.mark.does("boto3", "conditional")
def test_of_many_writers_one_creates(s3, bucket):
    def create(n):
        try:
            s3.put_object(Bucket=bucket, Key="lock", Body=str(n).encode(), IfNoneMatch="*")
            return n
        except ClientError as error:
            assert error.response["Error"]["Code"] == "PreconditionFailed"
            return None

    with ThreadPoolExecutor(12) as pool:
        won = [n for n in pool.map(create, range(24)) if n is not None]
    assert len(won) == 1 and s3.get_object(Bucket=bucket, Key="lock")["Body"].read() == str(won[0]).encode()
    seen = s3.head_object(Bucket=bucket, Key="lock")["ETag"]
    s3.put_object(Bucket=bucket, Key="lock", Body=b"second", IfMatch=seen)
    for wrong in ({"IfMatch": seen}, {"IfNoneMatch": "*"}):
        with pytest.raises(ClientError) as lost:
            s3.put_object(Bucket=bucket, Key="lock", Body=b"third", **wrong)
        assert code(lost) == "PreconditionFailed"


@pytest.mark.does("boto3", "conditional")
def test_conditions_of_reads(s3, bucket):
    tag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    assert s3.get_object(Bucket=bucket, Key="k", IfMatch=tag)["Body"].read() == b"x"
    for wanted, status in [({"IfMatch": '"0"'}, 412), ({"IfNoneMatch": tag}, 304)]:
        with pytest.raises(ClientError) as refused:
            s3.get_object(Bucket=bucket, Key="k", **wanted)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


@pytest.mark.does("boto3", "versions")
def test_five_versions_are_kept(s3, bucket):
    ids = [s3.put_object(Bucket=bucket, Key="k", Body=str(n).encode())["VersionId"] for n in range(7)]
    listed = s3.list_object_versions(Bucket=bucket)["Versions"]
    assert [version["VersionId"] for version in listed] == ids[:1:-1]
    assert [version["IsLatest"] for version in listed] == [True, False, False, False, False]
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=ids[3])["Body"].read() == b"3"
    with pytest.raises(ClientError) as dropped:
        s3.get_object(Bucket=bucket, Key="k", VersionId=ids[0])
    assert code(dropped) == "NoSuchVersion"
    s3.delete_object(Bucket=bucket, Key="k")
    s3.put_object(Bucket=bucket, Key="k", Body=b"new")
    with pytest.raises(ClientError):
        s3.get_object(Bucket=bucket, Key="k", VersionId=ids[6])
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket), "there are no delete markers"


@pytest.mark.does("boto3", "presigned")
def test_presigned_urls(cluster, key, s3, bucket):
    # By itself boto3 signs URLs for unknown endpoints with version 2.
    signer = client_of(cluster, key, signature_version="s3v4")
    put = signer.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "k"}, ExpiresIn=60)
    request = urllib.request.Request(put, data=b"by a link", method="PUT")
    assert urllib.request.urlopen(request, timeout=20).status == 200
    wanted = {"Bucket": bucket, "Key": "k", "ResponseContentType": "text/own"}
    got = urllib.request.urlopen(signer.generate_presigned_url("get_object", wanted, ExpiresIn=60), timeout=20)
    assert (got.read(), got.headers["content-type"]) == (b"by a link", "text/own")
    old = client_of(cluster, key, signature_version="s3")
    week = signer.generate_presigned_url("get_object", wanted, ExpiresIn=604_801)
    for url in (week, put.replace("k?", "other?"), old.generate_presigned_url("get_object", wanted)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=20)
        assert refused.value.code in (400, 403), url


@pytest.mark.does("boto3", "checksums")
@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums_are_kept_and_compared(s3, bucket, algorithm):
    try:
        put = s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ChecksumAlgorithm=algorithm)
    except Exception as error:
        if "crt" not in str(error).lower():
            raise
        pytest.skip("botocore computes it only with awscrt")
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == b"hello"
    assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    with pytest.raises(ClientError) as wrong:
        s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ContentMD5="rL0Y20zC+Fzt72VPzMSk2A==")
    assert code(wrong) == "BadDigest"


@pytest.mark.does("boto3", "https")
def test_over_https_checksums_follow_the_body(cluster, key, s3, bucket, tmp_path):
    certificate, private = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    subject = ("-subj", "/CN=gateway", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    made = ("-keyout", private, "-out", certificate)
    subprocess.run(["openssl", "req", "-x509", *kind, *made, *subject], check=True, capture_output=True)
    process, port = cluster.run_gateway("--listen", "127.0.0.1:0", "--certificate", certificate, "--key", private)
    try:
        secure = boto3.client(
            "s3",
            endpoint_url=f"https://127.0.0.1:{port}",
            aws_access_key_id=key.id,
            aws_secret_access_key=key.secret,
            region_name="us-east-1",
            verify=certificate,
        )
        body = random.Random(4).randbytes(3 * MIB + 5)
        put = secure.put_object(Bucket=bucket, Key="k", Body=body)
        got = secure.get_object(Bucket=bucket, Key="k")
        assert got["Body"].read() == body and got["ChecksumCRC32"] == put["ChecksumCRC32"]
        config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
        secure.upload_fileobj(io.BytesIO(body * 4), bucket, "large", Config=config)
        assert s3.get_object(Bucket=bucket, Key="large")["Body"].read() == body * 4
    finally:
        process.terminate()
        process.wait(timeout=40)


@pytest.mark.does("boto3", "access")
def test_keys_may_do_what_they_grant(cluster, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    viewer = client_of(cluster, cluster.key("vera", "viewer"))
    assert viewer.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    submitter = client_of(cluster, cluster.key("sam", "submitter", "--prefix", f"{bucket}/sam"))
    submitter.put_object(Bucket=bucket, Key="sam/k", Body=b"y")
    upload = submitter.create_multipart_upload(Bucket=bucket, Key="sam/large")["UploadId"]
    submitter.upload_part(Bucket=bucket, Key="sam/large", UploadId=upload, PartNumber=1, Body=b"z")
    submitter.abort_multipart_upload(Bucket=bucket, Key="sam/large", UploadId=upload)
    for client, name in [(viewer, "k"), (submitter, "k"), (viewer, "sam/k")]:
        with pytest.raises(ClientError) as denied:
            client.put_object(Bucket=bucket, Key=name, Body=b"z")
        assert code(denied) == "AccessDenied"
    done = submitter.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}, {"Key": "sam/k"}]})
    assert [one["Key"] for one in done["Deleted"]] == ["sam/k"]
    assert [(one["Key"], one["Code"]) for one in done["Errors"]] == [("k", "AccessDenied")]


@pytest.mark.does("boto3", "access")
def test_a_key_ends_at_once_with_its_name(cluster, s3, bucket):
    key = cluster.key("rita", "operator")
    client = client_of(cluster, key)
    client.put_object(Bucket=bucket, Key="k", Body=b"x")
    cluster.idunno("identity", "revoke", "rita", "--unseen", "--yes")
    with pytest.raises(ClientError) as revoked:
        client.get_object(Bucket=bucket, Key="k")
    assert code(revoked) in ("AccessDenied", "InvalidAccessKeyId")
    for wrong in (Key(key.id.replace("rita", "rosa"), key.secret), Key("AKIAIOSFODNN7EXAMPLE", "x")):
        with pytest.raises(ClientError) as refused:
            client_of(cluster, wrong).list_buckets()
        assert code(refused) in ("SignatureDoesNotMatch", "InvalidAccessKeyId")


@pytest.mark.does("boto3", "native")
def test_native_clients_see_the_same_files(cluster, s3, bucket, tmp_path):
    s3.put_object(Bucket=bucket, Key="by/s3", Body=b"one")
    cluster.idunno("get", f"{bucket}/by/s3", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"one"
    (tmp_path / "native").write_bytes(b"two" * 1_000)
    cluster.idunno("put", str(tmp_path / "native"), f"{bucket}/by/hand")
    got = s3.get_object(Bucket=bucket, Key="by/hand")
    assert got["Body"].read() == b"two" * 1_000 and got["ETag"].strip('"').endswith("-1")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="half")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="half", UploadId=upload, PartNumber=1, Body=b"x")
    assert not [name for name in cluster.files() if name.startswith(".s3")]
    s3.abort_multipart_upload(Bucket=bucket, Key="half", UploadId=upload)


@pytest.mark.does("boto3", "signed chunks")
def test_a_body_that_lies_is_refused_and_leaves_nothing(cluster, key, s3, bucket):
    import botocore.auth
    import botocore.awsrequest
    import botocore.credentials

    def send(name, body, headers):
        url = f"{cluster.endpoint}/{bucket}/{name}"
        request = botocore.awsrequest.AWSRequest(method="PUT", url=url, data=body, headers=headers)
        credentials = botocore.credentials.Credentials(key.id, key.secret)
        signer = botocore.auth.S3SigV4Auth(credentials, "s3", "us-east-1")
        request.context["payload_signing_enabled"] = False
        signer._should_sha256_sign_payload = lambda _request: False
        signer.payload = lambda _request: headers["x-amz-content-sha256"]
        signer.add_auth(request)
        sent = urllib.request.Request(url, data=body, method="PUT", headers=dict(request.headers.items()))
        try:
            return urllib.request.urlopen(sent, timeout=20).status, b""
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def framed(data, sum_of, size=None):
        head = f"{size or len(data):x}\r\n".encode()
        return head + data + b"\r\n0\r\nx-amz-checksum-crc32:" + sum_of + b"\r\n\r\n"

    headers = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-trailer": "x-amz-checksum-crc32",
        "content-encoding": "aws-chunked",
        "x-amz-decoded-content-length": "5",
    }
    assert send("good", framed(b"hello", b"NhCmhg=="), dict(headers))[0] == 200
    status, text = send("sum", framed(b"hello", b"AAAAAA=="), dict(headers))
    assert status == 400 and b"BadDigest" in text
    status, text = send("short", framed(b"hell", b"NhCmhg=="), dict(headers))
    assert status == 400 and b"IncompleteBody" in text
    status, text = send("cut", b"5\r\nhello\r\n", dict(headers))
    assert status == 400, text
    hashed = {"x-amz-content-sha256": hashlib.sha256(b"other").hexdigest()}
    status, text = send("hash", b"hello", hashed)
    assert status in (400, 403), text
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["good"]
    assert "ContentEncoding" not in s3.head_object(Bucket=bucket, Key="good")


def test_what_is_not_offered_is_said(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for call in (
        lambda: s3.put_bucket_policy(Bucket=bucket, Policy="{}"),
        lambda: s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": []}),
        lambda: s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}),
    ):
        with pytest.raises(ClientError) as refused:
            call()
        assert code(refused) == "NotImplemented"
    for key in ("a//b", "../x", "/x"):
        with pytest.raises(ClientError) as refused:
            s3.put_object(Bucket=bucket, Key=key, Body=b"x")
        assert code(refused) == "InvalidArgument", key
    s3.put_object(Bucket=bucket, Key="folder/", Body=b"")
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["k"]


def test_without_a_certificate_it_listens_on_loopback_only(cluster):
    command = ["idunno-gateway", "--cluster", "127.0.0.1:1", "--secret", str(cluster.secret), "--listen", "0.0.0.0:0"]
    done = subprocess.run(command, executable=cluster.programs / command[0], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "give it a certificate" in done.stderr
