"""The endpoints of OpenAI's API: what is sent for rows, and what of the reply is their answer."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import ModelFileError, RowError
from ...json_codec import JSONDecodeError, dumps, loads
from .template import Row, Template

EMBEDDINGS_PER_CALL_MAX = 32
IMAGES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp"}
"""The first bytes of the images that servers take, and their types."""


class BadReplyError(Exception):
    """A reply that is none of its endpoint's: the server's fault."""


@dataclass(frozen=True)
class Request:
    """One call."""

    path: str
    body: bytes
    content_type: str = "application/json"


@dataclass(frozen=True)
class Options:
    """What the package says of its calls."""

    model: str
    prompt: Template
    system: str | None
    max_tokens: int | None
    fixed: Mapping[str, Any]
    """Merged into each body last."""
    schema: Mapping[str, Any] | None


class Endpoint(ABC):
    """Turns rows into calls, and replies into answers."""

    rows_per_call = 1

    def __init__(self, options: Options) -> None:
        self.options = options

    @abstractmethod
    def request(self, rows: Sequence[bytes]) -> Request:
        """Raises RowError, if there is one row."""

    @abstractmethod
    def answers(self, reply: Mapping[str, Any], rows: int) -> list[Any]:
        """One for each row. Raises BadReplyError."""

    def _json(self, path: str, body: Mapping[str, Any]) -> Request:
        return Request(path, dumps({"model": self.options.model, **body, **self.options.fixed}))


class Generation(Endpoint):
    """An endpoint that writes a text for one row."""

    whole_body = ""
    """The field by which a row is the whole body of a call."""
    path = ""

    def request(self, rows: Sequence[bytes]) -> Request:
        (content,) = rows
        image = image_type(content)
        if image:
            return self._json(self.path, self.of_image(image, content))
        row = Row(content)
        if row.fields is not None and self.whole_body in row.fields:
            return self._json(self.path, row.fields)
        return self._json(self.path, self.of_text(self.options.prompt.fill(row)))

    @abstractmethod
    def of_text(self, prompt: str) -> dict[str, Any]:
        """The body for a prompt."""

    def of_image(self, kind: str, content: bytes) -> dict[str, Any]:
        raise RowError(f"the row is an image ({kind}), which {self.path} does not take")

    def answer(self, text: str | None, finish: str | None, reply: Mapping[str, Any]) -> Any:
        """A row's answer. With a schema, a text that is cut or no JSON fails the row."""
        answer: dict[str, Any] = {"text": text}
        if self.options.schema is not None:
            if finish == "length":
                raise RowError(f"the answer was cut at max_tokens = {self.options.max_tokens}")
            try:
                answer = {"json": loads(text or "")}
            except JSONDecodeError as error:
                raise RowError(f"the answer is no JSON: {error}") from None
        elif not text:
            raise RowError(f"the answer is empty (finish_reason {finish!r})")
        usage = reply.get("usage")
        return answer | {
            "finish_reason": finish,
            "model": reply.get("model"),
            "usage": usage if isinstance(usage, dict) else None,
        }


class Chat(Generation):
    """`/v1/chat/completions`."""

    path = "/chat/completions"
    whole_body = "messages"

    def _body(self, content: Any) -> dict[str, Any]:
        system = [] if self.options.system is None else [{"role": "system", "content": self.options.system}]
        body: dict[str, Any] = {"messages": [*system, {"role": "user", "content": content}], "temperature": 0}
        if self.options.max_tokens is not None:
            body["max_tokens"] = self.options.max_tokens
        if self.options.schema is not None:
            schema = {"name": "answer", "strict": True, "schema": self.options.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def of_text(self, prompt: str) -> dict[str, Any]:
        return self._body(prompt)

    def of_image(self, kind: str, content: bytes) -> dict[str, Any]:
        if self.options.prompt.places != [] and self.options.prompt.places != ["input"]:
            raise RowError("the row is an image, and the prompt names fields")
        url = f"data:{kind};base64,{base64.b64encode(content).decode()}"
        text = self.options.prompt.fill(Row(b""))
        parts = [{"type": "text", "text": text}] if text else []
        return self._body([*parts, {"type": "image_url", "image_url": {"url": url}}])

    def answers(self, reply: Mapping[str, Any], rows: int) -> list[Any]:
        choice = _first(reply, "choices")
        message = choice.get("message")
        if not isinstance(message, dict):
            raise BadReplyError("the reply has no message")
        return [self.answer(message.get("content"), choice.get("finish_reason"), reply)]


class Completions(Generation):
    """`/v1/completions`."""

    path = "/completions"
    whole_body = "prompt"

    def of_text(self, prompt: str) -> dict[str, Any]:
        text = prompt if self.options.system is None else f"{self.options.system}\n{prompt}"
        tokens = {} if self.options.max_tokens is None else {"max_tokens": self.options.max_tokens}
        return {"prompt": text, "temperature": 0, **tokens}

    def answers(self, reply: Mapping[str, Any], rows: int) -> list[Any]:
        choice = _first(reply, "choices")
        return [self.answer(choice.get("text"), choice.get("finish_reason"), reply)]


class Responses(Generation):
    """`/v1/responses`."""

    path = "/responses"
    whole_body = "input"

    def request(self, rows: Sequence[bytes]) -> Request:
        # A row's text is also called its input, so only a list or an object with other fields is a whole body.
        (content,) = rows
        fields = None if image_type(content) else Row(content).fields
        if fields is not None and isinstance(fields.get("input"), list):
            return self._json(self.path, fields)
        return self._json(self.path, self.of_text(self.options.prompt.fill(Row(content))))

    def of_text(self, prompt: str) -> dict[str, Any]:
        body: dict[str, Any] = {"input": prompt, "temperature": 0}
        if self.options.system is not None:
            body["instructions"] = self.options.system
        if self.options.max_tokens is not None:
            body["max_output_tokens"] = self.options.max_tokens
        if self.options.schema is not None:
            schema = {"type": "json_schema", "name": "answer", "strict": True, "schema": self.options.schema}
            body["text"] = {"format": schema}
        return body

    def answers(self, reply: Mapping[str, Any], rows: int) -> list[Any]:
        items = reply.get("output")
        if not isinstance(items, list):
            raise BadReplyError("the reply has no output")
        parts = [part for item in items if isinstance(item, dict) for part in item.get("content") or []]
        text = "".join(part.get("text", "") for part in parts if isinstance(part, dict))
        finish = "length" if reply.get("status") == "incomplete" else "stop"
        return [self.answer(text, finish, reply)]


class Embeddings(Endpoint):
    """`/v1/embeddings`: many rows a call."""

    rows_per_call = EMBEDDINGS_PER_CALL_MAX

    def request(self, rows: Sequence[bytes]) -> Request:
        texts = [self.options.prompt.fill(Row(content)) for content in rows]
        return self._json("/embeddings", {"input": texts})

    def answers(self, reply: Mapping[str, Any], rows: int) -> list[Any]:
        items = reply.get("data")
        if not isinstance(items, list) or len(items) != rows:
            raise BadReplyError(f"the reply has not one embedding for each of {rows} rows")
        found: dict[int, Any] = {}
        for place, item in enumerate(items):
            if not isinstance(item, dict) or not isinstance(item.get("embedding"), list):
                raise BadReplyError("an element of the reply is no embedding")
            found[item.get("index", place)] = item["embedding"]
        if sorted(found) != list(range(rows)):
            raise BadReplyError("the reply's embeddings have wrong indices")
        return [found[place] for place in range(rows)]


class Rerank(Endpoint):
    """`/v1/rerank`: a row is an object with `query` and `documents`. Its answer has a score for each document."""

    def request(self, rows: Sequence[bytes]) -> Request:
        fields = Row(rows[0]).fields
        if fields is None or not isinstance(fields.get("query"), str) or not isinstance(fields.get("documents"), list):
            raise RowError('the row is no object with "query", a text, and "documents", a list')
        return self._json("/rerank", {"query": fields["query"], "documents": fields["documents"]})

    def answers(self, reply: Mapping[str, Any], rows: int) -> list[Any]:
        items = reply.get("results")
        if not isinstance(items, list):
            raise BadReplyError("the reply has no results")
        try:
            ranked = sorted(
                (int(item["index"]), float(item.get("relevance_score", item.get("score")))) for item in items
            )
        except (TypeError, KeyError, ValueError):
            raise BadReplyError("a result has no index and score") from None
        return [{"scores": [score for _, score in ranked]}]


class Transcriptions(Endpoint):
    """`/v1/audio/transcriptions`: a row is a file of sound."""

    def request(self, rows: Sequence[bytes]) -> Request:
        (content,) = rows
        boundary = b"----row-of-a-batch"
        while boundary in content:
            boundary += b"-"
        fields = {"model": self.options.model, **{name: str(value) for name, value in self.options.fixed.items()}}
        parts = [
            b'Content-Disposition: form-data; name="%s"\r\n\r\n%s' % (name.encode(), value.encode())
            for name, value in fields.items()
        ]
        parts.append(
            b'Content-Disposition: form-data; name="file"; filename="audio"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n" + content
        )
        body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"
        return Request("/audio/transcriptions", body, f"multipart/form-data; boundary={boundary.decode()}")

    def answers(self, reply: Mapping[str, Any], rows: int) -> list[Any]:
        if not isinstance(reply.get("text"), str):
            raise BadReplyError("the reply has no text")
        return [{"text": reply["text"]}]


ENDPOINTS: Mapping[str, type[Endpoint]] = {
    "chat": Chat,
    "completions": Completions,
    "responses": Responses,
    "embeddings": Embeddings,
    "rerank": Rerank,
    "transcriptions": Transcriptions,
}

WRITING = ("chat", "completions", "responses")
"""The endpoints that write until something stops them."""


def endpoint(name: str, options: Options) -> Endpoint:
    """Raises ModelFileError for an unknown name, and where nothing would stop the server from writing."""
    kind = ENDPOINTS.get(name)
    if kind is None:
        raise ModelFileError(f"endpoint {name!r} is not among {', '.join(ENDPOINTS)}")
    if name in WRITING and options.max_tokens is None:
        raise ModelFileError("max_tokens is missing: servers write without an end")
    if options.schema is not None and name not in ("chat", "responses"):
        raise ModelFileError(f"endpoint {name!r} takes no schema")
    refused = sorted({"n", "stream", "tools"} & options.fixed.keys())
    if refused:
        raise ModelFileError(f"extra.{refused[0]} is not supported: a row has one answer, in one piece")
    return kind(options)


def image_type(content: bytes) -> str | None:
    """The type of an image, by its first bytes."""
    return next((kind for start, kind in IMAGES.items() if content.startswith(start)), None)


def _first(reply: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    items = reply.get(key)
    if not isinstance(items, list) or not items or not isinstance(items[0], dict):
        raise BadReplyError(f"the reply has no {key}")
    return items[0]
