"""What a job runs over, made of what Python has: a list, an iterator, a data frame, files, a folder.

JSON values become the lines of one file of records, and bytes and paths become files of their own. In either case the
number of a query is the position of its input.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._frames import is_frame, records_of

RECORD_SUFFIXES = frozenset((".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".list"))
# As many digits as the numbers of the most queries of a job: names sort as numbers do.
_DIGITS = 9


@dataclass
class Inputs:
    """Local files that become a dataset, and a folder of those that were made for it."""

    dataset: str
    files: list[tuple[str, Path]] = field(default_factory=list)
    made: Path | None = None

    def forget(self) -> None:
        """Deletes what was made."""
        if self.made is not None:
            shutil.rmtree(self.made, ignore_errors=True)


def inputs_of(data: Any, dataset: str) -> Inputs:
    """Prepares data for a dataset of this name. A file of records adds its ending to it."""
    if isinstance(data, Path):
        if data.suffix.lower() in RECORD_SUFFIXES:
            name = dataset if dataset.endswith(data.suffix) else dataset + data.suffix
            return Inputs(name, [(name, data)])
        return Inputs(dataset, [(f"{dataset}/{data.name}", data)])
    if is_frame(data):
        data = records_of(data)
    elif isinstance(data, (bytes, bytearray, memoryview, Mapping)) or not isinstance(data, Iterable):
        raise TypeError(
            f"cannot run a job over a {type(data).__name__}: pass a list or an iterator of inputs, a data frame, "
            "a pathlib.Path, or a text that names a dataset of the store"
        )
    items = iter(data)
    first = next(items, items)
    if first is items:
        raise ValueError("there are no inputs")
    made = Path(tempfile.mkdtemp(prefix="idunno-"))
    try:
        items = itertools.chain([first], items)
        if isinstance(first, (bytes, bytearray, memoryview, Path)):
            return Inputs(dataset, list(_files(items, dataset, made)), made)
        name = dataset if dataset.endswith(".jsonl") else dataset + ".jsonl"
        path = made / "records.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(_lines(items))
        return Inputs(name, [(name, path)], made)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _files(items: Iterator[Any], dataset: str, made: Path) -> Iterator[tuple[str, Path]]:
    for number, item in enumerate(items):
        if isinstance(item, Path):
            yield f"{dataset}/{number:0{_DIGITS}}-{item.name}", item
        elif isinstance(item, (bytes, bytearray, memoryview)):
            path = made / str(number)
            path.write_bytes(item)
            yield f"{dataset}/{number:0{_DIGITS}}", path
        else:
            raise TypeError(f"input {number} is a {type(item).__name__}, the others are bytes or paths")


def _lines(items: Iterator[Any]) -> Iterator[str]:
    for number, item in enumerate(items):
        try:
            line = json.dumps(item, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
            line.encode()
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"input {number} is no JSON: {error}") from None
        yield line + "\n"


def _plain(value: Any) -> Any:
    """JSON of what is common in data and not of JSON: values of Arrow and numpy, dates."""
    for convert in ("as_py", "tolist", "isoformat"):
        if hasattr(value, convert):
            return getattr(value, convert)()
    raise TypeError(f"a {type(value).__name__} has no form in JSON")
