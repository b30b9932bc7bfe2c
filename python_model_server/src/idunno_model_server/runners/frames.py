"""Messages between the server and a runner: a JSON object, and bytes behind it that are passed on as they are.

    4 bytes: length of the JSON | 8 bytes: length of the rest | JSON | rest

The server does not trust a runner, so it reads no frame beyond its bounds.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_LENGTHS = struct.Struct("<IQ")
HEAD_BYTES_MAX = 1024 * 1024
READ_AHEAD_BYTES = 1024 * 1024
"""The limit of the streams."""

Part = bytes | bytearray | memoryview


class FrameError(Exception):
    """The other process does not keep to the format."""


@dataclass(frozen=True)
class Frame:
    """One message. The key "do" of the head says what it is."""

    head: dict[str, Any]
    body: bytes | bytearray = b""


async def read_frame(reader: asyncio.StreamReader, body_bytes_max: int) -> Frame | None:
    """The next frame; None at the end. Raises FrameError."""
    try:
        head_length, body_length = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
        if head_length > HEAD_BYTES_MAX or body_length > body_bytes_max:
            raise FrameError(f"a message of {head_length} + {body_length} bytes is longer than is allowed")
        head = json.loads(await reader.readexactly(head_length))
        if not isinstance(head, dict):
            raise FrameError("a message is no object")
        return Frame(head, await reader.readexactly(body_length) if body_length else b"")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except ValueError as error:
        raise FrameError(f"a message is not JSON: {error}") from None


def receive_frame(connection: socket.socket) -> Frame | None:
    """The next frame of a peer that is trusted, received by a thread into its place. None at the end."""
    lengths = _receive(connection, _LENGTHS.size)
    if lengths is None:
        return None
    head_length, body_length = _LENGTHS.unpack(lengths)
    head, body = _receive(connection, head_length), _receive(connection, body_length)
    return None if head is None or body is None else Frame(json.loads(head), body)


def _receive(connection: socket.socket, size: int) -> bytearray | None:
    buffer = bytearray(size)
    rest = memoryview(buffer)
    while rest:
        try:
            received = connection.recv_into(rest)
        except ConnectionError:
            return None
        if received == 0:
            return None
        rest = rest[received:]
    return buffer


def write_frame(writer: asyncio.StreamWriter, head: dict[str, Any], parts: Sequence[Part] = ()) -> None:
    """Queues a frame. All parts together are its body."""
    writer.write(_encode(head, parts))
    for part in parts:
        if len(part):
            writer.write(part)


def send_frame(connection: socket.socket, head: dict[str, Any], parts: Sequence[Part] = ()) -> None:
    """Sends a frame, and waits until it is on its way."""
    connection.sendall(_encode(head, parts))
    for part in parts:
        connection.sendall(part)


def _encode(head: dict[str, Any], parts: Sequence[Part]) -> bytes:
    encoded = json.dumps(head, separators=(",", ":")).encode()
    return _LENGTHS.pack(len(encoded), sum(map(len, parts))) + encoded
