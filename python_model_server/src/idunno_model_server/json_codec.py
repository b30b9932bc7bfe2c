"""JSON, by orjson where it is installed: a runner may be in an environment that has nothing but the standard library.

One environment always writes the same bytes. With orjson and without, they may differ in how a float is spelled.
"""

from __future__ import annotations

import json
from collections.abc import Callable
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

    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=plain).encode()


if orjson is None:
    loads: Callable[[bytes | bytearray | memoryview | str], Any] = _loads
    """Reads JSON; raises JSONDecodeError."""
    dumps: Callable[[object], bytes] = _dumps
    """Writes plain values."""
    dump_any: Callable[[object, Callable[[Any], Any]], bytes] = _dump_any
    """Writes whatever JSON can express, arrays of numpy included; `default` converts the rest. NaN becomes `null` or
    `NaN`."""
else:
    loads, dumps = orjson.loads, orjson.dumps

    def dump_any(value: object, default: Callable[[Any], Any]) -> bytes:
        return orjson.dumps(value, default=default, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
