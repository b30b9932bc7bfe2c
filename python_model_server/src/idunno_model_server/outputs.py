"""The outputs of `predict`: one for each input, from whatever it returns; and their default encoding, JSON.

Outputs are never padded, cut or guessed: with another number than there were inputs, nobody knows which belong
together.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Iterable, Mapping, Set
from dataclasses import asdict, is_dataclass
from itertools import islice
from typing import Any

from .errors import OutputError, RowError
from .json_codec import dump_any

_MAYBE_NOT_FINITE = (b"null", b"NaN", b"Infinity")


def collect(result: Any, count: int) -> list[Any]:
    """A list, tuple, array or generator with exactly `count` outputs. Raises OutputError."""
    if isinstance(result, str | bytes | bytearray | memoryview | Mapping | Set) or not isinstance(result, Iterable):
        raise OutputError(f"predict returned {_kind(result)}, not a list with one output for each input")
    outputs = result if isinstance(result, list | tuple) else list(islice(result, count + 1))
    return _checked(list(outputs), count, exact=isinstance(result, list | tuple))


async def collect_async(result: Any, count: int) -> list[Any]:
    """The same for what an asynchronous `predict` returns: a coroutine or an asynchronous generator."""
    if not isinstance(result, AsyncIterable):
        return collect(await result, count)
    outputs: list[Any] = []
    async for output in result:
        outputs.append(output)
        if len(outputs) > count:
            break
    return _checked(outputs, count, exact=False)


def _checked(outputs: list[Any], count: int, *, exact: bool) -> list[Any]:
    if len(outputs) == count:
        return outputs
    found = f"more than {count}" if len(outputs) > count and not exact else str(len(outputs))
    raise OutputError(f"predict returned {found} outputs for {count} inputs: it must return one for each")


def encode_json(output: Any) -> bytes:
    """An output as JSON in UTF-8: bytes as they are, anything else converted, arrays of numpy and torch included.

    Raises RowError for NaN and infinite numbers, which JSON has not, and TypeError for a value that is no data.
    """
    if isinstance(output, bytes):
        return output
    encoded = dump_any(output, _plain)
    if any(word in encoded for word in _MAYBE_NOT_FINITE) and not _is_finite(output):
        raise RowError("the output holds NaN or an infinite number, which JSON cannot express")
    return encoded


def _plain(value: Any) -> Any:
    """What the codec does not know: tensors, arrays that are not contiguous, sets, bytes in UTF-8."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Set):
        return list(value)
    raise TypeError(f"{_kind(value)} cannot be written as JSON")


def _is_finite(value: Any) -> bool:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if is_dataclass(value):
        value = vars(value) if hasattr(value, "__dict__") else asdict(value)  # type: ignore[arg-type]
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple | Set):
        return all(map(_is_finite, value))
    return True


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__
