"""JSON, by orjson where it is installed: a runner may be in an environment that has nothing but the standard library.

One environment always writes the same bytes. With orjson and without, they may differ in how a float is spelled.
Integers have any size: orjson reads those of more than 64 bits as floats, and does not write them, so the standard
library does both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from json import JSONDecodeError
from typing import Any
from uuid import UUID

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

__all__ = ["JSONDecodeError", "dump_any", "dumps", "loads"]


_PERHAPS_OVER_64_BITS = r"[0-9]{19}"
"""What every integer of more than 64 bits holds, and hardly any other text."""
_IN_BYTES = re.compile(_PERHAPS_OVER_64_BITS.encode())
_IN_TEXT = re.compile(_PERHAPS_OVER_64_BITS)


def _loads(text: bytes | bytearray | memoryview | str) -> Any:
    def refuse(constant: str) -> Any:
        raise JSONDecodeError(f"{constant} is not JSON", "", 0)

    try:
        return json.loads(text if isinstance(text, str) else bytes(text), parse_constant=refuse)
    except UnicodeDecodeError as error:
        raise JSONDecodeError(str(error), "", 0) from None


def _dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _dump_any(value: object, default: Callable[[Any], Any]) -> bytes:
    def plain(item: Any) -> Any:
        if is_dataclass(item) and not isinstance(item, type):
            return asdict(item)
        if isinstance(item, Enum):
            return item.value
        if isinstance(item, UUID):
            return str(item)
        return item.isoformat() if hasattr(item, "isoformat") else default(item)

    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=plain)
    except TypeError as error:
        if not str(error).startswith("keys must be"):
            raise
        text = json.dumps(_with_plain_keys(value, plain), ensure_ascii=False, separators=(",", ":"), default=plain)
    return text.encode()


def _with_plain_keys(value: Any, plain: Callable[[Any], Any]) -> Any:
    """Keys as the standard library knows them; dates, enumerations and the like are converted."""
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str | int | float | None) else plain(key): _with_plain_keys(item, plain)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_with_plain_keys(item, plain) for item in value]
    return value


if orjson is None:
    loads: Callable[[bytes | bytearray | memoryview | str], Any] = _loads
    """Reads JSON; raises JSONDecodeError."""
    dumps: Callable[[object], bytes] = _dumps
    """Writes plain values."""
    dump_any: Callable[[object, Callable[[Any], Any]], bytes] = _dump_any
    """Writes whatever JSON can express, arrays of numpy included; `default` converts the rest. NaN becomes `null` or
    `NaN`."""
else:

    def loads(text: bytes | bytearray | memoryview | str) -> Any:
        pattern = _IN_TEXT if isinstance(text, str) else _IN_BYTES
        return _loads(text) if pattern.search(text) else orjson.loads(text)  # type: ignore[arg-type]

    def dumps(value: object) -> bytes:
        try:
            return orjson.dumps(value)
        except TypeError as error:
            _require_over_64_bits(error)
            return _dumps(value)

    def dump_any(value: object, default: Callable[[Any], Any]) -> bytes:
        try:
            return orjson.dumps(value, default=default, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
        except TypeError as error:
            _require_over_64_bits(error)
            return _dump_any(value, default)

    def _require_over_64_bits(error: TypeError) -> None:
        """Raises the error again if it has another reason than a large integer."""
        if "64-bit" not in str(error):
            raise error
