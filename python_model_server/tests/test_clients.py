"""Clients that stall, leave, lie or flood: the server answers in the protocol's form, allocates nothing for promises,
and goes on serving others."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ModelServer, wait_until
from wire import outputs

INFER = "POST /v2/models/mnist-mlp/infer"
PUT = "PUT /idunno/models/mnist-mlp/artefacts/01234567"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def hasty(start_server: Callable[..., ModelServer], artefacts: dict[str, bytes]) -> ModelServer:
    """A server with little patience and one place for infer calls."""
    server = start_server("--body-timeout", "1", "--max-calls", "1", "--max-body-mib", "1")
    server.deploy("mnist-mlp", artefacts["mnist-mlp"])
    return server


def connect(server: ModelServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def answer(client: socket.socket) -> tuple[int, str]:
    """The status and the error of an answer that ends with the connection."""
    received = b""
    while chunk := client.recv(65536):
        received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if length and len(body) == int(length[0].split(b":")[1]):
            break
    return int(received.split()[1]), json.loads(body)["error"]


def resident_mib(server: ModelServer) -> int:
    """The most memory it ever held."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


@pytest.mark.parametrize("call", [INFER, PUT])
def test_a_stalled_body_is_given_up(hasty: ModelServer, call: str) -> None:
    with connect(hasty) as stalled:
        stalled.sendall(f"{call} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc".encode())
        assert answer(stalled) == (408, "the body did not arrive within 1 s")
    assert list((hasty.work_dir / "incoming").iterdir()) == []


@pytest.mark.parametrize("start", [b"", b"POST /v2/mod", INFER.encode() + b" HTTP/1.1\r\nHost: x\r\n"])
def test_a_stalled_head_is_given_up(hasty: ModelServer, start: bytes) -> None:
    with connect(hasty) as stalled:
        stalled.sendall(start)
        assert answer(stalled) == (408, "the request's head did not arrive within 1 s")


def test_a_second_head_on_a_kept_connection_is_timed_too(hasty: ModelServer) -> None:
    with connect(hasty) as client:
        client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /v2/hea")
        assert answer(client)[0] == 408


@pytest.mark.parametrize("call", [INFER, PUT])
def test_a_client_that_leaves_in_its_body_leaves_nothing(hasty: ModelServer, digits: list[bytes], call: str) -> None:
    for how in (socket.SHUT_WR, socket.SHUT_RDWR):
        with connect(hasty) as leaving:
            leaving.sendall(f"{call} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc".encode())
            leaving.shutdown(how)
    wait_until(lambda: hasty.infer("mnist-mlp", digits[:1]).status_code == 200, "the only place to be free")
    wait_until(lambda: not list((hasty.work_dir / "incoming").iterdir()), "the unfinished upload to be gone")


def test_a_promised_length_is_not_allocated(server: ModelServer, hasty: ModelServer) -> None:
    before = resident_mib(hasty)
    for length in (2 * MIB, 10**12, 2**63 - 1):
        with connect(hasty) as liar:
            liar.sendall(f"{INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nabc".encode())
            assert answer(liar) == (413, f"the body is larger than {MIB} bytes")
    with connect(hasty) as liar:
        liar.sendall(f"{PUT} HTTP/1.1\r\nHost: x\r\nContent-Length: {2**40}\r\n\r\nabc".encode())
        assert answer(liar)[0] == 413
    # Nor one inside the body, nor one that the limits allow and that never comes.
    body = b'{"inputs":[{"name":"input","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}'
    headers = {"Inference-Header-Content-Length": str(len(body))}
    refused = hasty.client.post("/v2/models/mnist-mlp/infer", content=body + b"\xff\xff\xff\xffx", headers=headers)
    assert (refused.status_code, "ends inside row 0" in refused.json()["error"]) == (400, True)
    with connect(server) as liar:
        liar.sendall(f"{PUT} HTTP/1.1\r\nHost: x\r\nContent-Length: {900 * MIB}\r\n\r\nabc".encode())
        assert server.client.get("/v2/health/live").status_code == 200
    assert resident_mib(hasty) - before < 32


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: 99999999999999999999999999\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nX: " + b"x" * 70_000, 431),
        (b"GET /" + b"x" * 70_000, 431),
    ],
)
def test_bad_heads_get_the_protocols_error(hasty: ModelServer, request_bytes: bytes, status: int) -> None:
    with connect(hasty) as client:
        client.sendall(request_bytes)
        assert answer(client)[0] == status


def test_many_small_requests_on_one_connection_are_no_large_head(hasty: ModelServer) -> None:
    """A head's bytes are counted anew for each request; a pipelined pair ends in one piece of data."""
    ask = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nPadding: " + b"x" * 20_000 + b"\r\n\r\n"
    with connect(hasty) as client:
        for _ in range(5):
            client.sendall(ask + ask)
            received = b""
            while received.count(b'{"live":true}') < 2:
                received += client.recv(65536)


def test_a_slow_reader_delays_nobody(loaded: ModelServer, digits: list[bytes]) -> None:
    """It asks for much and reads nothing, while others are served."""
    row = b"x" * 1000
    rows = 30_000
    header = {"inputs": [{"name": "input", "shape": [rows], "datatype": "BYTES", "parameters": {}}]}
    size = rows * (4 + len(row))
    header["inputs"][0]["parameters"]["binary_data_size"] = size
    content = json.dumps(header).encode()
    head = f"{INFER} HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: {len(content)}\r\n"
    head += f"Content-Length: {len(content) + size}\r\n\r\n"
    with connect(loaded) as slow:
        slow.sendall(head.encode() + content + (len(row).to_bytes(4, "little") + row) * rows)
        for _ in range(5):
            assert len(outputs(loaded.infer("mnist-mlp", digits[:2]))) == 2
            assert loaded.client.get("/v2/health/live").status_code == 200
