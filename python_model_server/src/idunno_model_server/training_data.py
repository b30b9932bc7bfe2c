"""Labelled examples to train a model on, read from a folder or from one file.

Forms:
- a folder with `labels.csv` (columns file,label): the files that it lists, in its order;
- a folder without one: all its files in the order of their names, unlabelled;
- `*.jsonl`: one `{"input": TEXT, "label": LABEL}` per line;
- `*.csv`: columns input,label.

Order and contents are the same on every machine and `digest` identifies them, so that training is repeatable.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import DatasetError

LABELS_FILE = "labels.csv"


@dataclass(frozen=True)
class Example:
    """One input, in the form an infer request has it, and its label if it has one."""

    content: bytes
    label: str | None


@dataclass(frozen=True)
class _ExampleFile:
    """An example whose content is a file, read when it is iterated over."""

    path: Path
    label: str | None

    def read(self) -> Example:
        return Example(self.path.read_bytes(), self.label)


@dataclass(frozen=True)
class _CsvRow:
    line: int
    value: str
    label: str | None


class Dataset:
    """Examples in a fixed order. The files of a folder are read on each iteration, not kept in memory."""

    def __init__(self, examples: Sequence[Example | _ExampleFile]) -> None:
        self._examples = examples

    @classmethod
    def open(cls, path: Path) -> Dataset:
        """Raises DatasetError naming the file and line at fault."""
        try:
            examples = _read_folder(path) if path.is_dir() else _read_file(path)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DatasetError(f"dataset {path}: {error}") from None
        if not examples:
            raise DatasetError(f"dataset {path} is empty")
        return cls(examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[Example]:
        for example in self._examples:
            yield example if isinstance(example, Example) else example.read()

    def labels(self) -> list[str]:
        """The distinct labels, sorted. Raises DatasetError if an example has none."""
        labels = {example.label for example in self._examples}
        if None in labels:
            raise DatasetError(f"the dataset has unlabelled examples: give each file a label in {LABELS_FILE}")
        return sorted(label for label in labels if label is not None)

    def split(self, held_out: float, seed: int) -> tuple[list[Example], list[Example]]:
        """The examples to train on, and those to measure on: a share `held_out` of the distinct contents.

        Equal contents always land on the same side, and the order of the examples has no influence.
        """

        def rank(content: bytes) -> bytes:
            return hashlib.sha256(seed.to_bytes(8, "big") + content).digest()

        examples = list(self)
        ranks = sorted({rank(example.content) for example in examples})
        held_out_ranks = set(ranks[: math.ceil(held_out * len(ranks))])
        training: list[Example] = []
        measured: list[Example] = []
        for example in examples:
            side = measured if rank(example.content) in held_out_ranks else training
            side.append(example)
        return training, measured

    def digest(self) -> str:
        """Identifies contents, labels and their order."""
        total = hashlib.sha256()
        for example in self:
            total.update(hashlib.sha256(example.content).digest())
            total.update(hashlib.sha256(json.dumps(example.label).encode()).digest())
        return total.hexdigest()


def _read_folder(folder: Path) -> list[Example | _ExampleFile]:
    table = folder / LABELS_FILE
    if not table.exists():
        return [_ExampleFile(path, None) for path in sorted(folder.iterdir()) if path.is_file()]
    examples: list[Example | _ExampleFile] = []
    for row in _csv_rows(table, "file"):
        path = folder / row.value
        if Path(row.value).is_absolute() or ".." in Path(row.value).parts or not path.is_file():
            raise DatasetError(f"dataset {table}, line {row.line}: no file {row.value!r} in the folder")
        examples.append(_ExampleFile(path, row.label))
    return examples


def _read_file(path: Path) -> list[Example | _ExampleFile]:
    if path.suffix == ".csv":
        return [Example(row.value.encode(), row.label) for row in _csv_rows(path, "input")]
    if path.suffix != ".jsonl":
        raise DatasetError(f"dataset {path} must be a folder, a .jsonl file or a .csv file")
    examples: list[Example | _ExampleFile] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                examples.append(_json_example(json.loads(line)))
            except ValueError:
                message = f'dataset {path}, line {number} is not {{"input": TEXT, "label": LABEL}}'
                raise DatasetError(message) from None
    return examples


def _json_example(value: object) -> Example:
    """Raises ValueError for any other shape."""
    if not isinstance(value, dict) or not isinstance(value.get("input"), str):
        raise ValueError
    label = value.get("label")
    return Example(value["input"].encode("utf-8", "surrogatepass"), None if label is None else str(label))


def _csv_rows(path: Path, column: str) -> Iterator[_CsvRow]:
    """The rows of a CSV file with a header, with the value of `column`."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if column not in (reader.fieldnames or ()):
            raise DatasetError(f"dataset {path} has no column {column!r}: its first line must be {column},label")
        for row in reader:
            if row[column] is None:
                raise DatasetError(f"dataset {path}, line {reader.line_num} has no {column}")
            yield _CsvRow(reader.line_num, row[column], row.get("label"))
