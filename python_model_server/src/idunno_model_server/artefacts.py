"""Trained artefacts on the local disk: work_dir/artefacts/<model>/<version><suffix>.

A cache of what the file store holds: written to a temporary file and renamed, never flushed. A damaged file is found
by the canary when it is loaded.

Bounds: VERSIONS_MAX versions per model, the oldest ones beyond it are removed; `bytes_max` per artefact.
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
    """A version is opaque here, but it is also a file name. Raises ApiError 400."""
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        raise ApiError(400, f"version {version!r} is not 8 to 64 hexadecimal digits in lower case")
    return version


class ArtefactStore:
    """Stored versions by model."""

    def __init__(self, work_dir: Path, bytes_max: int) -> None:
        self._root = work_dir / "artefacts"
        self._incoming = work_dir / "incoming"
        self._bytes_max = bytes_max
        self._root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._incoming, ignore_errors=True)  # what an earlier process did not finish
        self._incoming.mkdir()

    def path(self, model: Model, version: str) -> Path:
        """Where a version is, or would be."""
        return self._root / model.name / f"{version}{model.suffix}"

    def versions(self, model: Model) -> list[str]:
        """Stored versions, the one written last first."""
        files = [path for path in (self._root / model.name).glob(f"*{model.suffix}") if path.is_file()]
        files.sort(key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
        return [path.name.removesuffix(model.suffix) for path in files]

    async def write(self, model: Model, version: str, chunks: AsyncIterator[bytes], keep: str | None) -> int:
        """Stores a version and returns its size. `keep` is the loaded version: it is never removed for room.

        Raises ApiError 400 for an empty artefact, 413 for one that is too large; nothing is stored then.
        """
        total = 0
        buffer = bytearray()
        file = tempfile.NamedTemporaryFile(dir=self._incoming, delete=False)  # noqa: SIM115 - renamed, not deleted
        temporary = Path(file.name)
        try:
            with file:
                async for chunk in chunks:
                    total += len(chunk)
                    if total > self._bytes_max:
                        raise ApiError(413, f"artefact is larger than {self._bytes_max} bytes")
                    buffer += chunk
                    if len(buffer) >= WRITE_BYTES:
                        await asyncio.to_thread(file.write, buffer)
                        buffer = bytearray()
                await asyncio.to_thread(file.write, buffer)
            if total == 0:
                raise ApiError(400, "artefact is empty")
            path = self.path(model, version)
            path.parent.mkdir(exist_ok=True)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
        for old in [v for v in self.versions(model) if v not in (version, keep)][VERSIONS_MAX - 1 :]:
            self.path(model, old).unlink(missing_ok=True)
        return total
