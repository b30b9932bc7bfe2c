"""Labelled examples to train a model on, read from a folder or from one file.

Forms:
- a folder with `labels.csv` (columns file,label): the files that it lists, in its order;
- a folder without one: all files below it in the order of their names, unlabelled;
- `*.jsonl`, `*.ndjson`, `*.csv` and `*.tsv`: their records.

A job over the same data reads the same inputs and labels (`records`). Order and contents are the same on every machine
and `digest` identifies them, so that training is repeatable.

Examples are read from the disk each time that they are iterated over, so a set may be larger than memory. Bounds: one
example in memory; the names of a folder's files; EXACT_SPLIT_MAX digests while a set is split.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .dialect import AS_FOUND, ReadOptions
from .errors import DatasetError
from .records import Record as Example
from .records import read_csv, read_jsonl, read_labels

__all__ = ["LABELS_FILE", "Dataset", "Example"]

LABELS_FILE = "labels.csv"
EXACT_SPLIT_MAX = 100_000
"""Distinct contents up to which a split holds out their exact share; beyond, each is held out with that probability."""
_RANK_BYTES = hashlib.sha256().digest_size
_RANKS: int = 1 << (8 * _RANK_BYTES)


@dataclass(frozen=True)
class _ExampleFile:
    """An example whose content is a file."""

    path: Path
    label: str | None

    def read(self) -> Example:
        return Example(self.path.read_bytes(), self.label)


class Dataset:
    """Examples in a fixed order. May be iterated over any number of times."""

    def __init__(self, read: Callable[[], Iterator[Example]], count: int) -> None:
        self._read = read
        self._count = count

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Dataset:
        return cls(lambda: iter(examples), len(examples))

    @classmethod
    def open(cls, path: Path, options: ReadOptions = AS_FOUND) -> Dataset:
        """Reads all of it once, to find what is wrong. Raises DatasetError naming the file and line at fault."""
        try:
            if path.is_dir():
                files = _list_folder(path)
                dataset = cls(lambda: (file.read() for file in files), len(files))
            else:
                read = _reader_of(path)
                dataset = cls(lambda: read(path, options), sum(1 for _ in read(path, options)))
        except (OSError, csv.Error) as error:
            raise DatasetError(f"dataset {path}: {error}") from None
        if not len(dataset):
            raise DatasetError(f"dataset {path} is empty")
        return dataset

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Example]:
        return self._read()

    def labels(self) -> list[str]:
        """The distinct labels, sorted. Raises DatasetError if an example has none."""
        labels = {example.label for example in self}
        if None in labels:
            raise DatasetError(f"the dataset has unlabelled examples: give each file a label in {LABELS_FILE}")
        return sorted(label for label in labels if label is not None)

    def split(self, held_out: float, seed: int) -> tuple[Dataset, Dataset]:
        """The examples to train on, and those to measure on: a share `held_out` of the distinct contents.

        Equal contents always land on the same side, and the order of the examples has no influence.
        """

        def rank(example: Example) -> bytes:
            return hashlib.sha256(seed.to_bytes(8, "big") + example.content).digest()

        limit = _limit(map(rank, self), held_out)
        measured = sum(rank(example) < limit for example in self)
        return (
            Dataset(lambda: (example for example in self if rank(example) >= limit), len(self) - measured),
            Dataset(lambda: (example for example in self if rank(example) < limit), measured),
        )

    def digest(self) -> str:
        """Identifies contents, labels and their order."""
        total = hashlib.sha256()
        for example in self:
            total.update(hashlib.sha256(example.content).digest())
            total.update(hashlib.sha256(json.dumps(example.label).encode()).digest())
        return total.hexdigest()


def _limit(ranks: Iterator[bytes], share: float) -> bytes:
    """What as large a share of the distinct ranks is below."""
    distinct: set[bytes] = set()
    for rank in ranks:
        distinct.add(rank)
        if len(distinct) > EXACT_SPLIT_MAX:
            return min(int(share * _RANKS), _RANKS - 1).to_bytes(_RANK_BYTES, "big")
    beyond = b"\xff" * (_RANK_BYTES + 1)
    return [*sorted(distinct), beyond][math.ceil(share * len(distinct))]


def _list_folder(folder: Path) -> list[_ExampleFile]:
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


def _reader_of(path: Path) -> Callable[[Path, ReadOptions], Iterator[Example]]:
    readers = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_jsonl, ".ndjson": read_jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DatasetError(f"dataset {path} must be a folder, or a file that ends in .jsonl, .ndjson, .csv or .tsv")
    return reader
