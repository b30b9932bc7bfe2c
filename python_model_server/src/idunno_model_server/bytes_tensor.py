"""A BYTES tensor of the Open Inference Protocol: each row after its length."""

from __future__ import annotations

import struct
from collections.abc import Sequence

ROWS_MAX = 65_536

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
    return b"".join([part for row in rows for part in (LENGTH.pack(len(row)), row)])


def split_rows(binary: memoryview) -> list[bytes | memoryview]:
    """The rows, as slices. Raises TensorError."""
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
