"""Programs that ask before they send a body (`Expect: 100-continue`)."""

import socket
import subprocess
import sys
from urllib.parse import urlsplit

from conftest import client_of


def answers(cluster, target, body: bytes) -> list[str]:
    """Asks, sends the body once it may, and answers the heads of all responses."""
    host = cluster.endpoint.removeprefix("http://")
    head = f"PUT {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", cluster.port), timeout=30) as connection:
        connection.sendall(head.encode())
        stream, heads = connection.makefile("rb"), []
        while not heads or heads[-1].startswith("HTTP/1.1 100"):
            lines = list(iter(stream.readline, b"\r\n"))
            heads.append(b"".join(lines).decode())
            if heads[-1].startswith("HTTP/1.1 100"):
                connection.sendall(body)
        return heads


def test_an_empty_body_is_answered_at_once_and_ends_the_connection(cluster, key, bucket):
    # Nothing but the host is signed.
    s3 = client_of(cluster, key, signature_version="s3v4")
    signed = urlsplit(s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"}))
    target = f"{signed.path}?{signed.query}"
    (only,) = answers(cluster, target, b"")
    assert only.startswith("HTTP/1.1 200") and "connection: close" in only.lower()
    first, last = answers(cluster, target, b"abc")
    assert first == "HTTP/1.1 100 Continue\r\n"
    assert last.startswith("HTTP/1.1 200") and "connection: close" not in last.lower()


# A process of its own: there a botocore of awscli takes the place of the other.
PUTS = """
import hashlib, io, sys
import awscli
import botocore.session
from botocore.config import Config

assert "awscli" in botocore.__file__
config = Config(s3={"addressing_style": "path"}, max_pool_connections=1, retries={"max_attempts": 0}, read_timeout=10)
client = botocore.session.get_session().create_client("s3", config=config)
for body in (b"", b"abc", b"", b"de"):
    put = client.put_object(Bucket=sys.argv[1], Key="k", Body=io.BytesIO(body))
    assert put.get("ETag") == f'"{hashlib.md5(body).hexdigest()}"', (body, put)
"""


def test_what_follows_an_empty_object_has_its_etag(environment, bucket):
    """awscli brings its own botocore, which carries the status of a response without `100 Continue` over to the
    next request."""
    done = subprocess.run(
        [sys.executable, "-c", PUTS, bucket],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
