"""Messages between the server and a runner: a JSON object, and bytes behind it that are passed on as they are.

    4 bytes: length of the JSON | 8 bytes: length of the rest | JSON | rest

The server does not trust a runner, so it reads no frame beyond its bounds.
"""

from __future__ import annotations

import asyncio
import json
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
    body: bytes = b""


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


def write_frame(writer: asyncio.StreamWriter, head: dict[str, Any], parts: Sequence[Part] = ()) -> None:
    """Queues a frame. All parts together are its body."""
    encoded = json.dumps(head, separators=(",", ":")).encode()
    writer.write(_LENGTHS.pack(len(encoded), sum(map(len, parts))) + encoded)
    for part in parts:
        if len(part):
            writer.write(part)
