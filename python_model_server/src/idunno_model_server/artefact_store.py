"""Trained artefacts on the local disk: work_dir/artefacts/<model>/<version><suffix>.

This is a cache of the cluster's file store: a file is written aside and renamed, but not flushed. A damaged one fails
its canary when it is loaded.

Bounds: VERSIONS_MAX versions per model, the oldest beyond that are removed; the disk's free space for an artefact.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from .errors import ApiError
from .models import Model

VERSION = re.compile(r"[0-9a-f]{8,64}")
VERSIONS_MAX = 4
WRITE_BYTES = 1024 * 1024


def check_version(version: object) -> str:
    """Raises ApiError 400 for anything that is not safe as a file name."""
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        raise ApiError(400, f"version {version!r} is not 8 to 64 lower-case hexadecimal digits")
    return version


class ArtefactStore:
    """Stored versions by model."""

    def __init__(self, work_dir: Path) -> None:
        self._root = work_dir / "artefacts"
        self._incoming = work_dir / "incoming"
        self._root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._incoming, ignore_errors=True)  # uploads that an earlier process did not finish
        self._incoming.mkdir()

    def path(self, model: Model, version: str) -> Path:
        """The path of a version, stored or not."""
        return self._root / model.name / f"{version}{model.suffix}"

    def versions(self, model: Model) -> list[str]:
        """Stored versions, newest first."""
        files = [path for path in (self._root / model.name).glob(f"*{model.suffix}") if path.is_file()]
        files.sort(key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
        return [path.name.removesuffix(model.suffix) for path in files]

    def check_room(self, size: int) -> None:
        """Raises ApiError 507 for an artefact that the disk has no room for."""
        free = shutil.disk_usage(self._root).free
        if size > free:
            raise ApiError(507, f"an artefact of {size} bytes does not fit on the disk, which has {free} bytes free")

    async def write(self, model: Model, version: str, chunks: AsyncIterator[bytes], loaded: str | None) -> int:
        """Stores a version and returns its size. The version `loaded` is never removed to make room.

        Raises ApiError 400 for an empty artefact, which is not stored.
        """
        temporary = self._new_incoming_file()
        try:
            total = await self._receive(chunks, temporary)
            path = self.path(model, version)
            path.parent.mkdir(exist_ok=True)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
        others = [stored for stored in self.versions(model) if stored not in (version, loaded)]
        for old in others[VERSIONS_MAX - 1 :]:
            self.path(model, old).unlink(missing_ok=True)
        return total

    def _new_incoming_file(self) -> Path:
        with tempfile.NamedTemporaryFile(dir=self._incoming, delete=False) as file:
            return Path(file.name)

    async def _receive(self, chunks: AsyncIterator[bytes], path: Path) -> int:
        total = 0
        buffer = bytearray()
        with path.open("wb") as file:
            async for chunk in chunks:
                total += len(chunk)
                buffer += chunk
                if len(buffer) >= WRITE_BYTES:
                    await asyncio.to_thread(file.write, buffer)
                    buffer = bytearray()
            await asyncio.to_thread(file.write, buffer)
        if total == 0:
            raise ApiError(400, "the artefact is empty")
        return total
