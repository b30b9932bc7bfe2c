"""The Open Inference Protocol v2 on the wire: one BYTES tensor in, two out, as JSON or as binary tensor data.

Pure functions over bytes. Sources: the protocol's REST specification and Triton's binary tensor extension.

Bounds: the caller limits the body; a request has at most ROWS_MAX rows and an id of ID_CHARACTERS_MAX characters.
Not supported: other datatypes and shapes. The protocol's scheduling parameters are accepted and ignored.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from .bytes_tensor import ROWS_MAX, Tensor, TensorError, join_rows, split_rows
from .errors import ApiError
from .models.base import Row
from .parameters import RESERVED

INPUT = "input"
OUTPUTS = ("output", "error")
HEADER_LENGTH = "inference-header-content-length"
ID_CHARACTERS_MAX = 256


@dataclass(frozen=True)
class InferRequest:
    """A checked request."""

    id: str | None
    rows: list[Row]
    outputs: dict[str, bool]
    """The requested outputs in order; True means as binary data."""
    parameters: dict[str, Any]
    """The model's parameters, unchecked. Those that the protocol reserves are left out."""
    binary: memoryview
    """The rows as a binary tensor, if they came as one; otherwise empty."""

    def tensor(self) -> bytes | memoryview:
        """The rows as a binary tensor."""
        return self.binary if len(self.binary) else join_rows(self.rows)


@dataclass(frozen=True)
class InferResponse:
    """An encoded response."""

    content: bytes
    header_length: int | None
    """The length of the JSON part if binary data follows it."""


def parse_infer(body: memoryview, header_length: str | None) -> InferRequest:
    """Raises ApiError 400. Long binary rows are slices of the body, not copies."""
    header, tensors = _split(body, header_length)
    request = parse_object(header)
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise ApiError(400, f'"inputs" must hold exactly one tensor, "{INPUT}"')
    request_id = request.get("id")
    if request_id is not None and (not isinstance(request_id, str) or len(request_id) > ID_CHARACTERS_MAX):
        raise ApiError(400, f'"id" must be a string of at most {ID_CHARACTERS_MAX} characters')
    model_parameters = {name: value for name, value in parameters(request).items() if name not in RESERVED}
    rows = _rows(inputs[0], tensors)
    return InferRequest(request_id, rows, _requested_outputs(request), model_parameters, tensors)


def parse_object(text: Row) -> dict[str, Any]:
    """A JSON object. Raises ApiError 400."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the request is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the request must be a JSON object")
    return value


def parameters(parent: dict[str, Any]) -> dict[str, Any]:
    """The "parameters" object of a request, input or output; empty if there is none. Raises ApiError 400."""
    value = parent.get("parameters") or {}
    if not isinstance(value, dict):
        raise ApiError(400, '"parameters" must be an object')
    return value


def _split(body: memoryview, header_length: str | None) -> tuple[memoryview, memoryview]:
    """The JSON part and the binary part of a body."""
    if header_length is None:
        return body, body[len(body) :]
    if not (header_length.isascii() and header_length.isdigit()) or int(header_length) > len(body):
        raise ApiError(400, f"Inference-Header-Content-Length must be at most {len(body)}, the body's length")
    return body[: int(header_length)], body[int(header_length) :]


def _rows(tensor: dict[str, Any], binary: memoryview) -> list[Row]:
    if tensor.get("name") != INPUT:
        raise ApiError(400, f'unknown input {tensor.get("name")!r}: the only input is "{INPUT}"')
    if tensor.get("datatype") != "BYTES":
        raise ApiError(400, f'input "{INPUT}" must have datatype BYTES, not {tensor.get("datatype")!r}')
    shape = tensor.get("shape")
    if not isinstance(shape, list) or len(shape) != 1 or type(shape[0]) is not int:
        raise ApiError(400, f'input "{INPUT}" must have shape [n], not {shape!r}')
    if not 1 <= shape[0] <= ROWS_MAX:
        raise ApiError(400, f'input "{INPUT}" must have 1 to {ROWS_MAX} rows, not {shape[0]}')
    options = parameters(tensor)
    size = options.get("binary_data_size")
    if size is None:
        if len(binary):
            raise ApiError(400, f"{len(binary)} bytes follow the JSON, but there is no binary_data_size")
        rows = _json_rows(tensor.get("data"), options.get("content"))
    else:
        if "data" in tensor:
            raise ApiError(400, f'input "{INPUT}" has both "data" and binary_data_size')
        if type(size) is not int or size != len(binary):
            raise ApiError(
                400, f'input "{INPUT}": binary_data_size is {size!r}, but {len(binary)} bytes follow the JSON'
            )
        try:
            rows = split_rows(binary)
        except TensorError as error:
            raise ApiError(400, f'input "{INPUT}": {error}') from None
    if len(rows) != shape[0]:
        raise ApiError(400, f'input "{INPUT}" has shape {shape}, but {len(rows)} rows of data')
    return rows


def _json_rows(data: Any, content: Any) -> list[Row]:
    """Strings are taken as UTF-8, or as base64 if the input says `"content": "base64"`."""
    if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
        raise ApiError(400, f'"data" of input "{INPUT}" must be a list of strings')
    if content is None:
        return [item.encode("utf-8", "surrogatepass") for item in data]
    if content != "base64":
        raise ApiError(400, f'parameter "content" must be "base64", not {content!r}')
    try:
        return [base64.b64decode(item, validate=True) for item in data]
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f'"data" of input "{INPUT}" is not base64: {error}') from None


def _requested_outputs(request: dict[str, Any]) -> dict[str, bool]:
    default = _flag(parameters(request), "binary_data_output", default=False)
    outputs = request.get("outputs")
    if outputs is None:
        return dict.fromkeys(OUTPUTS, default)
    if not isinstance(outputs, list) or not outputs:
        raise ApiError(400, '"outputs" must be a non-empty list')
    requested: dict[str, bool] = {}
    for output in outputs:
        name = output.get("name") if isinstance(output, dict) else None
        if name not in OUTPUTS:
            raise ApiError(400, f"unknown output {name!r}; known outputs: {', '.join(OUTPUTS)}")
        if name in requested:
            raise ApiError(400, f"output {name!r} is requested twice")
        requested[name] = _flag(parameters(output), "binary_data", default=default)
    return requested


def _flag(options: dict[str, Any], name: str, *, default: bool) -> bool:
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise ApiError(400, f'parameter "{name}" must be true or false')
    return value


def encode_infer(request: InferRequest, model: str, version: str, tensors: Mapping[str, Tensor]) -> InferResponse:
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for name, as_binary in request.outputs.items():
        tensor = tensors[name]
        output: dict[str, Any] = {"name": name, "datatype": "BYTES", "shape": [len(request.rows)]}
        if as_binary:
            data = join_rows(tensor)
            output["parameters"] = {"binary_data_size": len(data)}
            binary.append(data)
        else:
            rows = tensor if isinstance(tensor, list) else split_rows(memoryview(tensor))
            output["data"] = [bytes(row).decode() for row in rows]
        outputs.append(output)
    response: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if request.id is not None:
        response["id"] = request.id
    header = orjson.dumps(response)
    if not binary:
        return InferResponse(header, None)
    return InferResponse(b"".join((header, *binary)), len(header))
