"""A BYTES tensor of the Open Inference Protocol: each row after its length."""

from __future__ import annotations

import struct
from collections.abc import Sequence

ROWS_MAX = 65_536
COPIED_BYTES_MAX = 1 << 20
"""A tensor up to this size is copied."""

Tensor = list[bytes] | bytes
"""The rows of an output, or all of them encoded."""
LENGTH = struct.Struct("<I")
_unpack_length = LENGTH.unpack_from


class TensorError(Exception):
    """The bytes are no tensor."""


def join_rows(rows: Sequence[bytes | memoryview] | bytes) -> bytes:
    """Rows that are encoded already stay as they are."""
    if isinstance(rows, bytes):
        return rows
    if not any(rows):
        return LENGTH.pack(0) * len(rows)
    parts: list[bytes | memoryview] = [b""] * (2 * len(rows))
    parts[::2] = map(LENGTH.pack, map(len, rows))
    parts[1::2] = rows
    return b"".join(parts)


def split_rows(tensor: memoryview) -> list[bytes | memoryview]:
    """The rows: copies of short ones, which cost less than slices do; otherwise slices. Raises TensorError."""
    binary = bytes(tensor) if len(tensor) <= COPIED_BYTES_MAX else tensor
    rows: list[bytes | memoryview] = []
    position = 0
    end = len(binary)
    while position < end:
        start = position + LENGTH.size
        if start > end:
            raise TensorError(f"binary data ends inside the length of row {len(rows)}")
        position = start + _unpack_length(binary, position)[0]
        rows.append(binary[start:position])
        if len(rows) > ROWS_MAX:
            raise TensorError(f"there are more than {ROWS_MAX} rows")
    if position > end:
        raise TensorError(f"binary data ends inside row {len(rows) - 1}")
    return rows
