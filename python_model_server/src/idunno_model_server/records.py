"""Records of a file and label tables, read exactly as the workers of a job read them (`daemon/worker/src/records` and
`labels.rs`), so that a model is trained on the values that its jobs will have.

`daemon/worker/src/records/cases.json` holds both readers to the same values. One difference is wanted: what a job
counts as a failed query or a malformed line is an error here, because nobody would notice it in a trained model.

Bounds: a field has at most RECORD_BYTES_MAX, the workers' limit of a record.
"""

from __future__ import annotations

import csv
import itertools
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .dialect import AS_FOUND, BOM, DELIMITERS, SAMPLE_BYTES, Dialect, ReadOptions, check_encoding, find_dialect
from .errors import DatasetError
from .json_codec import JSONDecodeError, dumps, loads

RECORD_BYTES_MAX = 16 * 1024 * 1024
LEVELS_MAX = 127
JSON_SPACE = b" \t\n\x0c\r"
# Values are skipped, and not made: Python refuses integers of thousands of digits.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)


@dataclass(frozen=True)
class Record:
    """One input, in the form that an infer request has it, and its label if it has one."""

    content: bytes
    label: str | None


def read_jsonl(path: Path, options: ReadOptions = AS_FOUND) -> Iterator[Record]:
    """Raises DatasetError naming the line."""
    if options.is_of_csv:
        raise DatasetError(f"dataset {path}: it is not CSV, so it has no delimiter, quotes or header to choose")
    with path.open("rb") as file:
        check_encoding(path, file.peek(SAMPLE_BYTES))
        for number, raw in enumerate(file, 1):
            line = (raw.removeprefix(BOM) if number == 1 else raw).strip(JSON_SPACE)
            if not line:
                continue
            try:
                value = loads(line)
                if _levels_exceed(line, value, LEVELS_MAX):
                    raise DatasetError(f"dataset {path}, line {number} has more than {LEVELS_MAX} levels")
                yield _json_record(line, value, options)
            except JSONDecodeError as error:
                if not line.strip(b"[{ \t"):
                    raise DatasetError(
                        f"dataset {path}: line {number} begins a JSON document of several lines: write one value a "
                        "line, for example with jq -c '.[]'"
                    ) from None
                raise DatasetError(f"dataset {path}, line {number} is not JSON: {error}") from None
            except _NoFieldError as error:
                raise DatasetError(f"dataset {path}, line {number} has no field '{error}'") from None


class _NoFieldError(Exception):
    """A record lacks the field that was asked for."""


def _json_record(line: bytes, value: Any, options: ReadOptions) -> Record:
    name = options.input_column or "input"
    if options.input_column is not None and (not isinstance(value, dict) or name not in value):
        raise _NoFieldError(name)
    if isinstance(value, dict):
        entry = value.get(name)
        content = entry.encode() if isinstance(entry, str) else _json_field(line, name) or line
        return Record(content, _json_label(value.get(options.label_column or "label")))
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
    return dumps(value).decode() if isinstance(value, (bool, int, float)) else None


def read_csv(path: Path, options: ReadOptions = AS_FOUND) -> Iterator[Record]:
    """Raises DatasetError naming the line, and csv.Error."""
    dialect = find_dialect(path, options)
    columns: _Columns | None = None
    for row in _csv_rows(path, dialect):
        if columns is None:
            columns = _Columns.of_first_row(path, row.fields, dialect, options)
            if not options.no_header:
                continue
        if len(row.fields) > columns.count and any(row.fields[columns.count :]):
            raise DatasetError(
                f"dataset {path}, line {row.line} has {len(row.fields)} columns, but the file has {columns.count}"
            )
        content = row.field(columns.content)
        if content is None:
            raise DatasetError(
                f"dataset {path}, line {row.line} has {len(row.fields)} columns, the input is column "
                f"{columns.content + 1}"
            )
        label = None if columns.label is None else row.field(columns.label)
        yield Record(content.encode(errors="surrogateescape"), _text(label) if label else None)
    if columns is None:
        raise DatasetError(f"dataset {path} has no header")


def read_labels(path: Path) -> dict[str, str]:
    """The label of each file of a label table, in its order; names are in NFC. Raises DatasetError naming the line, and
    csv.Error."""
    labels: dict[str, str] = {}
    columns: _TableColumns | None = None
    for row in _csv_rows(path, find_dialect(path, _TABLE_OPTIONS)):
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
        labels[unicodedata.normalize("NFC", file)] = label
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
    count: int

    @classmethod
    def of_first_row(cls, path: Path, row: Sequence[str], dialect: Dialect, options: ReadOptions) -> _Columns:
        headings = [str(number) for number in range(1, len(row) + 1)] if options.no_header else row

        def find(name: str) -> int | None:
            name = name.strip()
            found = [column for column, heading in enumerate(headings) if heading.strip() == name]
            found = found or [
                column for column, heading in enumerate(headings) if heading.strip().lower() == name.lower()
            ]
            if len(found) > 1:
                raise DatasetError(f"dataset {path}: its first line has several columns '{name}': rename all but one")
            return found[0] if found else None

        def asked(name: str) -> int:
            column = find(name)
            if column is None:
                raise DatasetError(
                    f"dataset {path}: its first line has no column '{name}'; its columns, separated by "
                    f"{dialect.delimiter!r}, are: {', '.join(headings)}"
                )
            return column

        def other(name: str | None, usual: str) -> int | None:
            if name is not None:
                return asked(name)
            return None if options.no_header else find(usual)

        content = other(options.input_column, "input")
        if content is None and len(headings) == 1:
            if not dialect.is_named and any(delimiter in headings[0] for delimiter in DELIMITERS):
                raise DatasetError(f"dataset {path}: its only column '{headings[0]}' looks like several")
            content = 0
        other(options.id_column, "id")
        label = other(options.label_column, "label")
        return cls(asked("input") if content is None else content, label, len(headings))


# A table of labels is CSV with the columns file and label.
_TABLE_OPTIONS = ReadOptions(input_column="file")
# The last line that a reader gets: within quotes that are never closed, it is no row of its own.
_END = "\ud800 end of file"


def _csv_rows(path: Path, dialect: Dialect) -> Iterator[_Row]:
    """Bytes that are no UTF-8 become surrogates, so that an input keeps them. Raises DatasetError at an open quote."""
    csv.field_size_limit(RECORD_BYTES_MAX)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        if file.read(1) != "\ufeff":
            file.seek(0)
        skipped = [file.readline() for _ in range(dialect.skipped_lines)]
        line = len(skipped)
        reader = dialect.rows(itertools.chain(file, [_END]))
        counted = 0
        for fields in reader:
            start, counted = counted + 1, reader.line_num
            if fields == [_END]:
                return
            if fields and fields[-1].endswith(_END):
                message = f"the record that begins in line {line + start} has a quote that is never closed: close it"
                raise DatasetError(f"dataset {path}: {message}")
            if fields:
                yield _Row(line + start, fields)


def _named(fields: Sequence[str]) -> dict[str, int]:
    """The first column of each name, in any case."""
    names: dict[str, int] = {}
    for column, name in enumerate(fields):
        names.setdefault(name.strip().lower(), column)
    return names


def _text(field: str) -> str:
    """A field as text: bytes that are no UTF-8 are replaced."""
    return field.encode(errors="surrogateescape").decode(errors="replace")
