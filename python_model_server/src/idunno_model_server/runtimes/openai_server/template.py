"""Prompts with places for what a row holds: `Label this review: {text}`."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from ...errors import ModelFileError, RowError
from ...json_codec import JSONDecodeError, dumps, loads

WHOLE = "input"
"""The place for a row that has no fields, and otherwise for the field of that name."""


class Row:
    """A row's text, and its fields if it is a JSON object."""

    def __init__(self, content: bytes) -> None:
        try:
            self.text = content.decode()
        except UnicodeDecodeError as error:
            raise RowError(f"the row is no text: byte {error.start} is not UTF-8") from None
        self.fields = _fields(content)

    def place(self, name: str) -> str:
        """What stands in a place. Raises RowError if the row has no such field."""
        if self.fields is None or (name == WHOLE and name not in self.fields):
            if name == WHOLE:
                return self.text
            raise RowError(f"the row has no field {name!r}: it is no JSON object")
        if name not in self.fields:
            raise RowError(f"the row has no field {name!r}; it has {', '.join(self.fields) or 'none'}")
        value = self.fields[name]
        return value if isinstance(value, str) else dumps(value).decode()


def _fields(content: bytes) -> Mapping[str, Any] | None:
    if not content.lstrip().startswith(b"{"):
        return None
    try:
        found = loads(content)
    except JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


class Template:
    """A text with places in braces. Double braces are braces. What fills a place is not looked at again."""

    def __init__(self, text: str) -> None:
        """Raises ModelFileError for what is no template."""
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ModelFileError(f"the prompt is no template: {error}; write {{{{ for a brace") from None
        for _, name, form, conversion in parts:
            if name is not None and (not name or form or conversion or not _is_name(name)):
                raise ModelFileError(f"the prompt's place {{{name}}} is no name of a field; write {{{{ for a brace")
        self._parts = [(literal, name) for literal, name, _, _ in parts]

    @property
    def places(self) -> list[str]:
        return [name for _, name in self._parts if name is not None]

    def fill(self, row: Row) -> str:
        return "".join(literal + ("" if name is None else row.place(name)) for literal, name in self._parts)


def _is_name(name: str) -> bool:
    return not set(name) & set("[]{}!:") and name == name.strip() and "." not in name
