"""What a model's code raises fails its request and nothing else, and can be read where it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ModelServer
from wire import binary_response, outputs

from idunno_model_server.errors import ModelFailure, RowError
from idunno_model_server.failures import FAILURES_KEPT, RecentFailures
from idunno_model_server.user_code import (
    MESSAGE_CHARACTERS_MAX,
    NO_REASON,
    ROW_REASON_CHARACTERS_MAX,
    TRACEBACK_CHARACTERS_MAX,
    model_failure,
    row_reason,
)

SOURCE = '''
import asyncio
from idunno_model_server.api import BatchModel, Model, RowError, Runner

RAISED = {
    "exit": lambda: SystemExit(3),
    "interrupt": lambda: KeyboardInterrupt(),
    "stop": lambda: StopIteration(),
    "generator": lambda: GeneratorExit(),
    "cancelled": lambda: asyncio.CancelledError(),
    "base": lambda: BaseException("below everything"),
    "value": lambda: ValueError("\\x1b[31mred\\x00"),
    "memory": lambda: MemoryError("too much"),
}

def obey(stage, row):
    """A row says at which stage what is to be raised: b"decode exit"."""
    words = str(row, "utf-8").split()
    if words[0] == stage:
        raise RowError(*words[2:]) if words[1] == "row" else RAISED[words[1]]()
    return row

class Odd(BatchModel):
    name, description = "odd", "a model of the tests"
    def decode(self, content): return obey("decode", bytes(content))
    def predict(self, inputs): return [obey("predict", row) for row in inputs]
    def encode(self, output): return b"%d" % len(obey("encode", output))
    def canary(self): return b"hello you"

class OddAsync(Odd):
    name = "odd-async"
    async def predict(self, inputs): return [obey("predict", row) for row in inputs]

class OddRows(Model):
    name, description, dataset = "odd-rows", "a model of the tests", "none"
    def train(self, dataset, run): run.artefact.write_text("x")
    def load(self, artefact): return OddRunner()
    def canary(self): return b"hello you"

class OddRunner(Runner):
    def decode(self, content): return obey("decode", bytes(content))
    def predict(self, row): return obey("predict", row)
    def encode(self, output): return b"%d" % len(obey("encode", output))

class Unloadable(Odd):
    name = "unloadable"
    def setup(self, context): raise SystemExit("not here")

class Unsourced(Odd):
    name = "unsourced"
    def require_sources(self): raise SystemExit("no sources")
'''
TYPES = {
    "exit": "SystemExit: 3",
    "interrupt": "KeyboardInterrupt",
    "stop": "StopIteration",
    "generator": "GeneratorExit",
    "cancelled": "CancelledError",
    "base": "BaseException: below everything",
    "value": r"ValueError: \x1b[31mred\x00",
}
MODELS = ["odd", "odd-async", "odd-rows"]


@pytest.fixture(scope="module")
def odd(start_server: Callable[..., ModelServer], tmp_path_factory: pytest.TempPathFactory) -> ModelServer:
    folder = tmp_path_factory.mktemp("models")
    (folder / "odd.py").write_text(SOURCE)
    server = start_server("--models-dir", str(folder))
    for model in MODELS:
        server.deploy(model, server.train(model))
    return server


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stage", ["decode", "predict", "encode"])
@pytest.mark.parametrize("raised", TYPES)
def test_whatever_a_model_raises_ends_only_its_request(odd: ModelServer, model: str, stage: str, raised: str) -> None:
    rows = [b"all well", f"{stage} {raised}".encode(), b"all well"]
    response = odd.infer(model, rows)
    assert response.status_code == 500
    body = response.json()
    expected = TYPES[raised]
    if (model, stage, raised) == ("odd-async", "predict", "stop"):
        expected = "RuntimeError: coroutine raised StopIteration"  # Python's own doing
    assert body["error"] == f"model {model} failed: {expected} (odd.py, line 20)"
    assert "in obey" in body["traceback"]
    assert "\x1b" not in body["traceback"]
    assert "execution.py" not in body["traceback"]
    newest = odd.client.get(f"/idunno/models/{model}/failures").json()["failures"][0]
    assert f"model {model} failed: {newest['reason']}" == body["error"]
    assert (newest["traceback"], newest["rows"]) == (body["traceback"], 3)
    assert odd.process.poll() is None
    assert outputs(odd.infer(model, [b"all well"])) == [b"8"]


@pytest.mark.parametrize("model", MODELS)
def test_row_errors_fail_their_rows_with_a_reason(odd: ModelServer, model: str) -> None:
    stages = ["decode", "predict", "encode"]
    rows = [f"{stage} row{words}".encode() for stage in stages for words in (" because", "")]
    _, tensors = binary_response(odd.infer(model, [b"all well", *rows, b"all well"]))
    assert tensors["error"] == [b"", *[b"because", NO_REASON.encode()] * 3, b""]
    assert tensors["output"] == [b"8", *[b""] * 6, b"8"]


@pytest.mark.parametrize("model", MODELS)
def test_a_row_that_memory_is_too_small_for_is_507(odd: ModelServer, model: str) -> None:
    response = odd.infer(model, [b"all well", b"predict memory"])
    assert response.status_code == 507
    assert "MemoryError: too much (odd.py, line 20)" in response.json()["error"]
    assert outputs(odd.infer(model, [b"all well"])) == [b"8"]


def test_a_version_that_cannot_be_loaded_says_why(odd: ModelServer) -> None:
    version = odd.versions["odd"]
    odd.client.put(f"/idunno/models/unloadable/artefacts/{version}", content=odd.train("unloadable"))
    load = odd.client.post("/v2/repository/models/unloadable/load")
    assert load.status_code == 400
    assert "SystemExit: not here (odd.py, line 47)" in load.json()["error"]
    assert "in setup" in load.json()["traceback"]
    (failure,) = odd.client.get("/idunno/models/unloadable/failures").json()["failures"]
    assert (failure["rows"], failure["version"]) == (0, version)
    assert odd.client.get("/idunno/models/nothing/failures").status_code == 404


def test_a_model_that_leaves_when_it_is_to_be_trained_does_not_end_the_server(odd: ModelServer) -> None:
    answer = odd.client.post("/idunno/models/unsourced/train")
    assert answer.status_code == 500
    assert answer.json()["error"] == "model unsourced cannot be trained: SystemExit: no sources (odd.py, line 51)"
    assert odd.client.get("/v2/health/live").status_code == 200


def test_memory_is_in_the_statistics(odd: ModelServer) -> None:
    statistics = odd.client.get("/v2/models/stats").json()
    assert statistics["process"]["pid"] == odd.process.pid
    assert 10_000_000 < statistics["process"]["rss_bytes"] <= statistics["process"]["rss_peak_bytes"]
    assert all(row["memory_bytes"] >= 0 for row in statistics["model_stats"])


def test_limits_are_listed(odd: ModelServer) -> None:
    models = {row["name"]: row for row in odd.client.get("/idunno/models").json()["models"]}
    names = ("batch_max", "concurrency", "device", "memory_mib", "row_timeout_s")
    assert [models["odd"][name] for name in names] == [64, 1, "cpu", None, None]
    assert [models["newsgroups-linear"][name] for name in names] == [1024, None, "cpu", None, None]


def _raised(error: BaseException, depth: int = 0) -> ModelFailure:
    def deep(remaining: int) -> None:
        if remaining:
            deep(remaining - 1)
        raise error

    try:
        deep(depth)
    except BaseException as raised:
        return model_failure(raised, __file__)
    raise AssertionError


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_messages_and_tracebacks_are_bounded_and_printable() -> None:
    failure = _raised(ValueError("x" * 10_000_000))
    assert len(failure.message) < MESSAGE_CHARACTERS_MAX + 100
    assert len(failure.traceback) <= TRACEBACK_CHARACTERS_MAX + 10
    assert failure.traceback.endswith("xxx")
    failure = _raised(ValueError("the end\ud800"), depth=500)
    assert failure.traceback.endswith("ValueError: the end\\ud800")
    assert failure.traceback.count("\n") < 100
    failure.traceback.encode()
    assert _raised(Unreadable()).message.startswith(
        "Unreadable: its message cannot be read (test_model_failures.py, line"
    )
    assert _raised(StopIteration()).message.startswith("StopIteration (test_model")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RowError(), NO_REASON),
        (RowError(""), NO_REASON),
        (RowError(" \n"), NO_REASON),
        (RowError("too\nlong"), r"too\nlong"),
        (RowError("half \ud800"), r"half \ud800"),
        (RowError("x" * 10_000), "x" * ROW_REASON_CHARACTERS_MAX),
        (RowError("\0" * 10_000), r"\x00" * (ROW_REASON_CHARACTERS_MAX // 4)),
        (RowError(7), "7"),
    ],
)
def test_a_rows_reason_is_never_empty(error: RowError, reason: str) -> None:
    assert row_reason(error) == reason.encode()


def test_repeated_failures_are_counted_and_only_the_newest_kept(capfd: pytest.CaptureFixture[str]) -> None:
    failures = RecentFailures()
    for number in range(20):
        failures.add("m", "v", ModelFailure(f"failure {number}", "trace"), rows=4)
    for rows in (5, 6):
        failures.add("m", "v", ModelFailure("failure 15", "trace"), rows)
    kept: list[dict[str, Any]] = failures.as_json()
    assert [entry["reason"] for entry in kept] == [f"failure {n}" for n in (15, 19, 18, 17, 16, 14, 13, 12)]
    assert len(kept) == FAILURES_KEPT
    assert (kept[0]["count"], kept[0]["rows"]) == (3, 6)
    assert capfd.readouterr().err.count("failure 15") == 1


def test_sys_exit_in_a_training_is_its_reason(tmp_path: Path, start_server: Callable[..., ModelServer]) -> None:
    (tmp_path / "leaving.py").write_text(
        SOURCE.replace('run.artefact.write_text("x")', 'raise SystemExit("bye")').replace("odd", "leaving")
    )
    server = start_server("--models-dir", str(tmp_path))
    task = server.client.post("/idunno/models/leaving-rows/train").json()["task"]
    assert server.wait_for_task(task)["reason"] == "SystemExit: bye (leaving.py, line 36)"
