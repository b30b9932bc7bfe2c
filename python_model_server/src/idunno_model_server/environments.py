"""Environments of packages that bring requirements: made of the package's own wheels, once for each lock and member.

    FILES/.environment/requirements.lock   every requirement with its hashes, as `lock_environment` found them
    FILES/.environment/environment.json    the Python and the platform for which they were found
    FILES/.environment/wheels/*.whl        what the lock names: nothing is fetched here
    ENVIRONMENTS/KEY/                      the environment; `.complete` is written last, and touched when it is used

The key is the digest of the lock, the Python, the platform and the C library, so packages with equal locks share one.
Bounds: KEPT_UNUSED environments that no loaded version uses; the disk must have DISK_FACTOR times the size of the
wheels free.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import shutil
import sys
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from .errors import PackageError
from .runners.process_family import Families, family_process

FOLDER = ".environment"
LOCK = "requirements.lock"
DESCRIPTION = "environment.json"
WHEELS = "wheels"
STAMP = ".complete"
KEPT_UNUSED = 2
DISK_FACTOR = 4
BUILD_S_MAX = 1800.0
REASON_CHARACTERS_MAX = 300


def interpreter() -> dict[str, str]:
    """What wheels depend on: they were found for one, and are installed for the same."""
    return {
        "python": f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}",
        "platform": f"{sys.platform} {platform.machine()}",
    }


class Environments:
    """The environments of one server. Owned by the event loop."""

    def __init__(self, root: Path, families: Families) -> None:
        self._root = root
        self._families = families
        self._builds: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def key(self, files: Path) -> str | None:
        """The environment that a package needs; None if it brings no requirements. Raises PackageError if they are for
        another Python or platform."""
        folder = files / FOLDER
        try:
            lock = (folder / LOCK).read_bytes()
            described = json.loads((folder / DESCRIPTION).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise PackageError(f"{folder} cannot be read: {error}") from None
        here = interpreter()
        for what, wanted in here.items():
            if described.get(what) != wanted:
                raise PackageError(
                    f"its requirements were locked for {described.get(what)}, and this model server has {wanted}: "
                    "add the model again with --python of the same version"
                )
        libc = " ".join(platform.libc_ver())
        digest = hashlib.sha256(json.dumps([here, libc]).encode() + lock)
        return digest.hexdigest()[:32]

    async def python(self, key: str, files: Path, in_use: Collection[str]) -> Path:
        """The interpreter of an environment, which is built if it is not there. Raises PackageError."""
        folder = self._root / key
        async with self._builds[key]:
            if not (folder / STAMP).exists():
                self.collect({*in_use, key})
                await self._build(folder, files / FOLDER)
            (folder / STAMP).touch()
        return folder / "bin" / "python"

    async def _build(self, folder: Path, source: Path) -> None:
        await asyncio.to_thread(self._make_room, folder, source)
        python = str(folder / "bin" / "python")
        cache = folder.with_suffix(".cache")  # on the same file system, so that files are links to it
        base = ["--cache-dir", str(cache), "--offline", "--no-config", "--quiet"]
        try:
            await self._uv("venv", *base, "--no-project", "--python", sys.executable, str(folder))
            wheels = ["--no-index", "--find-links", str(source / WHEELS), "--require-hashes", "--no-build"]
            await self._uv("pip", "sync", *base, "--python", python, *wheels, str(source / LOCK))
            await self._compile(folder)
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise
        finally:
            await asyncio.to_thread(shutil.rmtree, cache, ignore_errors=True)
        os.sync()  # a stamp that is on the disk stands for what is

    async def _compile(self, folder: Path) -> None:
        """Compiles all modules: what runs in the environment cannot write to it. This Python does it, since that of the
        environment would run what is installed there, unconfined. What cannot be compiled is left."""
        words = (sys.executable, "-I", "-S", "-m", "compileall", "-q", "-j", "0", str(folder / "lib"))
        nowhere = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL}
        async with family_process(self._families, *words, env=os.environ, **nowhere) as process:
            try:
                async with asyncio.timeout(BUILD_S_MAX):
                    await process.wait()
            except TimeoutError:
                return

    def _make_room(self, folder: Path, source: Path) -> None:
        """Raises PackageError if the disk is too full."""
        self._root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)  # a build that was interrupted
        needed = DISK_FACTOR * sum(wheel.stat().st_size for wheel in (source / WHEELS).glob("*.whl"))
        free = shutil.disk_usage(self._root).free
        if free < needed:
            raise PackageError(
                f"its environment needs about {needed >> 20} MiB, and {self._root} has {free >> 20} MiB free"
            )

    async def _uv(self, *words: str) -> None:
        """Raises PackageError with what uv says."""
        program = find_uv()
        if program is None:
            raise PackageError("its environment cannot be made: uv is not installed beside the model server")
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PYTHON"))}
        variables["UV_PYTHON_DOWNLOADS"] = "never"
        options = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.PIPE}
        async with family_process(self._families, program, *words, env=variables, **options) as process:
            try:
                async with asyncio.timeout(BUILD_S_MAX):
                    _, said = await process.communicate()
            except TimeoutError:
                raise PackageError(f"its environment was not made within {BUILD_S_MAX:.0f} s") from None
        if process.returncode:
            reason = " ".join(said.decode(errors="replace").split())[-REASON_CHARACTERS_MAX:]
            raise PackageError(f"its environment cannot be made: {reason}")

    def collect(self, in_use: Collection[str]) -> None:
        """Deletes the environments that were used longest ago, but for those in use and KEPT_UNUSED more."""
        unused = []
        for folder in self._root.glob("*"):
            if folder.name in in_use or self._builds[folder.name.partition(".")[0]].locked():
                continue
            stamp = folder / STAMP
            unused.append((stamp.stat().st_mtime_ns if stamp.exists() else 0, folder))
        for _, folder in sorted(unused, reverse=True)[KEPT_UNUSED:]:
            shutil.rmtree(folder, ignore_errors=True)


def find_uv() -> str | None:
    """uv, as it is installed beside this Python, or else on the path."""
    try:
        from uv import find_uv_bin
    except ImportError:
        return shutil.which("uv")
    try:
        return str(find_uv_bin())
    except FileNotFoundError:
        return shutil.which("uv")
