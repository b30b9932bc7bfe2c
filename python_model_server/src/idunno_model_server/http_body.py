"""Request bodies: read within bounds of size (413) and time (408); and clients that disconnect."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from . import open_inference
from .errors import ApiError

SMALL_BODY_BYTES_MAX = 1024 * 1024
SMALL_BODY_S_MAX = 10

T = TypeVar("T")


def announced_bytes(request: Request) -> int:
    """How long the body will be; 0 if the request does not say."""
    announced = request.headers.get("content-length", "0")
    return int(announced) if announced.isdecimal() and announced.isascii() else 0


async def body_chunks(request: Request, bytes_max: int = sys.maxsize) -> AsyncIterator[bytes]:
    """A request's body. Raises ApiError 413, and discards the rest of a body that is too large."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":  # a few compressed bytes can expand to any number
        raise ApiError(415, f"Content-Encoding {encoding!r} is not supported: send the body uncompressed")
    total = 0
    too_large = ApiError(413, f"the body is larger than {bytes_max} bytes")
    if announced_bytes(request) > bytes_max:
        raise too_large
    async for chunk in request.stream():
        total += len(chunk)
        if total > bytes_max:
            raise too_large
        yield chunk


async def steady_chunks(chunks: AsyncIterator[bytes], seconds_max: int) -> AsyncIterator[bytes]:
    """The same chunks. Raises ApiError 408 if none comes for so long: a large body may take as long as it moves."""
    while True:
        try:
            async with asyncio.timeout(seconds_max):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise ApiError(408, f"no byte of the body arrived for {seconds_max} s") from None
        if chunk is None:
            return
        yield chunk


async def read_body(request: Request, bytes_max: int, seconds_max: int) -> bytearray:
    """A body in memory. Raises ApiError 408 if it does not arrive in time: it must not hold a request slot forever."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds_max):
            async for chunk in body_chunks(request, bytes_max):
                body += chunk
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {seconds_max} s") from None
    return body


async def read_object(request: Request) -> dict[str, Any]:
    """A small JSON object; an empty body counts as {}."""
    body = await read_body(request, SMALL_BODY_BYTES_MAX, SMALL_BODY_S_MAX)
    return open_inference.parse_object(memoryview(body)) if body else {}


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Awaits `work`, but cancels it when the client disconnects: a cancelled lease must not keep the cores busy."""
    task = asyncio.ensure_future(work)

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    watcher = asyncio.create_task(watch())
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        watcher.cancel()
        task.cancel()
