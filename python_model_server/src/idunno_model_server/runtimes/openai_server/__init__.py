"""The runtime `openai`: a server that speaks OpenAI's API, wherever it runs; the package says what it is asked.

runtime = "openai"
[openai]
url = "http://127.0.0.1:8000/v1"
model = "smollm2"
prompt = "Label this review as good or bad: {input}"
max_tokens = 16
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...errors import ModelFileError, RowError
from ...json_codec import JSONDecodeError, loads
from ...models.batch_model import BatchModel, SetupContext
from ..base import MadeModel, packaged
from .batch_line import batch_request, is_batch_line
from .client import Caller, InternalError, Server, ServerDownError, read_headers
from .endpoints import BadReplyError, Endpoint, Options, endpoint
from .pace import Pace
from .template import Template

IN_FLIGHT_MAX = 64
ROW_TIMEOUT_FIRST_S, TOKENS_PER_S_MIN = 60.0, 5
ANSWERS_KEPT_MAX = 4096
TEXTS = frozenset({"url", "endpoint", "model", "system", "prompt", "schema", "token_file", "ca_file", "canary"})
KEYS = TEXTS | {"max_tokens", "extra", "headers", "in_flight"}


class OpenAiServer(BatchModel):
    """Rows as calls to one server, many at a time."""

    description = "a server that speaks OpenAI's API"
    platform = "openai"
    batch_max = 256
    settings: Mapping[str, Any] = {}

    def setup(self, context: SetupContext) -> None:
        settings = self.settings
        self.endpoint = made_endpoint(settings, context.folder)
        headers = read_headers(settings.get("token_file"), settings.get("headers", {}))
        server = Server(str(settings["url"]), headers, settings.get("ca_file"))
        in_flight = int(settings.get("in_flight", IN_FLIGHT_MAX))
        self.caller = Caller(server, Pace(in_flight), self.row_timeout_s or ROW_TIMEOUT_FIRST_S)
        self.threads = ThreadPoolExecutor(in_flight, "openai")
        self.answered: OrderedDict[bytes, Any] = OrderedDict()

    def predict(self, inputs: list[bytes]) -> list[Any]:
        size = self.endpoint.rows_per_call
        # What a row of a batch is sent to is its own, so it is alone.
        size = 1 if any(map(is_batch_line, inputs)) else size
        groups = [inputs[first : first + size] for first in range(0, len(inputs), size)]
        calls: list[Future[list[Any]]] = [self.threads.submit(self._answers, group) for group in groups]
        outcomes: list[list[Any]] = []
        failure: BaseException | None = None
        for call, group in zip(calls, groups, strict=True):
            try:
                outcomes.append(call.result())
            except Exception as error:
                failure = failure or error
                outcomes.append([None] * len(group))
        answers = [answer for group in outcomes for answer in group]
        if failure is None:
            self.answered.clear()
            return answers
        # An answer may have cost money: a batch that is repeated here asks only for what it lacks.
        for row, answer in zip(inputs, answers, strict=True):
            if answer is not None and not isinstance(answer, RowError):
                self.answered[_key(row)] = answer
        while len(self.answered) > ANSWERS_KEPT_MAX:
            self.answered.popitem(last=False)
        raise failure

    def canary(self) -> bytes | None:
        canary = self.settings.get("canary")
        return None if canary is None else str(canary).encode()

    def _answers(self, rows: Sequence[bytes]) -> list[Any]:
        """One for each row; of several that cannot be answered together, each on its own."""
        kept = [self.answered.get(_key(row)) for row in rows]
        if all(answer is not None for answer in kept):
            return kept
        try:
            line = batch_request(rows[0], self.endpoint.options) if len(rows) == 1 else None
            if line is not None:
                return [dict(self.caller.call(line))]
            reply = self.caller.call(self.endpoint.request(rows))
            return self.endpoint.answers(reply, len(rows))
        except RowError as error:
            if len(rows) == 1:
                return [error]
        except BadReplyError as error:
            raise ServerDownError(f"{self.caller.server.url}: {error}") from None
        except InternalError as error:
            if len(rows) == 1:
                self._check_others_are_answered(error)
                return [RowError(str(error))]
        middle = len(rows) // 2
        return [*self._answers(rows[:middle]), *self._answers(rows[middle:])]

    def _check_others_are_answered(self, error: InternalError) -> None:
        """Raises, unless the server answers the canary: then the row is to blame."""
        canary = self.canary()
        if canary is None:
            raise ServerDownError(f"{self.caller.server.url}: {error}; a canary would show whose fault it is")
        try:
            self.caller.call(self.endpoint.request([canary]))
        except (RowError, InternalError) as of_canary:
            raise ServerDownError(f"{self.caller.server.url}: {error}; the canary fails, too: {of_canary}") from None


def _key(row: bytes) -> bytes:
    return hashlib.blake2b(row, digest_size=16).digest()


def made_endpoint(settings: Mapping[str, Any], folder: Path) -> Endpoint:
    """Raises ModelFileError for settings that cannot be."""
    unknown = sorted(settings.keys() - KEYS)
    if unknown:
        raise ModelFileError(f"[openai] has no key {unknown[0]!r}; it has {', '.join(sorted(KEYS))}")
    for key in ("url", "model"):
        if not isinstance(settings.get(key), str):
            raise ModelFileError(f"[openai] {key} is missing")
    max_tokens = settings.get("max_tokens")
    if max_tokens is not None and (not isinstance(max_tokens, int) or max_tokens < 1):
        raise ModelFileError("[openai] max_tokens is no number of tokens")
    options = Options(
        model=str(settings["model"]),
        prompt=Template(str(settings.get("prompt", "{input}"))),
        system=settings.get("system"),
        max_tokens=max_tokens,
        fixed=settings.get("extra", {}),
        schema=_schema(settings.get("schema"), folder),
    )
    return endpoint(str(settings.get("endpoint", "chat")), options)


def _schema(name: str | None, folder: Path) -> Mapping[str, Any] | None:
    if name is None:
        return None
    try:
        found = loads((folder / name).read_bytes())
    except (OSError, JSONDecodeError) as error:
        raise ModelFileError(f"[openai] schema {name}: {error}") from None
    if not isinstance(found, dict):
        raise ModelFileError(f"[openai] schema {name} is no JSON schema")
    return found


def openai_model(name: str, files: Path, entry: str, settings: Mapping[str, Any]) -> MadeModel:
    own = settings.get("openai")
    if not isinstance(own, Mapping):
        raise ModelFileError("it has no table [openai]")
    made = made_endpoint(own, files)
    # Without streaming, the first byte comes with the last token.
    timeout_s = ROW_TIMEOUT_FIRST_S + (made.options.max_tokens or 0) / TOKENS_PER_S_MIN
    attributes = {"__module__": __name__, "settings": own, "row_timeout_s": timeout_s}
    return MadeModel(packaged(type("OpenAiServer", (OpenAiServer,), attributes), name, files, settings))
