"""HTTP/1.1 connections: uvicorn's, with bounds on a request's head and with errors in the protocol's form.

uvicorn limits neither how long a head may take nor how large it may get, and reports a bad one as plain text. Bodies
are bounded by the handlers, which know how large one may be.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .peers import is_own_descendant

HEAD_BYTES_MAX = 64 * 1024


class BoundedConnection(HttpToolsProtocol):
    """One connection. A head must be complete `head_s_max` seconds after the connection opened or its first byte."""

    def __init__(self, *arguments: Any, head_s_max: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_s_max = head_s_max
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if is_own_descendant(transport.get_extra_info("socket")):
            transport.abort()  # a model has nothing to ask its server
            return
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)  # resets the count if a head ends in this data
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(431, f"the request's head is larger than {HEAD_BYTES_MAX} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_timer is None:
            self._start_head_timer()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._stop_head_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "not a valid HTTP request")

    def _start_head_timer(self) -> None:
        message = f"the request's head did not arrive within {self._head_s_max} s"
        self._head_timer = self.loop.call_later(self._head_s_max, self._refuse, 408, message)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, message: str) -> None:
        """Responds in place of the application, which has not seen the request, and closes the connection."""
        self._stop_head_timer()
        if self.transport.is_closing():
            return
        # While another response is being sent, this one would land in its middle.
        if self.cycle is None or self.cycle.response_complete:
            content = orjson.dumps({"error": message})
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(content)
            self.transport.write(STATUS_LINE[status] + head + content)
        self.transport.close()
