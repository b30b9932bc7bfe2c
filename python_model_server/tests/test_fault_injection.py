"""Fault injection: off unless the environment enables it, and each fault as a client sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ModelServer
from wire import outputs

PATH = "/idunno/test/faults"
MODEL = "mnist-mlp"


@pytest.fixture(scope="module")
def fault_server(
    start_server: Callable[..., ModelServer], artefacts: dict[str, bytes], monkeypatch_module: pytest.MonkeyPatch
) -> ModelServer:
    """A server with fault injection enabled."""
    monkeypatch_module.setenv("IDUNNO_TEST_FAULTS", "{}")
    server = start_server()
    server.deploy(MODEL, artefacts[MODEL])
    return server


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def set_plan(server: ModelServer, *kinds: str, **options: Any) -> None:
    answer = server.client.post(PATH, json={"kinds": list(kinds), **options})
    assert answer.status_code == 200, answer.text


def injected(server: ModelServer) -> dict[str, int]:
    counts: dict[str, int] = server.client.get(PATH).json()["committed"]
    return counts


def test_faults_are_disabled_by_default(server: ModelServer) -> None:
    for method in ("GET", "POST"):
        answer = server.client.request(method, PATH, json={"kinds": ["exit"]})
        assert answer.status_code == 403
        assert "IDUNNO_TEST_FAULTS" in answer.json()["error"]


def test_an_empty_plan_injects_nothing(fault_server: ModelServer, digits: list[bytes]) -> None:
    set_plan(fault_server)
    assert len(outputs(fault_server.infer(MODEL, digits[:3]))) == 3
    assert injected(fault_server) == {}


def test_errors_are_injected_as_often_as_planned(fault_server: ModelServer, digits: list[bytes]) -> None:
    set_plan(fault_server, "error", calls=2)
    answers = [fault_server.infer(MODEL, digits[:1]) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [500, 500, 200]
    assert answers[0].json() == {"error": "injected fault"}
    assert injected(fault_server) == {"error": 2}


def test_garbage_is_not_a_valid_response(fault_server: ModelServer, digits: list[bytes]) -> None:
    set_plan(fault_server, "garbage", calls=1)
    answer = fault_server.infer(MODEL, digits[:1])
    assert answer.status_code == 200
    with pytest.raises(ValueError):  # noqa: PT011 - any way of not being JSON
        json.loads(answer.content[: int(answer.headers["Inference-Header-Content-Length"])])


def test_half_a_response_is_truncated(fault_server: ModelServer, digits: list[bytes]) -> None:
    set_plan(fault_server, "half", calls=1)
    with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
        fault_server.infer(MODEL, digits[:1])
    assert len(outputs(fault_server.infer(MODEL, digits[:1]))) == 1


def test_a_hung_request_does_not_affect_health(fault_server: ModelServer, digits: list[bytes]) -> None:
    set_plan(fault_server, "hang", calls=1, model=MODEL)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{fault_server.url}/v2/models/{MODEL}/infer", json={}, timeout=httpx.Timeout(30, read=0.3))
    assert fault_server.client.get("/v2/health/live").status_code == 200
    assert len(outputs(fault_server.infer(MODEL, digits[:1]))) == 1


def test_only_the_planned_model_fails(fault_server: ModelServer, digits: list[bytes]) -> None:
    set_plan(fault_server, "error", model="squeezenet1.1")
    assert fault_server.infer(MODEL, digits[:1]).status_code == 200
    assert fault_server.infer("squeezenet1.1", digits[:1]).status_code == 500


def test_a_seed_repeats_the_choices(fault_server: ModelServer, digits: list[bytes]) -> None:
    runs = []
    for seed in (4, 4, 5):
        set_plan(fault_server, "error", "garbage", share=0.5, seed=seed)
        answers = [fault_server.infer(MODEL, digits[:1]) for _ in range(20)]
        runs.append([(answer.status_code, answer.content[:8] == b"\0garbage") for answer in answers])
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) == 3


def test_exit_ends_the_process(
    start_server: Callable[..., ModelServer], digits: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned by the environment alone, as in a server that a daemon starts."""
    monkeypatch.setenv("IDUNNO_TEST_FAULTS", '{"kinds": ["exit"]}')
    server = start_server()
    # The system may report it as an end of the connection or as a reset.
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        server.infer(MODEL, digits[:1])
    assert server.process.wait(20) == 70


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ([], "JSON object"),
        ({"kind": "exit"}, "unknown entry 'kind'"),
        ({"kinds": ["crash"]}, "error, garbage, half, hang, exit"),
        ({"share": 2}, "0 to 1"),
        ({"calls": -1}, '"calls"'),
        ({"model": 7}, '"model"'),
    ],
)
def test_an_invalid_plan_is_refused(fault_server: ModelServer, body: Any, says: str) -> None:
    answer = fault_server.client.post(PATH, json=body)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_an_invalid_environment_is_reported_at_start(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "idunno_model_server", "--port", "0", "--work-dir", str(tmp_path)],
        env={**os.environ, "IDUNNO_TEST_FAULTS": "yes"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert run.returncode == 1
    assert run.stderr.startswith("cannot use IDUNNO_TEST_FAULTS: not JSON")
