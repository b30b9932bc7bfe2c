"""HTTP/1.1 as uvicorn speaks it, with bounds on a request's head and with refusals in the protocol's error form.

uvicorn bounds neither how long a head may take nor how large it may become, and says "Invalid HTTP request received."
in plain text. Bodies are bounded by the handlers, which know how large one may be.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_BYTES_MAX = 64 * 1024


class BoundedConnection(HttpToolsProtocol):
    """One client's connection. A head must be complete `head_s_max` seconds after the connection or its first byte."""

    def __init__(self, *arguments: Any, head_s_max: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_s_max = head_s_max
        self._head_bytes = 0
        self._in_head = True
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)  # resets the count where a head ends in this data
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(431, f"the request's head is larger than {HEAD_BYTES_MAX} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._late is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._forget_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is not a valid HTTP request")

    def _expect_head(self) -> None:
        late = f"the request's head did not arrive within {self._head_s_max} s"
        self._late = self.loop.call_later(self._head_s_max, self._refuse, 408, late)

    def _forget_timer(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self, status: int, message: str) -> None:
        """Answers for the application, which has not seen the request, and closes."""
        self._forget_timer()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:  # else the answer would land inside another one
            content = orjson.dumps({"error": message})
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(content)
            self.transport.write(STATUS_LINE[status] + head + content)
        self.transport.close()
