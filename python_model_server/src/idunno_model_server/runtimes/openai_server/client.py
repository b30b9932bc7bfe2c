"""Calls to a server that speaks OpenAI's API: whose fault a failure is, and whether the call is repeated.

- The row's: 400, 413 and 422 about this input, and a 500 that comes twice while the server answers others.
- The server's: no connection, a broken reply, 408, 425, 429 and 5xx. The call is repeated until the row's time is over.
- The settings': 401, 402, 403, 404, 405, 409, 424, 501, and a quota that is used up. Nothing is repeated.
"""

from __future__ import annotations

import email.utils
import http.client
import random
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import ModelFileError, RowError
from ...json_codec import dumps, loads
from .endpoints import Request
from .pace import Pace

CONNECT_TIMEOUT_S = 10.0
REPLY_BYTES_MAX = 256 << 20
WAIT_FIRST_S, WAIT_MAX_S = 1.0, 60.0
WORDS_CHARACTERS_MAX = 400
ROWS_FAULT = frozenset({400, 413, 422})
SETTINGS_FAULT = frozenset({401, 402, 403, 404, 405, 407, 409, 410, 415, 424, 501})
QUOTA = "insufficient_quota"


class ServerDownError(Exception):
    """The server did not answer in the row's time."""


class ServerSettingsError(Exception):
    """The server refuses calls as they are: its operator, or the package, has to change something."""


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    retry_after_s: float | None

    def json(self) -> Mapping[str, Any]:
        """An object. Raises ValueError."""
        found = loads(self.body)
        if not isinstance(found, dict):
            raise ValueError("the reply is no object")
        return found

    def words(self) -> str:
        """What the server says of an error, in one line."""
        try:
            found: Any = self.json()
        except ValueError:
            found = self.body.decode(errors="replace")
        for key in ("error", "detail", "message", "msg"):
            while isinstance(found, list) and found:
                found = found[0]
            if isinstance(found, dict) and key in found:
                found = found[key]
        text = found if isinstance(found, str) else dumps(found).decode()
        return " ".join(text.split())[:WORDS_CHARACTERS_MAX] or "(no words)"


class Server:
    """A server's address, and a connection to it for each thread."""

    def __init__(self, url: str, headers: Mapping[str, str], ca_file: str | None = None) -> None:
        """Raises ModelFileError for what is no URL of a server, and where a secret would travel in the clear."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ModelFileError(f"url {url!r} is not one of a server, such as http://127.0.0.1:8000/v1")
        is_here = parts.hostname in ("localhost", "::1") or parts.hostname.startswith("127.")
        if parts.scheme == "http" and not is_here and headers:
            raise ModelFileError(f"url {url!r}: a token is sent only to https:// or to this machine")
        self.url = url
        self._path = parts.path.rstrip("/")
        self._host, self._port = parts.hostname, parts.port
        self._headers = dict(headers)
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._own = threading.local()

    def _connection(self) -> http.client.HTTPConnection:
        known: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if known is None:
            if self._tls is not None:
                known = http.client.HTTPSConnection(
                    self._host, self._port, timeout=CONNECT_TIMEOUT_S, context=self._tls
                )
            else:
                known = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
            self._own.connection = known
        return known

    def send(self, request: Request, timeout_s: float) -> Reply:
        """One call. Raises OSError or HTTPException if there is no reply in time. Redirects are replies."""
        connection = self._connection()
        try:
            if connection.sock is None:
                connection.timeout = min(CONNECT_TIMEOUT_S, timeout_s)
                connection.connect()
            connection.sock.settimeout(timeout_s)
            headers = {"Content-Type": request.content_type, "Accept": "application/json", **self._headers}
            connection.request("POST", self._path + request.path, request.body, headers)
            response = connection.getresponse()
            body = response.read(REPLY_BYTES_MAX + 1)
            if len(body) > REPLY_BYTES_MAX:
                raise http.client.HTTPException(f"the reply has more than {REPLY_BYTES_MAX} bytes")
            return Reply(response.status, body, _retry_after_s(response.headers.get("Retry-After")))
        except BaseException:
            # What is left of a broken call must not be the reply to the next.
            connection.close()
            self._own.connection = None
            raise


def _retry_after_s(value: str | None) -> float | None:
    """Seconds from now, of seconds or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def read_headers(token_file: str | None, more: Mapping[str, str]) -> dict[str, str]:
    """The headers of all calls. The token stays on the machine whose file holds it. Raises ModelFileError."""
    headers = dict(more)
    if token_file is not None:
        try:
            token = Path(token_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ModelFileError(f"token_file {token_file} cannot be read: {error.strerror}") from None
        if not token or not token.isprintable():
            raise ModelFileError(f"token_file {token_file} holds no token")
        headers["Authorization"] = f"Bearer {token}"
    return headers


class Caller:
    """Repeats calls until they have an outcome."""

    def __init__(self, server: Server, pace: Pace, row_timeout_s: float) -> None:
        self.server, self.pace, self.row_timeout_s = server, pace, row_timeout_s

    def call(self, request: Request) -> Mapping[str, Any]:
        """The reply. Raises RowError, ServerDownError or ServerSettingsError."""
        deadline = time.monotonic() + self.row_timeout_s
        wait_s, internal, why = WAIT_FIRST_S, 0, "the server was busy all the time"
        while True:
            with self.pace.turn(deadline) as came:
                if not came:
                    raise ServerDownError(f"{self.server.url}: no answer within {self.row_timeout_s:.0f} s: {why}")
                try:
                    reply = self.server.send(request, max(1.0, deadline - time.monotonic()))
                except (OSError, http.client.HTTPException) as error:
                    reply, why = None, str(error) or type(error).__name__
            if reply is not None:
                if reply.status == HTTPStatus.OK:
                    try:
                        found = reply.json()
                    except ValueError as error:
                        why = f"the reply is no JSON object: {error}"
                    else:
                        self.pace.went_well()
                        return found
                else:
                    why = f"{reply.status}: {reply.words()}"
                    internal += reply.status == HTTPStatus.INTERNAL_SERVER_ERROR
                    self._blame(reply, why, internal)
            told_s = reply.retry_after_s if reply is not None else None
            self.pace.busy(told_s if told_s is not None else wait_s * random.uniform(0.5, 1.0))  # noqa: S311
            wait_s = min(wait_s * 2, WAIT_MAX_S)

    def _blame(self, reply: Reply, why: str, internal: int) -> None:
        """Raises what ends the call."""
        if reply.status in ROWS_FAULT:
            raise RowError(f"the server answered {why}")
        is_moved = HTTPStatus.MULTIPLE_CHOICES <= reply.status < HTTPStatus.BAD_REQUEST
        is_quota = reply.status == HTTPStatus.TOO_MANY_REQUESTS and QUOTA.encode() in reply.body
        if reply.status in SETTINGS_FAULT or is_moved or is_quota:
            raise ServerSettingsError(f"{self.server.url} answered {why}")
        if internal > 1:
            raise InternalError(f"the server answered {why}")


class InternalError(Exception):
    """The server failed twice over a call: whether the row is to blame shows when it answers another."""
