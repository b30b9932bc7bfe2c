"""Records of a file and label tables, read exactly as the workers of a job read them (`daemon/worker/src/records` and
`labels.rs`), so that a model is trained on the values that its jobs will have.

`daemon/worker/src/records/cases.json` holds both readers to the same values. One difference is wanted: what a job
counts as a failed query or a malformed line is an error here, because nobody would notice it in a trained model.

Bounds: a field has at most RECORD_BYTES_MAX, the workers' limit of a record.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from .errors import DatasetError

RECORD_BYTES_MAX = 16 * 1024 * 1024
LEVELS_MAX = 127
BOM = "\ufeff"
JSON_SPACE = b" \t\n\x0c\r"
# Values are skipped, and not made: Python refuses integers of thousands of digits.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)


@dataclass(frozen=True)
class Record:
    """One input, in the form that an infer request has it, and its label if it has one."""

    content: bytes
    label: str | None


def read_jsonl(path: Path) -> Iterator[Record]:
    """Raises DatasetError naming the line."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            line = (raw.removeprefix(BOM.encode()) if number == 1 else raw).strip(JSON_SPACE)
            if not line:
                continue
            try:
                value = orjson.loads(line)
                if _levels_exceed(line, value, LEVELS_MAX):
                    raise DatasetError(f"dataset {path}, line {number} has more than {LEVELS_MAX} levels")
                yield _json_record(line, value)
            except orjson.JSONDecodeError as error:
                raise DatasetError(f"dataset {path}, line {number} is not JSON: {error}") from None


def _json_record(line: bytes, value: Any) -> Record:
    if isinstance(value, dict):
        entry = value.get("input")
        content = entry.encode() if isinstance(entry, str) else _json_field(line, "input") or line
        return Record(content, _json_label(value.get("label")))
    return Record(value.encode() if isinstance(value, str) else line, None)


def _levels_exceed(line: bytes, value: Any, levels: int) -> bool:
    """Whether lists and objects are nested deeper than this."""
    if line.count(b"[") + line.count(b"{") <= levels:
        return False
    nested = [value] if isinstance(value, (dict, list)) else []
    for _ in range(levels):
        inner = [item for outer in nested for item in (outer.values() if isinstance(outer, dict) else outer)]
        nested = [item for item in inner if isinstance(item, (dict, list))]
        if not nested:
            return False
    return True


def _json_field(line: bytes, name: str) -> bytes | None:
    """A field of an object, byte for byte. Of two fields with one name the last counts."""
    text = line.decode()
    found: bytes | None = None
    at = _after_space(text, 1)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        start = _after_space(text, _after_space(text, at) + 1)
        _, at = _DECODER.raw_decode(text, start)
        if key == name:
            found = text[start:at].encode()
        at = _after_space(text, at)
        if text[at] == ",":
            at = _after_space(text, at + 1)
    return found


def _after_space(text: str, at: int) -> int:
    while text[at] in " \t\n\r":
        at += 1
    return at


def _json_label(value: Any) -> str | None:
    """Numbers and booleans as JSON writes them: a label is `true`, not `True`."""
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode() if isinstance(value, (bool, int, float)) else None


def read_csv(path: Path) -> Iterator[Record]:
    """Raises DatasetError naming the line, and csv.Error."""
    columns: _Columns | None = None
    for row in _csv_rows(path):
        if columns is None:
            columns = _Columns.of_header(path, row.fields)
            continue
        content = row.field(columns.content)
        if content is None:
            raise DatasetError(f"dataset {path}, line {row.line} has no column {columns.content + 1}, the input")
        label = None if columns.label is None else row.field(columns.label)
        yield Record(content.encode(errors="surrogateescape"), _text(label) if label else None)
    if columns is None:
        raise DatasetError(f"dataset {path} has no header")


def read_labels(path: Path) -> dict[str, str]:
    """The label of each file of a label table, in its order. Raises DatasetError naming the line, and csv.Error."""
    labels: dict[str, str] = {}
    columns: _TableColumns | None = None
    for row in _csv_rows(path):
        names = _named(row.fields)
        if columns is None and "file" in names and "label" in names:
            columns = _TableColumns(names["file"], names["label"])
            continue
        columns = columns or _TableColumns(0, 1)
        file, label = (_text(row.field(column) or "").strip() for column in (columns.file, columns.label))
        if not file:
            raise DatasetError(f"dataset {path}, line {row.line} names no file")
        if not label:
            # Jobs ignore such lines, but a model trained without the label would differ from what measures it.
            raise DatasetError(f"dataset {path}, line {row.line} has no label for {file!r}")
        labels[file] = label
    return labels


@dataclass(frozen=True)
class _Row:
    line: int
    fields: Sequence[str]

    def field(self, column: int) -> str | None:
        return self.fields[column] if column < len(self.fields) else None


@dataclass(frozen=True)
class _TableColumns:
    file: int
    label: int


@dataclass(frozen=True)
class _Columns:
    content: int
    label: int | None

    @classmethod
    def of_header(cls, path: Path, header: Sequence[str]) -> _Columns:
        names = _named(header)
        if "input" not in names and len(header) != 1:
            raise DatasetError(f"dataset {path} has no column 'input'; its columns are: {', '.join(header)}")
        return cls(names.get("input", 0), names.get("label"))


def _csv_rows(path: Path) -> Iterator[_Row]:
    """Bytes that are no UTF-8 become surrogates, so that an input keeps them."""
    csv.field_size_limit(RECORD_BYTES_MAX)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        if file.read(1) != BOM:
            file.seek(0)
        reader = csv.reader(file)
        for fields in reader:
            if fields:
                yield _Row(reader.line_num, fields)


def _named(fields: Sequence[str]) -> dict[str, int]:
    """The first column of each name, in any case."""
    names: dict[str, int] = {}
    for column, name in enumerate(fields):
        names.setdefault(name.strip().lower(), column)
    return names


def _text(field: str) -> str:
    """A field as text: bytes that are no UTF-8 are replaced."""
    return field.encode(errors="surrogateescape").decode(errors="replace")
