"""What the public test suites of S3 found, one test each."""

import functools
import operator
import re

import boto3
import pytest
import requests
from botocore.exceptions import ClientError


def refused(call, **arguments) -> dict:
    """The response of a call that is refused."""
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return error.value.response


def test_a_deletion_of_all_versions_deletes_the_object(cluster, key, s3, bucket):
    ids = [s3.put_object(Bucket=bucket, Key="k", Body=str(n).encode())["VersionId"] for n in range(3)]
    for some in ([ids[2]], ids[:2]):
        named = {"Objects": [{"Key": "k", "VersionId": version} for version in some]}
        answer = s3.delete_objects(Bucket=bucket, Delete=named)
        assert {error["Code"] for error in answer["Errors"]} == {"NotImplemented"}, "some of them are not deleted alone"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"2"
    never = "9.0123456789abcdef"
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": never}]})
    assert answer["Deleted"] == [{"Key": "k", "VersionId": never}], "what is not there is deleted"
    assert len(s3.list_object_versions(Bucket=bucket)["Versions"]) == 3
    s3.put_object(Bucket=bucket, Key="once", Body=b"x")
    resource = boto3.resource(
        "s3",
        endpoint_url=cluster.endpoint,
        aws_access_key_id=key.id,
        aws_secret_access_key=key.secret,
        region_name="us-east-1",
    )
    resource.Bucket(bucket).object_versions.delete()
    assert "Versions" not in s3.list_object_versions(Bucket=bucket)
    only = s3.put_object(Bucket=bucket, Key="once", Body=b"x")["VersionId"]
    s3.delete_object(Bucket=bucket, Key="once", VersionId=only)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_a_deletion_with_a_condition_deletes_nothing(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    answer = refused(s3.delete_object, Bucket=bucket, Key="k", IfMatch=etag)
    assert answer["Error"]["Code"] == "NotImplemented"
    named = {"Objects": [{"Key": "k", "ETag": etag}]}
    assert refused(s3.delete_objects, Bucket=bucket, Delete=named)["Error"]["Code"] == "NotImplemented"
    assert s3.head_object(Bucket=bucket, Key="k")["ETag"] == etag


def test_a_bucket_ends_with_its_unfinished_uploads(cluster, s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    s3.delete_bucket(Bucket=bucket)
    again = refused(s3.list_parts, Bucket=bucket, Key="k", UploadId=upload)
    assert again["Error"]["Code"] == "NoSuchUpload"


def test_buckets_come_in_pages(s3, bucket):
    names = [f"{bucket[:50]}-{n}" for n in range(3)]
    for name in names:
        s3.create_bucket(Bucket=name)
    pages = s3.get_paginator("list_buckets").paginate(Prefix=f"{bucket[:50]}-", PaginationConfig={"PageSize": 2})
    listed = [[one["Name"] for one in page["Buckets"]] for page in pages]
    assert functools.reduce(operator.iadd, listed, []) == sorted(
        [*names, *(name for name in [bucket] if name.startswith(f"{bucket[:50]}-"))]
    )
    assert len(listed[0]) == 2


def test_an_empty_md5_is_refused(s3, bucket):
    def empty(params, **_):
        params["headers"]["Content-MD5"] = ""

    s3.meta.events.register("before-call.s3.PutObject", empty)
    try:
        answer = refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x")
    finally:
        s3.meta.events.unregister("before-call.s3.PutObject", empty)
    assert answer["Error"]["Code"] == "InvalidDigest"


def test_an_error_names_its_request(s3, bucket):
    answer = refused(s3.get_object, Bucket=bucket, Key="none")
    headers, named = (
        answer["ResponseMetadata"]["HTTPHeaders"],
        answer["ResponseMetadata"]["RequestId"],
    )
    assert re.fullmatch("[0-9A-F]{16}", headers["x-amz-request-id"])
    assert named == headers["x-amz-request-id"]


def test_what_is_not_modified_has_its_etag(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    answer = refused(s3.get_object, Bucket=bucket, Key="k", IfNoneMatch=put["ETag"])
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 304
    assert answer["ResponseMetadata"]["HTTPHeaders"]["etag"] == put["ETag"]
    assert "last-modified" in answer["ResponseMetadata"]["HTTPHeaders"]


def test_encodings_are_kept_as_they_were_written(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", ContentEncoding="deflate, gzip")
    assert s3.head_object(Bucket=bucket, Key="k")["ContentEncoding"] == "deflate, gzip"


def test_an_empty_delimiter_or_token_is_none(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"x")
    for call in (s3.list_objects, s3.list_objects_v2):
        listed = call(Bucket=bucket, Delimiter="")
        assert [row["Key"] for row in listed["Contents"]] == ["a/b"] and "Delimiter" not in listed
    listed = s3.list_objects_v2(Bucket=bucket, ContinuationToken="")
    assert [row["Key"] for row in listed["Contents"]] == ["a/b"]


@pytest.mark.parametrize("name", ["foo.-bar", "foo-.bar"])
def test_a_part_of_a_buckets_name_ends_with_no_dash(s3, name):
    assert refused(s3.create_bucket, Bucket=name)["Error"]["Code"] == "InvalidBucketName"


def test_pages_of_other_origins_are_refused(cluster, bucket):
    url = f"{cluster.endpoint}/{bucket}/k"
    without = requests.options(url, timeout=30)
    assert without.status_code == 400 and "<Code>BadRequest</Code>" in without.text
    asked = {"Origin": "https://example.com", "Access-Control-Request-Method": "GET"}
    page = requests.options(url, headers=asked, timeout=30)
    assert page.status_code == 403 and "<Code>AccessForbidden</Code>" in page.text
