"""Rows that are lines of OpenAI's Batch API: `{"custom_id", "method", "url", "body"}`.

Such a row says what it is sent to, and its answer is the whole reply. What decides answers for everybody stays the
package's: the server's name of the model, and `extra`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...json_codec import dumps
from .endpoints import Options, Request
from .template import Row

PREFIX = "/v1"
URLS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"})
FIELDS = frozenset({"custom_id", "method", "url", "body"})
MARKS = (b'"custom_id"', b"\\u")
"""A line has one of these: its name, or escapes in it."""


def is_batch_line(content: bytes) -> bool:
    return _fields(content) is not None


def batch_request(content: bytes, options: Options) -> Request | None:
    """The call that a row is; None if it is no line of a batch."""
    fields = _fields(content)
    if fields is None:
        return None
    url = str(fields["url"]).removeprefix(PREFIX)
    return Request(url, dumps({**fields["body"], **options.fixed, "model": options.model}))


def _fields(content: bytes) -> Mapping[str, Any] | None:
    # Most rows are none, and need not be read for that.
    fields = Row(content).fields if any(mark in content for mark in MARKS) and content.startswith(b"{") else None
    if fields is None or not fields.keys() >= FIELDS:
        return None
    url, body = fields["url"], fields["body"]
    is_call = fields["method"] == "POST" and isinstance(url, str) and url in URLS and isinstance(body, dict)
    return fields if is_call else None
