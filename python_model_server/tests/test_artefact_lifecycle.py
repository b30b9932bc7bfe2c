"""The life of an artefact: train, fetch, upload, load, unload."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ModelServer
from wire import outputs

from idunno_model_server.data_lock import DIRECTORY_VARIABLE
from idunno_model_server.errors import MissingPackageError
from idunno_model_server.models import registry
from idunno_model_server.training_result import train_model

# Of the reference conversion, with the onnx of requirements.lock.
SHA256 = {
    "efficientnet-lite0": "9616c0b61395f3031d11730bb99dbb6ee543b094260f241c7858ea64832edd61",
    "efficientnet-lite2": "5eb8c4c69025bf35a21b3df64111ec81cc40caaa1c7c9e0151211e89c84294c2",
    "squeezenet1.1": "4719957be1b515265e468140a25d5aa5e3cd122e8451c45573ad29c328903ca2",
}


@pytest.mark.parametrize("name", SHA256)
def test_conversion_gives_the_known_bytes(name: str, tmp_path: Path) -> None:
    artefact = train_model(registry()[name], tmp_path).artefact
    assert hashlib.sha256(artefact.read_bytes()).hexdigest() == SHA256[name]


def test_training_over_http_gives_the_known_bytes(artefacts: dict[str, bytes]) -> None:
    assert hashlib.sha256(artefacts["squeezenet1.1"]).hexdigest() == SHA256["squeezenet1.1"]


@pytest.mark.slow
def test_training_is_deterministic(server: ModelServer, artefacts: dict[str, bytes]) -> None:
    """The same seed gives the same bytes in another process; another seed gives others."""
    assert server.train("mnist-mlp", seed=0) == artefacts["mnist-mlp"]
    assert server.train("mnist-mlp", seed=1) != artefacts["mnist-mlp"]


@pytest.mark.slow
def test_one_unfinished_training_per_model(server: ModelServer) -> None:
    path = "/idunno/models/mnist-mlp/train"
    first = server.client.post(path, json={"seed": 5})
    again = server.client.post(path, json={"seed": 5})
    other = server.client.post(path, json={"seed": 6})
    assert first.status_code == again.status_code == 202
    assert first.json() == again.json()
    assert other.status_code == 409
    early = server.client.get(f"/idunno/tasks/{first.json()['task']}/artefact")
    assert early.status_code == 409
    assert "running" in early.json()["error"]
    server.train("mnist-mlp", seed=5)  # joins the running task and waits for its end


def test_bad_training_requests_are_refused(server: ModelServer) -> None:
    assert server.client.post("/idunno/models/resnet/train").status_code == 404
    assert server.client.post("/idunno/models/mnist-mlp/train", json={"seed": "a"}).status_code == 400
    assert server.client.post("/idunno/models/mnist-mlp/train", json={"seed": -1}).status_code == 400
    assert server.client.get("/idunno/tasks/0123").status_code == 404
    assert server.client.get("/idunno/tasks/0123/artefact").status_code == 404


def test_missing_weights_are_reported_with_the_command_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    command = f"run: {sys.executable} -m idunno_model_server.fetch_data {tmp_path}"
    for model in registry().values():
        with pytest.raises(MissingPackageError, match=re.escape(command)):
            model.require_sources()


@pytest.mark.parametrize("name", ["squeezenet1.1", "mnist-mlp", "newsgroups-linear"])
def test_training_without_the_train_extra_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    extra = {"onnx", "scipy", "sklearn"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module in extra else find_spec(module))
    with pytest.raises(MissingPackageError, match=r"install idunno-model-server\[train\]"):
        registry()[name].require_sources()


def test_repository_states(
    start_server: Callable[..., ModelServer], artefacts: dict[str, bytes], digits: list[bytes]
) -> None:
    fresh = start_server()
    model = "mnist-mlp"
    load = f"/v2/repository/models/{model}/load"

    def state() -> tuple[str, str]:
        rows = {row["name"]: row for row in fresh.client.post("/v2/repository/index").json()}
        return rows[model]["state"], rows[model]["version"]

    assert state() == ("UNAVAILABLE", "")
    assert fresh.client.post(load).status_code == 404
    unknown = fresh.client.post(load, json={"parameters": {"version": "ab" * 16}})
    assert unknown.status_code == 404
    version = fresh.deploy(model, artefacts[model])
    assert state() == ("READY", version)
    ready = fresh.client.post("/v2/repository/index", json={"ready": True}).json()
    assert [row["name"] for row in ready] == [model]
    expected = outputs(fresh.infer(model, digits[:2]))

    # An artefact that cannot be loaded leaves the loaded one in place.
    bad = "0123456789abcdef"
    fresh.client.put(f"/idunno/models/{model}/artefacts/{bad}", content=b"no artefact")
    refused = fresh.client.post(load, json={"parameters": {"version": bad}})
    assert refused.status_code == 400
    assert bad in refused.json()["error"]
    assert state() == ("READY", version)
    assert fresh.client.get(f"/v2/models/{model}/versions/{bad}/ready").status_code == 503

    assert fresh.client.post(f"/v2/repository/models/{model}/unload").status_code == 200
    assert state() == ("UNAVAILABLE", "")
    assert fresh.infer(model, digits[:2]).status_code == 503
    again = fresh.client.post(load, json={"parameters": {"version": version}})
    assert again.json()["state"] == "READY"
    assert outputs(fresh.infer(model, digits[:2])) == expected


def test_the_canary_rejects_the_artefact_of_another_model(server: ModelServer, artefacts: dict[str, bytes]) -> None:
    """It is a valid ONNX file; only running it shows that it does not fit."""
    version = "fedcba9876543210"
    model = "efficientnet-lite0"
    put = server.client.put(f"/idunno/models/{model}/artefacts/{version}", content=artefacts["squeezenet1.1"])
    assert put.status_code == 201
    load = server.client.post(f"/v2/repository/models/{model}/load", json={"parameters": {"version": version}})
    assert load.status_code == 400
    assert server.client.get(f"/v2/models/{model}/ready").status_code == 503


def test_bad_uploads_are_refused(server: ModelServer) -> None:
    path = "/idunno/models/mnist-mlp/artefacts"
    for version in ("short", "ABCDEF0123", "0" * 65, "..%2f..%2fetc", "0123456g"):
        assert server.client.put(f"{path}/{version}", content=b"x").status_code in (400, 404)
    assert server.client.put(f"{path}/{'0' * 8}", content=b"").status_code == 400
    assert server.client.put(f"/idunno/models/resnet/artefacts/{'0' * 8}", content=b"x").status_code == 404
    assert list((server.work_dir / "incoming").iterdir()) == []


def test_old_versions_are_removed(start_server: Callable[..., ModelServer], artefacts: dict[str, bytes]) -> None:
    """But never the loaded one."""
    fresh = start_server()
    loaded = fresh.deploy("mnist-mlp", artefacts["mnist-mlp"])
    for number in range(8):
        put = fresh.client.put(f"/idunno/models/mnist-mlp/artefacts/{number:08x}", content=b"x")
        assert put.status_code == 201
    kept = {path.stem for path in (fresh.work_dir / "artefacts" / "mnist-mlp").iterdir()}
    assert kept == {loaded, "00000004", "00000005", "00000006", "00000007"}
