"""The last lines that a runner wrote to standard output and standard error.

Bounds: LINES_MAX lines of LINE_BYTES_MAX bytes. What is written faster than READ_BYTES in READ_PAUSE_S waits in the
pipe, so that a model that floods its output slows itself down, and not the server.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable

from ..user_code import printable

LINES_MAX = 100
LINE_BYTES_MAX = 500
READ_BYTES = 64 * 1024
READ_PAUSE_S = 0.02
FATAL = "Fatal Python error: "


class OutputTail:
    """The read end of a pipe, and what came out of it last."""

    def __init__(self, write_line: Callable[[str], None]) -> None:
        self.lines: deque[str] = deque(maxlen=LINES_MAX)
        self.bytes_read = 0
        self._write_line = write_line
        self._partial = b""

    def add(self, chunk: bytes) -> None:
        self.bytes_read += len(chunk)
        *whole, rest = (self._partial + chunk).split(b"\n")
        self._partial = rest[:LINE_BYTES_MAX]
        for line in whole[-LINES_MAX:]:
            self._keep(line)

    def finish(self) -> None:
        if self._partial:
            self._keep(self._partial)
            self._partial = b""

    def _keep(self, line: bytes) -> None:
        text = printable(line[:LINE_BYTES_MAX].decode(errors="replace").rstrip("\r"))
        self.lines.append(text)
        self._write_line(text)

    def summary(self, characters_max: int) -> str:
        """The last lines; if Python itself reported a crash, those from there on."""
        lines = [line.strip() for line in self.lines if line.strip()]
        fatal = [index for index, line in enumerate(lines) if line.startswith(FATAL)]
        if fatal:
            return " | ".join(lines[fatal[-1] :])[:characters_max]
        text = " | ".join(lines[-10:])
        return text if len(text) <= characters_max else "..." + text[-characters_max:]

    async def read(self, descriptor: int) -> None:
        """Reads the pipe to its end, and closes it."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_BYTES)
        pipe = os.fdopen(descriptor, "rb", buffering=0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            while chunk := await reader.read(READ_BYTES):
                self.add(chunk)
                if len(chunk) >= READ_BYTES // 2:
                    await asyncio.sleep(READ_PAUSE_S)
        finally:
            self.finish()
            transport.close()
