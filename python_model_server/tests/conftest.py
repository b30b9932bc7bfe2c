"""Fixtures: real server processes on free ports, and sample inputs."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from wire import binary_request

from idunno_model_server.make_dataset import make_dataset

DEADLINE_S = 60.0


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Polls a condition and returns its first true value."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline_s} s for {what}")
        time.sleep(0.01)


@dataclass
class ModelServer:
    """A server process and a client for it."""

    process: subprocess.Popen[str]
    port: int
    work_dir: Path
    client: httpx.Client
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def infer(self, model: str, rows: list[bytes], **options: Any) -> httpx.Response:
        content, headers = binary_request(rows, **options)
        return self.client.post(f"/v2/models/{model}/infer", content=content, headers=headers)

    def train(self, model: str, seed: int = 0, **options: Any) -> bytes:
        """Trains a model to the end and returns the artefact."""
        answer = self.client.post(f"/idunno/models/{model}/train", json={"seed": seed, **options})
        assert answer.status_code == 202, answer.text
        task = answer.json()["task"]
        value = self.wait_for_task(task)
        assert value["state"] == "done", value
        artefact = self.client.get(f"/idunno/tasks/{task}/artefact").content
        assert len(artefact) == value["artefact_bytes"]
        return artefact

    def wait_for_task(self, task: str) -> dict[str, Any]:
        """Waits for the end of a training and returns its last state."""

        def finished() -> dict[str, Any] | None:
            value: dict[str, Any] = self.client.get(f"/idunno/tasks/{task}").json()
            return None if value["state"] == "running" else value

        last: dict[str, Any] = wait_until(finished, f"the end of task {task}")
        return last

    def deploy(self, model: str, artefact: bytes) -> str:
        """Uploads and loads an artefact, with its hash as version, and returns the version."""
        version = hashlib.sha256(artefact).hexdigest()
        put = self.client.put(f"/idunno/models/{model}/artefacts/{version}", content=artefact)
        assert put.status_code == 201, put.text
        load = self.client.post(f"/v2/repository/models/{model}/load", json={"parameters": {"version": version}})
        assert load.status_code == 200, load.text
        self.versions[model] = version
        return version


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ModelServer]]:
    """Starts servers with extra arguments, and stops those that still run at the end of the session."""
    started: list[ModelServer] = []

    def start(*arguments: str, threads: int = 2) -> ModelServer:
        folder = tmp_path_factory.mktemp("server")
        port_file = folder / "port"
        command = [sys.executable, "-m", "idunno_model_server", "--port", "0", "--port-file", str(port_file)]
        command += ["--work-dir", str(folder / "work"), "--models-dir", str(folder / "models")]
        command += ["--threads", str(threads), *arguments]  # a repeated argument replaces the first
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

        def listening() -> bool:
            assert process.poll() is None, f"the server exited with code {process.returncode}"
            return port_file.exists()

        wait_until(listening, "the port file")
        port = int(port_file.read_text())
        assert process.stdout is not None
        assert process.stdout.readline() == f"listening on http://127.0.0.1:{port}\n"
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S)
        server = ModelServer(process, port, folder / "work", client)
        started.append(server)
        return server

    yield start
    for server in started:
        server.client.close()
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()


@pytest.fixture(scope="session")
def server(start_server: Callable[..., ModelServer]) -> ModelServer:
    """The server that tests share. It starts with no model loaded."""
    return start_server()


@pytest.fixture(scope="session")
def artefacts(server: ModelServer) -> dict[str, bytes]:
    """Artefacts trained by the shared server."""
    return {model: server.train(model) for model in ("mnist-mlp", "squeezenet1.1")}


@pytest.fixture(scope="session")
def loaded(server: ModelServer, artefacts: dict[str, bytes]) -> ModelServer:
    """The shared server with the two models of `artefacts` loaded."""
    for model, artefact in artefacts.items():
        server.deploy(model, artefact)
    return server


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """40 labelled JPEGs."""
    folder = tmp_path_factory.mktemp("photos")
    make_dataset("photos", folder, 40)
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """100 PNGs; number i shows the digit i % 10."""
    folder = tmp_path_factory.mktemp("digits")
    make_dataset("digits", folder, 100)
    return [path.read_bytes() for path in sorted(folder.glob("*.png"))]


def is_running(pid: int) -> bool:
    """False also for a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
