"""The server process: health under load, bounds, signals, the parent's death, priority."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from conftest import ModelServer, is_running, wait_until
from wire import binary_request, outputs


def finished_requests(server: ModelServer) -> int:
    """How many infer requests have succeeded or failed so far."""
    row = server.client.get("/v2/models/squeezenet1.1/stats").json()["model_stats"][0]
    counts = row["inference_stats"]
    return int(counts["success"]["count"]) + int(counts["fail"]["count"])


def test_health_answers_during_a_long_batch(loaded: ModelServer, photos: list[bytes]) -> None:
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(loaded.infer, "squeezenet1.1", photos * 5)
        answered = 0
        while not batch.done():
            assert loaded.client.get("/v2/health/live", timeout=2).status_code == 200
            answered += 1
        assert len(outputs(batch.result())) == len(photos) * 5
    assert answered >= 10


def test_bodies_are_bounded(start_server: Callable[..., ModelServer], artefacts: dict[str, bytes]) -> None:
    small = start_server("--max-body-mib", "1")
    small.deploy("mnist-mlp", artefacts["mnist-mlp"])
    content, headers = binary_request([b"x" * 2_000_000])
    announced = small.client.post("/v2/models/mnist-mlp/infer", content=content, headers=headers)
    assert announced.status_code == 413
    pieces = (content[start : start + 65536] for start in range(0, len(content), 65536))
    chunked = small.client.post("/v2/models/mnist-mlp/infer", content=pieces, headers=headers)
    assert chunked.status_code == 413
    assert "1048576" in chunked.json()["error"]


def test_concurrent_requests_are_bounded(
    start_server: Callable[..., ModelServer], artefacts: dict[str, bytes], photos: list[bytes]
) -> None:
    """A slot is taken before the body is read, so a body that does not arrive occupies the only one."""
    one_slot = start_server("--max-calls", "1")
    one_slot.deploy("squeezenet1.1", artefacts["squeezenet1.1"])
    content, headers = binary_request(photos[:1])
    head = f"POST /v2/models/squeezenet1.1/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
    head += "Expect: 100-continue\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    with socket.create_connection(("127.0.0.1", one_slot.port)) as slow:
        slow.sendall(head.encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 100")  # sent when the body is first read: the slot is taken
        refused = one_slot.infer("squeezenet1.1", photos[:1])
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        slow.sendall(content)
        assert slow.recv(12) == b"HTTP/1.1 200"
    assert one_slot.infer("squeezenet1.1", photos[:1]).status_code == 200


def test_a_request_whose_client_disconnected_is_cancelled(loaded: ModelServer, photos: list[bytes]) -> None:
    before = finished_requests(loaded)
    content, headers = binary_request(photos * 100)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{loaded.url}/v2/models/squeezenet1.1/infer",
            content=content,
            headers=headers,
            timeout=httpx.Timeout(30, read=0.2),
        )
    start = time.monotonic()
    wait_until(lambda: finished_requests(loaded) > before, "the request to be cancelled", 10)
    assert len(outputs(loaded.infer("squeezenet1.1", photos[:2]))) == 2
    assert time.monotonic() - start < 10  # 4,000 rows take longer on any two cores


def test_sigterm_finishes_the_running_batch(
    start_server: Callable[..., ModelServer], artefacts: dict[str, bytes], photos: list[bytes]
) -> None:
    server = start_server()
    server.deploy("squeezenet1.1", artefacts["squeezenet1.1"])
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(server.infer, "squeezenet1.1", photos * 3)
        status = Path(f"/proc/{server.process.pid}/status")
        # The inference threads start with the first batch.
        wait_until(lambda: batch.done() or int(status.read_text().split("Threads:")[1].split()[0]) > 3, "the batch")
        server.process.send_signal(signal.SIGTERM)
        assert len(outputs(batch.result())) == len(photos) * 3
    assert server.process.wait(20) == 0


def test_an_idle_server_exits_at_once(start_server: Callable[..., ModelServer]) -> None:
    server = start_server()
    assert server.client.get("/v2/health/live").status_code == 200  # leaves an idle connection open
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert time.monotonic() - start < 5


@dataclass(frozen=True)
class Family:
    """A process and the server that it started."""

    parent: subprocess.Popen[str]
    server_pid: int
    server_port: int


def start_through_a_parent(tmp_path: Path, flag: str) -> Family:
    """Starts a process that starts a server from a short-lived thread, prints its pid and waits."""
    code = (
        "import subprocess, sys, threading, os, time\n"
        "flag = sys.argv[1].replace('SELF', str(os.getpid()))\n"
        "def start():\n"
        "    child = subprocess.Popen([sys.executable, '-m', 'idunno_model_server', '--port', '0', '--port-file',\n"
        "        sys.argv[2] + '/port', '--work-dir', sys.argv[2] + '/work', flag], stdout=subprocess.DEVNULL)\n"
        "    print(child.pid, flush=True)\n"
        "    while not os.path.exists(sys.argv[2] + '/port'): time.sleep(0.01)\n"
        "thread = threading.Thread(target=start); thread.start(); thread.join()\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, flag, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    wait_until((tmp_path / "port").exists, "the port file")
    return Family(parent, pid, int((tmp_path / "port").read_text()))


@pytest.mark.parametrize("flag", ["--die-with-parent", "--die-with-parent=SELF"])
def test_the_server_dies_with_its_parent(tmp_path: Path, flag: str) -> None:
    family = start_through_a_parent(tmp_path, flag)
    parent = family.parent
    # The thread that started the server is gone, but its process is not: the server keeps running.
    wait_until(lambda: len(list(Path(f"/proc/{parent.pid}/task").iterdir())) == 1, "the starting thread to end")
    for _ in range(5):
        assert httpx.get(f"http://127.0.0.1:{family.server_port}/v2/health/live").status_code == 200
    parent.kill()
    parent.communicate()
    wait_until(lambda: not is_running(family.server_pid), "the server to exit", 10)


def test_a_parent_that_died_during_start_up_is_noticed(tmp_path: Path) -> None:
    """The given PID is not that of the parent, as if the parent had died and the process been adopted."""
    run = subprocess.run(
        [sys.executable, "-m", "idunno_model_server", "--work-dir", str(tmp_path), "--die-with-parent", "999999999"],
        timeout=30,
        check=False,
    )
    assert run.returncode == 3


def test_priority_is_lowered(server: ModelServer) -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, server.process.pid) == min(mine + 10, 19)


def test_a_port_in_use_is_reported(server: ModelServer, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "idunno_model_server", "--port", str(server.port), "--work-dir", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith(f"cannot listen on 127.0.0.1 port {server.port}: ")


def test_start_up_imports_no_heavy_library() -> None:
    code = (
        "import sys, json, idunno_model_server.__main__ as m\n"
        "from idunno_model_server.models import registry; registry()\n"
        "heavy = ('numpy', 'onnxruntime', 'sklearn', 'scipy', 'onnx', 'PIL', 'safetensors')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == []


def test_a_server_listens_on_a_unix_socket_for_whoever_may_enter_its_folder(tmp_path: Path) -> None:
    """Also below a path that is longer than the kernel takes, and in place of a killed server's socket."""
    folder = tmp_path / ("long-" * 30)
    folder.mkdir(mode=0o700)
    path = folder / "socket"
    command = [sys.executable, "-m", "idunno_model_server", "--socket", str(path), "--work-dir", str(tmp_path / "work")]
    descriptor = os.open(folder, os.O_PATH)
    try:
        for _ in range(2):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == "listening on a Unix socket\n"
                assert path.stat().st_mode & 0o077 == 0
                transport = httpx.HTTPTransport(uds=f"/proc/self/fd/{descriptor}/socket")
                with httpx.Client(transport=transport, base_url="http://model-server") as client:
                    assert client.get("/v2/health/live").status_code == 200
            finally:
                process.kill()
                process.wait()
                process.stdout.close()
    finally:
        os.close(descriptor)
