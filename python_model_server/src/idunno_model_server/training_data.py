"""Labelled examples that a model is trained on, read from a folder or from one file of lines.

Forms:
- a folder with `labels.csv` (columns file,label): the files that it names, in its order;
- a folder without one: all its files in the order of their names, without labels;
- `*.jsonl`: one `{"input": TEXT, "label": LABEL}` a line;
- `*.csv`: columns input,label.

The order and the contents are the same on every machine, and `digest` names them: training is repeatable.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import DatasetError

LABELS_FILE = "labels.csv"


@dataclass(frozen=True)
class Example:
    """One input, as an infer call would bring it, and its label where there is one."""

    content: bytes
    label: str | None


class Dataset:
    """Examples in a fixed order. Files of a folder are read as they are iterated over, each time anew."""

    def __init__(self, rows: list[Example | tuple[Path, str | None]]) -> None:
        self._rows = rows

    @classmethod
    def open(cls, path: Path) -> Dataset:
        """Raises DatasetError that names the file, and the line, at fault."""
        try:
            rows = _folder(path) if path.is_dir() else _lines(path)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DatasetError(f"data set {path}: {error}") from None
        if not rows:
            raise DatasetError(f"data set {path} is empty")
        return cls(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Example]:
        for row in self._rows:
            yield row if isinstance(row, Example) else Example(row[0].read_bytes(), row[1])

    def labels(self) -> list[str]:
        """The distinct labels, sorted. Raises DatasetError where an example has none."""
        found = {row.label if isinstance(row, Example) else row[1] for row in self._rows}
        if None in found:
            raise DatasetError(f"the data set has examples without a label: name each file's in {LABELS_FILE}")
        return sorted(label for label in found if label is not None)

    def split(self, held_out: float, seed: int) -> tuple[list[Example], list[Example]]:
        """The examples to train on, and a share of `held_out` of the distinct contents to measure on.

        What is in the set twice cannot be on both sides, and the order of the examples does not matter.
        """

        def place(content: bytes) -> bytes:
            return hashlib.sha256(seed.to_bytes(8, "big") + content).digest()

        examples = list(self)
        places = sorted({place(example.content) for example in examples})
        chosen = set(places[: math.ceil(held_out * len(places))])
        sides: tuple[list[Example], list[Example]] = ([], [])
        for example in examples:
            sides[place(example.content) in chosen].append(example)
        return sides

    def digest(self) -> str:
        """Names contents, labels and their order."""
        total = hashlib.sha256()
        for example in self:
            total.update(hashlib.sha256(example.content).digest())
            total.update(hashlib.sha256(json.dumps(example.label).encode()).digest())
        return total.hexdigest()


def _folder(folder: Path) -> list[Example | tuple[Path, str | None]]:
    table = folder / LABELS_FILE
    if not table.exists():
        return [(path, None) for path in sorted(folder.iterdir()) if path.is_file()]
    rows: list[Example | tuple[Path, str | None]] = []
    for number, name, label in _table(table, "file"):
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts or not path.is_file():
            raise DatasetError(f"data set {table}, line {number}: there is no file {name!r} in the folder")
        rows.append((path, label))
    return rows


def _lines(path: Path) -> list[Example | tuple[Path, str | None]]:
    if path.suffix == ".csv":
        return [Example(text.encode(), label) for _, text, label in _table(path, "input")]
    if path.suffix != ".jsonl":
        raise DatasetError(f"data set {path} must be a folder, a .jsonl or a .csv file")
    rows: list[Example | tuple[Path, str | None]] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                text, label = value["input"], value.get("label")
            except (ValueError, TypeError, KeyError, AttributeError):
                text = label = None
            if not isinstance(text, str):
                raise DatasetError(f'data set {path}, line {number} is not {{"input": TEXT, "label": LABEL}}')
            rows.append(Example(text.encode("utf-8", "surrogatepass"), None if label is None else str(label)))
    return rows


def _table(path: Path, column: str) -> Iterator[tuple[int, str, str | None]]:
    """(line, value of `column`, label) of a CSV file with a head."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if column not in (reader.fieldnames or ()):
            raise DatasetError(f"data set {path} has no column {column!r}: its first line must be {column},label")
        for row in reader:
            if row[column] is None:
                raise DatasetError(f"data set {path}, line {reader.line_num} has no {column}")
            yield reader.line_num, row[column], row.get("label")
