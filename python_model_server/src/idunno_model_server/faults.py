"""Faults on purpose, for tests of what uses the server: infer calls that fail as a broken server's would.

Only a server started with IDUNNO_TEST_FAULTS has them; any other refuses to. Its value, and the body of
`POST /idunno/test/faults`, which takes its place, are a JSON object:

- `kinds`: which faults, drawn from at random: `error` (500), `garbage` (200 with an answer that is none), `half` (an
  answer that breaks off), `hang` (no answer until the client goes), `exit` (the process ends with code 70);
- `share`: the share of infer calls that fail, 0 to 1, by default 1;
- `calls`: how many fail at most, by default no limit; `model`: only this model's calls; `seed`: of the draws.

`{}` arms nothing. `GET` on the same path tells how often each fault was committed.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .bodies import json_response, read_object
from .errors import ApiError
from .protocol import HEADER_LENGTH

ENVIRONMENT = "IDUNNO_TEST_FAULTS"
FAULTS_PATH = "/idunno/test/faults"
KINDS = ("error", "garbage", "half", "hang", "exit")
EXIT_CODE = 70


@dataclass(frozen=True)
class Plan:
    """What is to go wrong."""

    kinds: tuple[str, ...] = ()
    share: float = 1.0
    calls: int | None = None
    model: str | None = None
    seed: int = 0


def parse_plan(value: Any) -> Plan:
    """Raises ValueError that names the entry at fault."""
    if not isinstance(value, dict):
        raise ValueError("the faults must be a JSON object")
    names = [field.name for field in fields(Plan)]
    unknown = sorted(value.keys() - set(names))
    if unknown:
        raise ValueError(f"unknown entry {unknown[0]!r}: there are {', '.join(names)}")
    kinds, share, calls = value.get("kinds", []), value.get("share", 1.0), value.get("calls")
    if not isinstance(kinds, list) or not all(kind in KINDS for kind in kinds):
        raise ValueError(f'"kinds" must be a list of {", ".join(KINDS)}')
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError('"share" must be a number from 0 to 1')
    if calls is not None and (type(calls) is not int or calls < 0):
        raise ValueError('"calls" must be a whole number')
    if not isinstance(value.get("model"), str | None) or type(value.get("seed", 0)) is not int:
        raise ValueError('"model" must be a name and "seed" a whole number')
    return Plan(tuple(kinds), float(share), calls, value.get("model"), value.get("seed", 0))


class Faults:
    """An ASGI application around the server's own, which it keeps from answering when a fault is due."""

    def __init__(self, app: ASGIApp, plan: str) -> None:
        try:
            self._arm(parse_plan(orjson.loads(plan)))
        except orjson.JSONDecodeError as error:
            raise ValueError(f"it is not JSON: {error}") from None
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path == FAULTS_PATH:
            response = await self._switch(Request(scope, receive))
            await response(scope, receive, send)
        elif path.endswith("/infer") and (kind := self._draw(path)) is not None:
            await self._commit(kind, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _arm(self, plan: Plan) -> None:
        self._plan = plan
        self._random = random.Random(plan.seed)
        self._committed: Counter[str] = Counter()

    async def _switch(self, request: Request) -> Response:
        try:
            if request.method == "POST":
                self._arm(parse_plan(await read_object(request)))
        except ApiError as error:
            return json_response({"error": error.message}, error.status)
        except ValueError as error:
            return json_response({"error": str(error)}, 400)
        return json_response({"plan": asdict(self._plan), "committed": dict(self._committed)})

    def _draw(self, path: str) -> str | None:
        plan = self._plan
        if not plan.kinds or (plan.model is not None and f"/models/{plan.model}/" not in path):
            return None
        if plan.calls is not None and self._committed.total() >= plan.calls:
            return None
        if self._random.random() >= plan.share:
            return None
        kind = self._random.choice(plan.kinds)
        self._committed[kind] += 1
        return kind

    async def _commit(self, kind: str, scope: Scope, receive: Receive, send: Send) -> None:
        if kind == "exit":
            os._exit(EXIT_CODE)
        if kind == "half":

            async def send_half(message: Message) -> None:
                if message["type"] == "http.response.body":
                    body = message["body"]
                    message = {"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True}
                await send(message)

            # It returns without having sent all that its head announces, and uvicorn then cuts the connection.
            await self._app(scope, receive, send_half)
            return
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            if kind != "hang" and not message.get("more_body", False):
                break
        if kind == "error":
            response = json_response({"error": "a fault on purpose"}, 500)
        else:
            headers = {HEADER_LENGTH: "8"}
            response = Response(b"\x00garbage\xff", 200, headers, "application/octet-stream")
        await response(scope, receive, send)
