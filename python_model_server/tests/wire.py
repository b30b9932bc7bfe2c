"""The client side of the protocol. It shares no code with the server."""

from __future__ import annotations

import json
import struct
from typing import Any

import httpx


def binary_request(rows: list[bytes], **extra: Any) -> tuple[bytes, dict[str, str]]:
    """The body and headers of an infer request with binary rows and binary outputs."""
    data = b"".join(struct.pack("<I", len(row)) + row for row in rows)
    size = {"binary_data_size": len(data)}
    tensor = {"name": "input", "shape": [len(rows)], "datatype": "BYTES", "parameters": size}
    request = {"inputs": [tensor], "parameters": {"binary_data_output": True}, **extra}
    header = json.dumps(request).encode()
    return header + data, {"Inference-Header-Content-Length": str(len(header))}


def binary_response(response: httpx.Response) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """The JSON part and the rows of each binary output."""
    assert response.status_code == 200, response.text
    length = int(response.headers["Inference-Header-Content-Length"])
    header = json.loads(response.content[:length])
    data = response.content[length:]
    tensors = {}
    for output in header["outputs"]:
        size = output["parameters"]["binary_data_size"]
        part = data[:size]
        data = data[size:]
        rows = []
        while part:
            end = 4 + struct.unpack_from("<I", part)[0]
            rows.append(part[4:end])
            part = part[end:]
        assert output["shape"] == [len(rows)]
        tensors[output["name"]] = rows
    assert not data
    return header, tensors


def outputs(response: httpx.Response) -> list[bytes]:
    """The rows of `output`, if no row failed."""
    _, tensors = binary_response(response)
    assert not any(tensors["error"]), tensors["error"]
    return tensors["output"]


def top1(row: bytes) -> int:
    """The index of the most probable label."""
    return int(json.loads(row)["top5"][0]["index"])
