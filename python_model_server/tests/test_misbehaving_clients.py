"""Clients that stall, disconnect, lie about lengths or flood: the server reports errors in the protocol's form,
allocates nothing for announced lengths, and keeps serving others."""

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
def strict_server(start_server: Callable[..., ModelServer], artefacts: dict[str, bytes]) -> ModelServer:
    """A server with short timeouts, small bodies and one slot for infer requests."""
    server = start_server("--body-timeout", "1", "--max-calls", "1", "--max-body-mib", "1")
    server.deploy("mnist-mlp", artefacts["mnist-mlp"])
    return server


def connect(server: ModelServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def read_error(client: socket.socket) -> tuple[int, str]:
    """The status and the error message of a response."""
    received = b""
    body = b""
    while chunk := client.recv(65536):
        received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if length and len(body) == int(length[0].split(b":")[1]):
            break
    return int(received.split()[1]), json.loads(body)["error"]


def resident_mib(server: ModelServer) -> int:
    """The peak resident memory of the process."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


@pytest.mark.parametrize("call", [INFER, PUT])
def test_a_stalled_body_times_out(strict_server: ModelServer, call: str) -> None:
    with connect(strict_server) as stalled:
        stalled.sendall(f"{call} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc".encode())
        told = "no byte of the body arrived for 1 s" if call == PUT else "the body did not arrive within 1 s"
        assert read_error(stalled) == (408, told)
    assert list((strict_server.work_dir / "incoming").iterdir()) == []


@pytest.mark.parametrize("start", [b"", b"POST /v2/mod", INFER.encode() + b" HTTP/1.1\r\nHost: x\r\n"])
def test_a_stalled_head_times_out(strict_server: ModelServer, start: bytes) -> None:
    with connect(strict_server) as stalled:
        stalled.sendall(start)
        assert read_error(stalled) == (408, "the request's head did not arrive within 1 s")


def test_the_second_head_on_a_connection_times_out_too(strict_server: ModelServer) -> None:
    with connect(strict_server) as client:
        client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /v2/hea")
        assert read_error(client)[0] == 408


@pytest.mark.parametrize("call", [INFER, PUT])
def test_a_disconnect_during_a_body_leaves_nothing_behind(
    strict_server: ModelServer, digits: list[bytes], call: str
) -> None:
    for how in (socket.SHUT_WR, socket.SHUT_RDWR):
        with connect(strict_server) as client:
            client.sendall(f"{call} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc".encode())
            client.shutdown(how)
    wait_until(lambda: strict_server.infer("mnist-mlp", digits[:1]).status_code == 200, "the only slot to be free")
    wait_until(lambda: not list((strict_server.work_dir / "incoming").iterdir()), "the unfinished upload to be removed")


def test_an_announced_length_is_not_allocated(server: ModelServer, strict_server: ModelServer) -> None:
    before = resident_mib(strict_server)
    for length in (2 * MIB, 10**12, 2**63 - 1):
        with connect(strict_server) as liar:
            liar.sendall(f"{INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nabc".encode())
            assert read_error(liar) == (413, f"the body is larger than {MIB} bytes")
    with connect(strict_server) as liar:
        liar.sendall(f"{PUT} HTTP/1.1\r\nHost: x\r\nContent-Length: {2**50}\r\n\r\nabc".encode())
        status, told = read_error(liar)
        assert (status, f"an artefact of {2**50} bytes does not fit" in told) == (507, True)
    # The same for a length inside the body, and for an allowed length whose bytes never arrive.
    body = b'{"inputs":[{"name":"input","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}'
    headers = {"Inference-Header-Content-Length": str(len(body))}
    content = body + b"\xff\xff\xff\xffx"
    refused = strict_server.client.post("/v2/models/mnist-mlp/infer", content=content, headers=headers)
    assert (refused.status_code, "ends inside row 0" in refused.json()["error"]) == (400, True)
    with connect(server) as liar:
        liar.sendall(f"{PUT} HTTP/1.1\r\nHost: x\r\nContent-Length: {900 * MIB}\r\n\r\nabc".encode())
        assert server.client.get("/v2/health/live").status_code == 200
    assert resident_mib(strict_server) - before < 32


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
def test_a_bad_head_gets_an_error_in_the_protocols_form(
    strict_server: ModelServer, request_bytes: bytes, status: int
) -> None:
    with connect(strict_server) as client:
        client.sendall(request_bytes)
        assert read_error(client)[0] == status


def test_pipelined_requests_do_not_count_as_one_large_head(strict_server: ModelServer) -> None:
    """The bytes of a head are counted per request, even if two heads arrive in one piece of data."""
    ask = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nPadding: " + b"x" * 20_000 + b"\r\n\r\n"
    with connect(strict_server) as client:
        for _ in range(5):
            client.sendall(ask + ask)
            received = b""
            while received.count(b'{"live":true}') < 2:
                received += client.recv(65536)


def test_a_slow_reader_does_not_delay_others(loaded: ModelServer, digits: list[bytes]) -> None:
    """It requests a large response and reads none of it."""
    row = b"x" * 1000
    rows = 30_000
    size = rows * (4 + len(row))
    tensor = {"name": "input", "shape": [rows], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
    content = json.dumps({"inputs": [tensor]}).encode()
    head = f"{INFER} HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: {len(content)}\r\n"
    head += f"Content-Length: {len(content) + size}\r\n\r\n"
    with connect(loaded) as slow:
        slow.sendall(head.encode() + content + (len(row).to_bytes(4, "little") + row) * rows)
        for _ in range(5):
            assert len(outputs(loaded.infer("mnist-mlp", digits[:2]))) == 2
            assert loaded.client.get("/v2/health/live").status_code == 200
