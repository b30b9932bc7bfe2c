"""Fault injection, for tests of the server's clients: infer requests that fail as a broken server's would.

Only a server started with IDUNNO_TEST_FAULTS injects faults; any other refuses to. The variable's value, and the body
of `POST /idunno/test/faults`, which replaces it, are a JSON object:

- `kinds`: the faults to choose from at random: `error` (500), `garbage` (200 with an unreadable body), `half` (a
  truncated response), `hang` (no response until the client disconnects), `exit` (the process exits with code 70);
- `share`: the share of infer requests that fail, 0 to 1, by default 1;
- `calls`: how many fail at most, by default no limit; `model`: only requests to this model;
- `seed`: makes the choices repeatable.

`{}` injects nothing. `GET` on the same path returns the plan and how often each fault has been injected.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import asdict, dataclass, fields

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError, FaultPlanError
from .http_body import read_object
from .http_response import error_response, json_response
from .open_inference import HEADER_LENGTH

ENVIRONMENT = "IDUNNO_TEST_FAULTS"
FAULTS_PATH = "/idunno/test/faults"
KINDS = ("error", "garbage", "half", "hang", "exit")
EXIT_CODE = 70


@dataclass(frozen=True)
class FaultPlan:
    """Which requests fail, and how. The fields are the entries of the JSON object."""

    kinds: tuple[str, ...] = ()
    share: float = 1.0
    calls: int | None = None
    model: str | None = None
    seed: int = 0


def parse_plan(value: object) -> FaultPlan:
    """Raises FaultPlanError naming the entry at fault."""
    if not isinstance(value, dict):
        raise FaultPlanError("the plan must be a JSON object")
    names = [field.name for field in fields(FaultPlan)]
    unknown = sorted(value.keys() - set(names))
    if unknown:
        raise FaultPlanError(f"unknown entry {unknown[0]!r}; known entries: {', '.join(names)}")
    kinds = value.get("kinds", [])
    if not isinstance(kinds, list) or not all(kind in KINDS for kind in kinds):
        raise FaultPlanError(f'"kinds" must be a list of {", ".join(KINDS)}')
    share = value.get("share", 1.0)
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise FaultPlanError('"share" must be a number from 0 to 1')
    calls = value.get("calls")
    if calls is not None and (type(calls) is not int or calls < 0):
        raise FaultPlanError('"calls" must be a non-negative integer')
    model = value.get("model")
    if not isinstance(model, str | None):
        raise FaultPlanError('"model" must be a name')
    seed = value.get("seed", 0)
    if type(seed) is not int:
        raise FaultPlanError('"seed" must be an integer')
    return FaultPlan(tuple(kinds), float(share), calls, model, seed)


class FaultInjector:
    """ASGI middleware: fails the requests that the plan selects, and passes on all others."""

    def __init__(self, app: ASGIApp, plan: str) -> None:
        try:
            self._set_plan(parse_plan(orjson.loads(plan)))
        except orjson.JSONDecodeError as error:
            raise FaultPlanError(f"not JSON: {error}") from None
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path == FAULTS_PATH:
            response = await self._handle_plan(Request(scope, receive))
            await response(scope, receive, send)
        elif path.endswith("/infer") and (kind := self._choose(path)) is not None:
            await self._inject(kind, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _set_plan(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._random = random.Random(plan.seed)  # noqa: S311 - repeatable, not secret
        self._injected: Counter[str] = Counter()

    async def _handle_plan(self, request: Request) -> Response:
        try:
            if request.method == "POST":
                self._set_plan(parse_plan(await read_object(request)))
        except ApiError as error:
            return error_response(error.message, error.status)
        except FaultPlanError as error:
            return error_response(str(error), 400)
        return json_response({"plan": asdict(self._plan), "committed": dict(self._injected)})

    def _choose(self, path: str) -> str | None:
        plan = self._plan
        if not plan.kinds or (plan.model is not None and f"/models/{plan.model}/" not in path):
            return None
        if plan.calls is not None and self._injected.total() >= plan.calls:
            return None
        if self._random.random() >= plan.share:
            return None
        kind = self._random.choice(plan.kinds)
        self._injected[kind] += 1
        return kind

    async def _inject(self, kind: str, scope: Scope, receive: Receive, send: Send) -> None:
        if kind == "exit":
            os._exit(EXIT_CODE)
        if kind == "half":
            await self._truncate(scope, receive, send)
            return
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            if kind != "hang" and not message.get("more_body", False):
                break
        if kind == "error":
            response = error_response("injected fault", 500)
        else:
            headers = {HEADER_LENGTH: "8"}
            response = Response(b"\x00garbage\xff", 200, headers, "application/octet-stream")
        await response(scope, receive, send)

    async def _truncate(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends half of the real response. uvicorn closes a connection whose response is shorter than announced."""

        async def send_half(message: Message) -> None:
            if message["type"] == "http.response.body":
                body = message["body"]
                message = {"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True}
            await send(message)

        await self._app(scope, receive, send_half)
