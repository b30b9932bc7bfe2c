"""Triton's own client against the server: all parts of the protocol that it uses, in both forms, and the errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import ModelServer
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException
from wire import outputs

MODEL = "mnist-mlp"


@pytest.fixture
def client(loaded: ModelServer) -> Iterator[InferenceServerClient]:
    client = InferenceServerClient(f"127.0.0.1:{loaded.port}", concurrency=4)
    yield client
    client.close()


def tensor(rows: list[bytes], binary: bool = True) -> InferInput:
    value = InferInput("input", [len(rows)], "BYTES")
    return value.set_data_from_numpy(np.array(rows, dtype=object), binary_data=binary)


def answers(result: InferResult, name: str = "output") -> list[bytes]:
    return [row if isinstance(row, bytes) else row.encode() for row in result.as_numpy(name)]


def test_health_and_metadata(client: InferenceServerClient, loaded: ModelServer) -> None:
    version = loaded.versions[MODEL]
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, version)
    assert not client.is_model_ready(MODEL, "ab" * 16)
    assert not client.is_model_ready("efficientnet-lite2")
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(client.get_server_metadata()["extensions"])
    metadata = client.get_model_metadata(MODEL, version)
    assert (metadata["versions"], metadata["platform"]) == ([version], "numpy")
    assert [output["name"] for output in metadata["outputs"]] == ["output", "error"]


@pytest.mark.parametrize("binary_output", [True, False])
def test_infer_in_both_forms(
    client: InferenceServerClient, loaded: ModelServer, digits: list[bytes], binary_output: bool
) -> None:
    expected = outputs(loaded.infer(MODEL, digits[:4]))
    wanted = [InferRequestedOutput(name, binary_data=binary_output) for name in ("output", "error")]
    result = client.infer(MODEL, [tensor(digits[:4])], outputs=wanted, request_id="seven")
    assert answers(result) == expected
    assert answers(result, "error") == [b""] * 4
    header = result.get_response()
    assert (header["id"], header["model_version"]) == ("seven", loaded.versions[MODEL])
    unnamed = client.infer(MODEL, [tensor(digits[:4])], model_version=loaded.versions[MODEL])
    assert answers(unnamed) == expected


def test_json_rows(client: InferenceServerClient) -> None:
    result = client.infer(MODEL, [tensor([b"no image"], binary=False)])
    assert answers(result, "error") == [b"not an image file"]


def test_scheduling_parameters_are_accepted(client: InferenceServerClient, digits: list[bytes]) -> None:
    result = client.infer(MODEL, [tensor(digits[:1])], priority=1, timeout=1_000_000)
    assert len(answers(result)) == 1


def test_concurrent_requests_get_their_own_answers(
    client: InferenceServerClient, loaded: ModelServer, digits: list[bytes]
) -> None:
    expected = outputs(loaded.infer(MODEL, digits[:20]))
    calls = [client.async_infer(MODEL, [tensor([digit])], request_id=str(i)) for i, digit in enumerate(digits[:8])]
    results = [call.get_result() for call in calls]
    assert [answers(result)[0] for result in results] == expected[:8]
    assert [result.get_response()["id"] for result in results] == [str(i) for i in range(8)]

    def alone(digit: bytes) -> bytes:
        other = InferenceServerClient(f"127.0.0.1:{loaded.port}")
        (answer,) = answers(other.infer(MODEL, [tensor([digit])]))
        other.close()
        return answer

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(alone, digits[:20])) == expected


def test_repository_and_statistics(start_server: Callable[..., ModelServer], artefacts: dict[str, bytes]) -> None:
    fresh = start_server()
    client = InferenceServerClient(f"127.0.0.1:{fresh.port}")

    def state() -> str:
        states = {row["name"]: str(row["state"]) for row in client.get_model_repository_index()}
        return states[MODEL]

    assert state() == "UNAVAILABLE"
    with pytest.raises(InferenceServerException, match="has no artefact here"):
        client.load_model(MODEL)
    fresh.deploy(MODEL, artefacts[MODEL])
    client.unload_model(MODEL)
    assert (state(), client.is_model_ready(MODEL)) == ("UNAVAILABLE", False)
    with pytest.raises(InferenceServerException, match="mnist-mlp is not loaded: unloaded"):
        client.infer(MODEL, [tensor([b"x"])])
    client.load_model(MODEL)
    assert (state(), client.is_model_ready(MODEL)) == ("READY", True)
    with pytest.raises(InferenceServerException, match="unknown load parameter 'config'"):
        client.load_model(MODEL, config="{}")

    client.infer(MODEL, [tensor([b"x", b"y"])])
    (row,) = client.get_inference_statistics(MODEL, fresh.versions[MODEL])["model_stats"]
    assert (row["name"], row["inference_count"], row["execution_count"]) == (MODEL, 2, 1)
    assert row["inference_stats"]["success"]["count"] == 1
    with pytest.raises(InferenceServerException, match="has no version"):
        client.get_inference_statistics(MODEL, "ab" * 16)
    client.close()


def numbers(name: str = "input", shape: tuple[int, ...] = (1,)) -> InferInput:
    return InferInput(name, list(shape), "FP32").set_data_from_numpy(np.zeros(shape, "f4"))


@pytest.mark.parametrize(
    ("model", "inputs", "status", "says"),
    [
        ("resnet", [tensor([b"x"])], "404", "unknown model 'resnet'"),
        ("efficientnet-lite2", [tensor([b"x"])], "503", "efficientnet-lite2 is not loaded"),
        (MODEL, [numbers()], "400", "input \"input\" must have datatype BYTES, not 'FP32'"),
        (MODEL, [numbers("pixels")], "400", "unknown input 'pixels'"),
        (MODEL, [tensor([b"x"]), tensor([b"y"])], "400", "exactly one tensor"),
    ],
)
def test_errors_have_the_protocols_form(
    client: InferenceServerClient, model: str, inputs: list[InferInput], status: str, says: str
) -> None:
    with pytest.raises(InferenceServerException) as error:
        client.infer(model, inputs)
    assert error.value.status() == status
    assert says in error.value.message()


def test_a_matrix_is_refused(client: InferenceServerClient) -> None:
    matrix = InferInput("input", [1, 1], "BYTES").set_data_from_numpy(np.array([[b"x"]], dtype=object))
    with pytest.raises(InferenceServerException, match=r'input "input" must have shape \[n\], not \[1, 1\]'):
        client.infer(MODEL, [matrix])


def test_compressed_bodies_are_refused(client: InferenceServerClient, digits: list[bytes]) -> None:
    with pytest.raises(InferenceServerException, match="Content-Encoding 'gzip' is not supported") as error:
        client.infer(MODEL, [tensor(digits[:1])], request_compression_algorithm="gzip")
    assert error.value.status() == "415"
