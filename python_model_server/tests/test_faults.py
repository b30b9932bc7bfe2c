"""The fault switches: off unless the environment says so, and each fault as a client sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ModelServer
from wire import outputs

PATH = "/idunno/test/faults"
MODEL = "mnist-mlp"


@pytest.fixture(scope="module")
def faulty(
    start_server: Callable[..., ModelServer], artefacts: dict[str, bytes], monkeypatch_module: pytest.MonkeyPatch
) -> ModelServer:
    """A server whose faults can be switched on."""
    monkeypatch_module.setenv("IDUNNO_TEST_FAULTS", "{}")
    server = start_server()
    server.deploy(MODEL, artefacts[MODEL])
    return server


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def arm(server: ModelServer, *kinds: str, **options: Any) -> None:
    answer = server.client.post(PATH, json={"kinds": list(kinds), **options})
    assert answer.status_code == 200, answer.text


def committed(server: ModelServer) -> dict[str, int]:
    return server.client.get(PATH).json()["committed"]


def test_they_are_off_in_an_ordinary_server(server: ModelServer) -> None:
    for method in ("GET", "POST"):
        answer = server.client.request(method, PATH, json={"kinds": ["exit"]})
        assert answer.status_code == 403
        assert "IDUNNO_TEST_FAULTS" in answer.json()["error"]


def test_nothing_is_armed_at_first(faulty: ModelServer, digits: list[bytes]) -> None:
    arm(faulty)
    assert len(outputs(faulty.infer(MODEL, digits[:3]))) == 3
    assert committed(faulty) == {}


def test_an_error_as_often_as_asked(faulty: ModelServer, digits: list[bytes]) -> None:
    arm(faulty, "error", calls=2)
    answers = [faulty.infer(MODEL, digits[:1]) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [500, 500, 200]
    assert answers[0].json() == {"error": "a fault on purpose"}
    assert committed(faulty) == {"error": 2}


def test_garbage_is_no_answer(faulty: ModelServer, digits: list[bytes]) -> None:
    arm(faulty, "garbage", calls=1)
    answer = faulty.infer(MODEL, digits[:1])
    assert answer.status_code == 200
    with pytest.raises(ValueError):  # noqa: PT011 - whichever way it is not JSON
        json.loads(answer.content[: int(answer.headers["Inference-Header-Content-Length"])])


def test_half_an_answer_breaks_off(faulty: ModelServer, digits: list[bytes]) -> None:
    arm(faulty, "half", calls=1)
    with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
        faulty.infer(MODEL, digits[:1])
    assert len(outputs(faulty.infer(MODEL, digits[:1]))) == 1


def test_a_hung_call_leaves_health_alone(faulty: ModelServer, digits: list[bytes]) -> None:
    arm(faulty, "hang", calls=1, model=MODEL)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{faulty.url}/v2/models/{MODEL}/infer", json={}, timeout=httpx.Timeout(30, read=0.3))
    assert faulty.client.get("/v2/health/live").status_code == 200
    assert len(outputs(faulty.infer(MODEL, digits[:1]))) == 1


def test_only_the_named_model_fails(faulty: ModelServer, digits: list[bytes]) -> None:
    arm(faulty, "error", model="squeezenet1.1")
    assert faulty.infer(MODEL, digits[:1]).status_code == 200
    assert faulty.infer("squeezenet1.1", digits[:1]).status_code == 500


def test_a_seed_repeats_the_draws(faulty: ModelServer, digits: list[bytes]) -> None:
    runs = []
    for seed in (4, 4, 5):
        arm(faulty, "error", "garbage", share=0.5, seed=seed)
        answers = [faulty.infer(MODEL, digits[:1]) for _ in range(20)]
        runs.append([(answer.status_code, answer.content[:8] == b"\0garbage") for answer in answers])
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) == 3


def test_exit_ends_the_process(
    start_server: Callable[..., ModelServer], digits: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Armed by the environment alone, as in a server that a daemon starts."""
    monkeypatch.setenv("IDUNNO_TEST_FAULTS", '{"kinds": ["exit"]}')
    server = start_server()
    # An end or a reset, whichever the system makes of it.
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
def test_a_plan_that_cannot_be_is_refused(faulty: ModelServer, body: Any, says: str) -> None:
    answer = faulty.client.post(PATH, json=body)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_a_bad_environment_is_said_at_start(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "idunno_model_server", "--port", "0", "--work-dir", str(tmp_path)],
        env={**os.environ, "IDUNNO_TEST_FAULTS": "yes"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert run.returncode == 1
    assert run.stderr.startswith("cannot use IDUNNO_TEST_FAULTS: it is not JSON")
