"""Labelled examples to train a model on, read from a folder or from one file.

Forms:
- a folder with `labels.csv` (columns file,label): the files that it lists, in its order;
- a folder without one: all files below it in the order of their names, unlabelled;
- `*.jsonl`, `*.ndjson`, `*.csv` and `*.tsv`: their records.

A job over the same data reads the same inputs and labels (`records`). Order and contents are the same on every machine
and `digest` identifies them, so that training is repeatable.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .dialect import AS_FOUND, ReadOptions
from .errors import DatasetError
from .records import Record as Example
from .records import read_csv, read_jsonl, read_labels

__all__ = ["LABELS_FILE", "Dataset", "Example"]

LABELS_FILE = "labels.csv"


@dataclass(frozen=True)
class _ExampleFile:
    """An example whose content is a file, read when it is iterated over."""

    path: Path
    label: str | None

    def read(self) -> Example:
        return Example(self.path.read_bytes(), self.label)


class Dataset:
    """Examples in a fixed order. The files of a folder are read on each iteration, not kept in memory."""

    def __init__(self, examples: Sequence[Example | _ExampleFile]) -> None:
        self._examples = examples

    @classmethod
    def open(cls, path: Path, options: ReadOptions = AS_FOUND) -> Dataset:
        """Raises DatasetError naming the file and line at fault."""
        try:
            examples = _read_folder(path) if path.is_dir() else _read_file(path, options)
        except (OSError, csv.Error) as error:
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
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if not table.is_file():
        return [_ExampleFile(folder / name, None) for name in names]
    labels = read_labels(table)
    listed: dict[str, list[str]] = {name: [] for name in labels}
    for name in names:
        suffix = None if name == LABELS_FILE else _longest_listed_suffix(unicodedata.normalize("NFC", name), listed)
        if suffix is not None:
            listed[suffix].append(name)
    for number, (name, files) in enumerate(listed.items(), 1):
        if not files:
            raise DatasetError(f"dataset {table}, entry {number}: no file {name!r} in the folder")
    return [_ExampleFile(folder / name, labels[listing]) for listing, files in listed.items() for name in files]


def _longest_listed_suffix(name: str, listed: Mapping[str, object]) -> str | None:
    """The longest suffix of a path, cut at slashes, that the table lists. Both are in NFC."""
    suffix = name
    while suffix not in listed:
        _, slash, suffix = suffix.partition("/")
        if not slash:
            return None
    return suffix


def _read_file(path: Path, options: ReadOptions) -> list[Example | _ExampleFile]:
    readers = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_jsonl, ".ndjson": read_jsonl}
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise DatasetError(f"dataset {path} must be a folder, or a file that ends in .jsonl, .ndjson, .csv or .tsv")
    return list(readers[suffix](path, options))
