"""The Open Inference Protocol: health, metadata, infer in all forms, statistics, and refused requests."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from conftest import ModelServer
from wire import binary_request, binary_response, outputs, top1

MLP = "/v2/models/mnist-mlp"


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "input", "shape": [1], "datatype": "BYTES", "data": ["x"], **changes}


def test_health_and_server_metadata(server: ModelServer) -> None:
    assert server.client.get("/v2/health/live").json() == {"live": True}
    assert server.client.get("/v2/health/ready").json() == {"ready": True}
    metadata = server.client.get("/v2").json()
    assert metadata["name"] == "idunno-model-server"
    assert set(metadata["extensions"]) == {"binary_tensor_data", "model_repository", "statistics", "idunno"}


def test_predefined_models_are_listed(server: ModelServer) -> None:
    rows = server.client.get("/idunno/models").json()["models"]
    names = [row["name"] for row in rows]
    assert names == [
        "all-minilm-l6-v2",
        "efficientnet-lite0",
        "efficientnet-lite2",
        "mnist-mlp",
        "newsgroups-linear",
        "squeezenet1.1",
    ]
    assert all(row["description"] for row in rows)


def test_model_metadata_and_ready(loaded: ModelServer) -> None:
    version = loaded.versions["mnist-mlp"]
    for path in (MLP, f"{MLP}/versions/{version}"):
        metadata = loaded.client.get(path).json()
        assert metadata["name"] == "mnist-mlp"
        assert metadata["versions"] == [version]
        assert metadata["inputs"] == [{"name": "input", "datatype": "BYTES", "shape": [-1]}]
        assert [output["name"] for output in metadata["outputs"]] == ["output", "error"]
        assert loaded.client.get(f"{path}/ready").json() == {"name": "mnist-mlp", "ready": True}


def test_digits_are_recognised(loaded: ModelServer, digits: list[bytes]) -> None:
    header, tensors = binary_response(loaded.infer("mnist-mlp", digits, id="batch-7"))
    assert (header["model_name"], header["id"]) == ("mnist-mlp", "batch-7")
    assert header["model_version"] == loaded.versions["mnist-mlp"]
    correct = sum(top1(row) == i % 10 for i, row in enumerate(tensors["output"]))
    assert correct >= 95
    assert tensors["error"] == [b""] * len(digits)


def test_json_and_binary_agree(loaded: ModelServer, digits: list[bytes]) -> None:
    expected = outputs(loaded.infer("mnist-mlp", digits[:3]))
    data = [base64.b64encode(row).decode() for row in digits[:3]]
    request = {"inputs": [tensor(shape=[3], data=data, parameters={"content": "base64"})]}
    answer = loaded.client.post(f"{MLP}/infer", json=request).json()
    by_name = {output["name"]: output for output in answer["outputs"]}
    assert [row.encode() for row in by_name["output"]["data"]] == expected
    assert by_name["error"] == {"name": "error", "datatype": "BYTES", "shape": [3], "data": ["", "", ""]}


def test_outputs_can_be_selected(loaded: ModelServer, digits: list[bytes]) -> None:
    wanted = [{"name": "error", "parameters": {"binary_data": False}}, {"name": "output"}]
    response = loaded.infer("mnist-mlp", digits[:1], outputs=wanted)
    header = json.loads(response.content[: int(response.headers["Inference-Header-Content-Length"])])
    assert [output["name"] for output in header["outputs"]] == ["error", "output"]
    assert header["outputs"][0]["data"] == [""]
    assert header["outputs"][1]["parameters"]["binary_data_size"] > 0


def test_an_answer_lists_five_labels_in_order(loaded: ModelServer, photos: list[bytes]) -> None:
    (row,) = outputs(loaded.infer("squeezenet1.1", photos[:1]))
    top5 = json.loads(row)["top5"]
    assert len(top5) == 5
    assert all(set(entry) == {"index", "label", "probability"} for entry in top5)
    probabilities = [entry["probability"] for entry in top5]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(round(value, 6) == value for value in probabilities)


def test_a_json_string_is_utf8(loaded: ModelServer) -> None:
    answer = loaded.client.post(f"{MLP}/infer", json={"inputs": [tensor(data=["é"])]}).json()
    assert answer["outputs"][1]["data"] == ["not an image file"]


@pytest.mark.parametrize(
    ("request_json", "says"),
    [
        ([], "JSON object"),
        ({}, '"inputs" must hold exactly one'),
        ({"inputs": [tensor(), tensor()]}, '"inputs" must hold exactly one'),
        ({"inputs": [tensor(name="image")]}, "unknown input 'image'"),
        ({"inputs": [tensor(datatype="FP32")]}, "datatype BYTES, not 'FP32'"),
        ({"inputs": [tensor(shape=[1, 1])]}, "shape [n]"),
        ({"inputs": [tensor(shape=[True])]}, "shape [n]"),
        ({"inputs": [tensor(shape=[0], data=[])]}, "1 to 65536 rows, not 0"),
        ({"inputs": [tensor(shape=[-1])]}, "1 to 65536 rows, not -1"),
        ({"inputs": [tensor(shape=[2])]}, "but 1 rows of data"),
        ({"inputs": [tensor(data=[1])]}, "list of strings"),
        ({"inputs": [tensor(data=["?"], parameters={"content": "base64"})]}, "not base64"),
        ({"inputs": [tensor(parameters={"content": "hex"})]}, "'hex'"),
        ({"inputs": [tensor(parameters=[1])]}, '"parameters" must be an object'),
        ({"inputs": [tensor()], "outputs": [{"name": "probs"}]}, "unknown output 'probs'"),
        ({"inputs": [tensor()], "outputs": []}, "non-empty"),
        ({"inputs": [tensor()], "outputs": [{"name": "error"}, {"name": "error"}]}, "'error' is requested twice"),
        ({"inputs": [tensor()], "id": 7}, '"id" must be a string'),
        ({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}, "true or false"),
    ],
)
def test_bad_requests_are_refused(loaded: ModelServer, request_json: Any, says: str) -> None:
    response = loaded.client.post(f"{MLP}/infer", json=request_json)
    assert response.status_code == 400
    assert says in response.json()["error"]


def test_bad_binary_framing_is_refused(loaded: ModelServer) -> None:
    content, headers = binary_request([b"abc"])
    length = int(headers["Inference-Header-Content-Length"])
    declared = json.loads(content[:length])
    declared["inputs"][0]["parameters"]["binary_data_size"] = 6
    short = json.dumps(declared).encode()
    cases = [
        (content[:-1], headers, "bytes follow the JSON"),
        (content, {"Inference-Header-Content-Length": "99999"}, "Inference-Header-Content-Length"),
        (content, {"Inference-Header-Content-Length": "-1"}, "Inference-Header-Content-Length"),
        (short + b"\x03\x00\x00\x00ab", {"Inference-Header-Content-Length": str(len(short))}, "inside row 0"),
        (short + b"\x01\x00\x00\x00a\x00", {"Inference-Header-Content-Length": str(len(short))}, "length of row 1"),
    ]
    for body, header, says in cases:
        response = loaded.client.post(f"{MLP}/infer", content=body, headers=header)
        assert response.status_code == 400
        assert says in response.json()["error"]


def test_unknown_and_unloaded_models_are_refused(loaded: ModelServer, digits: list[bytes]) -> None:
    for method, path in [("GET", ""), ("GET", "/ready"), ("POST", "/infer"), ("GET", "/stats")]:
        response = loaded.client.request(method, f"/v2/models/resnet{path}")
        assert response.status_code == 404
        assert "'resnet'" in response.json()["error"]
    response = loaded.infer("efficientnet-lite2", digits[:1])
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert "efficientnet-lite2" in response.json()["error"]
    assert loaded.client.get("/v2/models/efficientnet-lite2/ready").status_code == 503
    assert loaded.client.get(f"{MLP}/versions/{'ab' * 16}/ready").status_code == 404
    assert loaded.client.get(f"{MLP}/versions/..%2f/ready").status_code in (400, 404)
    unknown = loaded.client.get("/v3")
    assert unknown.status_code == 404
    assert "/v3" in unknown.json()["error"]
    assert loaded.client.get(f"{MLP}/infer").status_code == 405


def test_statistics_count_rows_and_requests(loaded: ModelServer, digits: list[bytes]) -> None:
    def row() -> dict[str, Any]:
        entry: dict[str, Any] = loaded.client.get(f"{MLP}/stats").json()["model_stats"][0]
        return entry

    before = row()
    outputs(loaded.infer("mnist-mlp", digits[:7]))
    assert loaded.client.post(f"{MLP}/infer", json={}).status_code == 400
    after = row()
    assert after["inference_count"] - before["inference_count"] == 7
    assert after["execution_count"] - before["execution_count"] == 1
    for name, more in [("success", 1), ("fail", 1), ("compute_infer", 1), ("queue", 1)]:
        assert after["inference_stats"][name]["count"] - before["inference_stats"][name]["count"] == more
    assert any(batch["batch_size"] == 7 and batch["compute_infer"]["ns"] > 0 for batch in after["batch_stats"])
    assert len(loaded.client.get("/v2/models/stats").json()["model_stats"]) == 6
