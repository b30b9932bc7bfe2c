"""Parameters of an infer request: what reaches the model, what is refused, and the messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ModelServer
from wire import outputs

from idunno_model_server.errors import ParameterError
from idunno_model_server.parameters import Parameter, resolve
from idunno_model_server.user_models import discover

DECLARED = {
    "count": Parameter(5, low=1, high=9),
    "share": Parameter(0.5, low=0),
    "loud": Parameter(False),
    "mode": Parameter("fast", choices=("fast", "exact")),
    "title": Parameter(""),
}

ECHO = """
import json
from idunno_model_server.api import Model, Parameter, Runner

class Echo(Model):
    name, description, dataset = "echo", "answers with its parameters", "none"
    parameters = {"count": Parameter(5, "how many", low=1, high=9), "title": Parameter("none")}
    def train(self, dataset, run):
        run.artefact.write_text("x")
        return {}
    def load(self, artefact):
        return Answer()
    def canary(self):
        return b"x"

class Answer(Runner):
    def decode(self, content): return bytes(content).decode()
    def predict(self, text): return text * self.parameters["count"]
    def encode(self, text): return json.dumps([self.parameters["title"], text]).encode()
"""


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({}, "count", 5),
        ({"count": 9}, "count", 9),
        ({"count": "7"}, "count", 7),
        ({"share": 2}, "share", 2.0),
        ({"share": "0.25"}, "share", 0.25),
        ({"loud": "true"}, "loud", True),
        ({"loud": False}, "loud", False),
        ({"mode": "exact"}, "mode", "exact"),
        ({"title": "7"}, "title", "7"),
    ],
)
def test_values_are_accepted_also_as_strings(given: dict[str, Any], name: str, value: object) -> None:
    resolved = resolve("m", DECLARED, given)
    assert resolved.keys() == DECLARED.keys()
    assert (resolved[name], type(resolved[name])) == (value, type(value))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"size": 1}, "model m has no parameter 'size'; known parameters: count, loud, mode, share, title"),
        ({"count": 0}, "parameter 'count' of model m must be an integer from 1 to 9, not 0"),
        ({"count": True}, "an integer from 1 to 9, not True"),
        ({"count": "many"}, "not 'many'"),
        ({"count": 1.5}, "not 1.5"),
        ({"count": None}, "not None"),
        ({"share": "nan"}, "parameter 'share' of model m must be a number of at least 0, not 'nan'"),
        ({"share": "inf"}, "not 'inf'"),
        ({"share": -0.1}, "not -0.1"),
        ({"loud": "yes"}, "must be true or false, not 'yes'"),
        ({"loud": 1}, "must be true or false, not 1"),
        ({"mode": "slow"}, "must be one of fast, exact, not 'slow'"),
        ({"title": 7}, "must be a string, not 7"),
        ({"title": "x" * 5000}, "must be a string"),
    ],
)
def test_invalid_values_are_refused_by_name(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ParameterError) as error:
        resolve("m", DECLARED, given)
    assert says in str(error.value)


def test_a_model_without_parameters_refuses_any() -> None:
    with pytest.raises(ParameterError, match="model m has no parameter 'k'; known parameters: none"):
        resolve("m", {}, {"k": 1})


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ("Parameter([])", "with a bool, int, float or str as default"),
        ("7", "must be Parameter(default)"),
        ("Parameter(5, low=9)", "the default of parameter 'count' must be an integer of at least 9"),
    ],
)
def test_an_invalid_declaration_is_reported(tmp_path: Path, declared: str, says: str) -> None:
    (tmp_path / "echo.py").write_text(ECHO.replace('Parameter(5, "how many", low=1, high=9)', declared))
    (broken,) = discover(tmp_path, {}).broken
    assert says in broken.reason


def test_reserved_names_cannot_be_declared(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(ECHO.replace('"title":', '"priority":'))
    (broken,) = discover(tmp_path, {}).broken
    assert "parameter name 'priority'" in broken.reason


@pytest.fixture(scope="module")
def echo(start_server: Callable[..., ModelServer], tmp_path_factory: pytest.TempPathFactory) -> ModelServer:
    folder = tmp_path_factory.mktemp("models")
    (folder / "echo.py").write_text(ECHO)
    server = start_server("--models-dir", str(folder))
    server.deploy("echo", server.train("echo"))
    return server


def query(server: ModelServer, **parameters: Any) -> list[Any]:
    answer = server.infer("echo", [b"ab"], parameters={"binary_data_output": True, **parameters})
    values: list[Any] = json.loads(outputs(answer)[0])
    return values


def test_each_request_has_its_own_parameters(echo: ModelServer) -> None:
    assert query(echo) == ["none", "ababababab"]
    assert query(echo, count="2", title="two") == ["two", "abab"]
    assert query(echo, count=1, priority=3, timeout=5) == ["none", "ab"]
    assert query(echo) == ["none", "ababababab"]


def test_an_invalid_parameter_fails_the_request(echo: ModelServer) -> None:
    answer = echo.infer("echo", [b"ab"], parameters={"count": 10})
    assert answer.status_code == 400
    assert answer.json()["error"] == "parameter 'count' of model echo must be an integer from 1 to 9, not 10"


def test_parameters_can_be_checked_before_a_job_starts(echo: ModelServer) -> None:
    path = "/idunno/models/echo/parameters"
    good = echo.client.post(path, json={"parameters": {"count": "3"}})
    assert good.json() == {"parameters": {"count": 3, "title": "none"}}
    bad = echo.client.post(path, json={"parameters": {"k": "v"}})
    assert bad.status_code == 400
    assert bad.json()["error"] == "model echo has no parameter 'k'; known parameters: count, title"
    assert echo.client.post("/idunno/models/resnet/parameters", json={}).status_code == 404
    rows = {row["name"]: row["parameters"] for row in echo.client.get("/idunno/models").json()["models"]}
    assert rows["echo"]["count"] == {"type": "int", "default": 5, "description": "how many", "low": 1, "high": 9}


def test_predefined_models_list_fewer_labels_on_request(loaded: ModelServer, photos: list[bytes]) -> None:
    (all_five,) = outputs(loaded.infer("squeezenet1.1", photos[:1]))
    options = {"binary_data_output": True, "labels": "2"}
    (two,) = outputs(loaded.infer("squeezenet1.1", photos[:1], parameters=options))
    assert json.loads(two)["top5"] == json.loads(all_five)["top5"][:2]
