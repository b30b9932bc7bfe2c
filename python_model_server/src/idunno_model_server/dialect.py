"""How a file of records is read: what is asked for, and the dialect that is found in its first bytes.

The same as what the coordinator finds when a job is started (`daemon/worker/src/records/dialect.rs` and `encoding.rs`);
`cases.json` beside them holds both to it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DatasetError

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

BOM = b"\xef\xbb\xbf"
SAMPLE_BYTES = 64 * 1024
DELIMITERS = ",;\t|"
QUOTES: Mapping[str, str | None] = {"double": '"', "single": "'", "none": None}
_BYTES_CHECKED_FOR_NUL = 1024
_UTF16 = "it is UTF-16 text: convert it to UTF-8, for example with iconv -f UTF-16 -t UTF-8"
_UTF32 = "it is UTF-32 text: convert it to UTF-8, for example with iconv -f UTF-32 -t UTF-8"
_NOT_TEXT = {
    b"\xff\xfe\0\0": _UTF32,
    b"\0\0\xfe\xff": _UTF32,
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
    b"\x1f\x8b": "it is compressed with gzip: decompress it first, for example with gunzip",
    b"\x28\xb5\x2f\xfd": "it is compressed with Zstandard: decompress it first, for example with unzstd",
    b"PK\x03\x04": "it is a zip archive or an Excel workbook: store the CSV or JSON lines themselves",
    b"PAR1": "it is a Parquet file: write it as JSON lines or CSV",
}


@dataclass(frozen=True)
class ReadOptions:
    """What is asked for. What is None is found in the file."""

    input_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    no_header: bool = False

    @classmethod
    def of_json(cls, value: Any) -> ReadOptions:
        """Raises ValueError."""
        if value is None:
            return cls()
        texts = {"input_column", "label_column", "id_column", "delimiter", "quote"}
        if not isinstance(value, dict) or not value.keys() <= texts | {"no_header"}:
            raise ValueError('"reading" must be an object with the fields of ReadOptions')
        if not all(isinstance(value[name], str) for name in texts & value.keys()):
            raise ValueError('the fields of "reading" must be texts')
        if value.get("quote", "double") not in QUOTES or len(value.get("delimiter", ",")) != 1:
            raise ValueError('"reading" has an unknown quote, or a delimiter that is not one character')
        return cls(**{**value, "no_header": bool(value.get("no_header", False))})

    def as_json(self) -> dict[str, Any]:
        """What `of_json` reads."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}

    @property
    def is_of_csv(self) -> bool:
        """Whether anything is asked for that only CSV has."""
        return self.no_header or self.delimiter is not None or self.quote is not None


AS_FOUND = ReadOptions()


@dataclass(frozen=True)
class Dialect:
    delimiter: str
    quote: str | None
    skipped_lines: int
    is_named: bool
    """Whether somebody or something named the delimiter, so that one column is not an accident."""

    def rows(self, lines: Iterable[str]) -> CsvReader:
        if self.quote is None:
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, quotechar=None)
        return csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote)


def check_encoding(path: Path, start: bytes) -> None:
    """Raises DatasetError if a file that starts so is no UTF-8 text."""
    for magic, what in _NOT_TEXT.items():
        if start.startswith(magic):
            raise DatasetError(f"dataset {path}: {what}")
    if b"\0" in start[:_BYTES_CHECKED_FOR_NUL]:
        what = "it has NUL bytes, as UTF-16 text without a byte order mark has: write it as UTF-8 text"
        raise DatasetError(f"dataset {path}: {what}")


def find_dialect(path: Path, options: ReadOptions) -> Dialect:
    """Raises DatasetError if the file is no text."""
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
        goes_on = len(sample) == SAMPLE_BYTES
    check_encoding(path, sample)
    text = sample.removeprefix(BOM).decode(errors="surrogateescape")
    named, skipped_lines = _named_delimiter(text), 0
    if named is not None:
        text, skipped_lines = text.split("\n", 1)[1], 1
    by_ending = "\t" if path.suffix.lower() == ".tsv" else None
    delimiter = options.delimiter or named or by_ending
    quote = QUOTES[options.quote or "double"]
    found = delimiter or _guess(options, quote, text, goes_on)
    return Dialect(found, quote, skipped_lines, delimiter is not None)


def _named_delimiter(text: str) -> str | None:
    """The delimiter of a first line `sep=X`, as Excel writes it."""
    line, end, _ = text.partition("\n")
    line = line.removesuffix("\r")
    if len(line) > 2 and line[0] == line[-1] == '"':
        line = line[1:-1]
    if not end or len(line) != 5 or line[:4].lower() != "sep=" or not line[4].isascii():
        return None
    return line[4]


def _guess(options: ReadOptions, quote: str | None, text: str, goes_on: bool) -> str:
    candidates = {delimiter: _sample_rows(delimiter, quote, text, goes_on) for delimiter in DELIMITERS}
    if not options.no_header:
        usual = {"input": options.input_column, "label": options.label_column, "id": options.id_column}
        wanted = [(asked or name).strip().lower() for name, asked in usual.items()]

        def known(delimiter: str) -> tuple[int, int, int]:
            head = candidates[delimiter][0] if candidates[delimiter] else []
            headings = {heading.strip().lower() for heading in head}
            return int(wanted[0] in headings), sum(name in headings for name in wanted[1:]), len(head)

        best = max(DELIMITERS, key=known)
        if any(known(best)[:2]):
            return best
    even = [delimiter for delimiter, rows in candidates.items() if _is_even(rows)]
    return max(even, key=lambda delimiter: len(candidates[delimiter][0]), default=",")


def _is_even(rows: Sequence[Sequence[str]]) -> bool:
    if not rows or len(rows[0]) < 2:
        return False
    return sum(len(row) != len(rows[0]) for row in rows) * 10 <= len(rows)


def _sample_rows(delimiter: str, quote: str | None, text: str, goes_on: bool) -> list[list[str]]:
    lines = io.StringIO(text, newline="")
    rows = [row for row in Dialect(delimiter, quote, 0, False).rows(lines) if row]
    return rows[:-1] if goes_on and len(rows) > 1 else rows
