"""Which versions of each model are loaded: the protocol's model repository extension.

Invariants: a version serves only once it has answered its canary; a load takes the place of what was loaded, unless it
is to serve beside it; one that fails leaves everything in place; a running request keeps its runner, whatever is loaded
or unloaded meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from .artefact_store import ArtefactStore, check_version
from .errors import ApiError, MemoryShortageError, ModelFailure, ModelLoadError, PackageError
from .execution import Execution, open_model
from .failures import RecentFailures
from .models import Model
from .packages import OpenedPackage, Packages
from .statistics import ModelStatistics
from .user_models import NAME

RETRY_AFTER_S = 1
REASON_CHARACTERS_MAX = 300


class ModelState(StrEnum):
    """The states of the model repository extension."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True)
class LoadedModel:
    """A version as of one moment. A load or unload during a request changes the entry, not this."""

    entry: ModelEntry
    model: Model
    version: str
    execution: Execution
    forget: Callable[[], None] | None = None
    """Forgets the code of a package."""


@dataclass
class ModelEntry:
    """One model, predefined, a user's or a package's, with its loaded versions."""

    model: Model
    """That of its file, or of the package opened last."""
    is_package: bool = False
    """Whether there is no file of it, so that it is gone once no version is loaded."""
    versions: dict[str, LoadedModel] = field(default_factory=dict)
    """The version that was loaded last is the last."""
    loading: bool = False
    reason: str = "not loaded yet"
    statistics: ModelStatistics = field(default_factory=ModelStatistics)
    failures: RecentFailures = field(default_factory=RecentFailures)

    @property
    def newest(self) -> LoadedModel | None:
        """The version that was loaded last."""
        return next(reversed(self.versions.values()), None)

    @property
    def version(self) -> str:
        newest = self.newest
        return newest.version if newest else ""

    @property
    def state(self) -> ModelState:
        if self.versions:
            return ModelState.READY
        return ModelState.LOADING if self.loading else ModelState.UNAVAILABLE

    @property
    def memory_bytes(self) -> int:
        """By how much loading the versions enlarged this process; 0 if none is loaded."""
        return sum(loaded.execution.memory_bytes for loaded in self.versions.values())

    def limits(self) -> dict[str, Any]:
        """What the model declares about how it is to be called."""
        newest = self.newest
        kind = type(newest.model if newest else self.model)
        return {
            "batch_max": kind.batch_max,
            "concurrency": kind.concurrency,
            "device": kind.device,
            "memory_mib": kind.memory_mib,
            "row_timeout_s": kind.row_timeout_s,
        }

    def as_json(self) -> dict[str, Any]:
        """One element of the repository index."""
        return {
            "name": self.model.name,
            "version": self.version,
            "state": self.state,
            "reason": "" if self.state == ModelState.READY else self.reason,
        }


@dataclass(frozen=True)
class _Source:
    """A version that can be opened."""

    model: Model
    artefact: Path
    forget: Callable[[], None] | None = None


class Repository:
    """All models of this server. Owned by the event loop; loading happens in a thread, one model at a time."""

    def __init__(self, models: Mapping[str, Model], store: ArtefactStore, packages: Packages | None = None) -> None:
        self.entries = {name: ModelEntry(model) for name, model in models.items()}
        self.store = store
        self.packages = packages or Packages(None)
        self._one_load = asyncio.Lock()

    def entry(self, name: str) -> ModelEntry:
        """Raises ApiError 404."""
        entry = self.entries.get(name)
        if entry is None:
            raise ApiError(404, f"unknown model {name!r}; known models: {', '.join(self.entries)}")
        return entry

    def loaded(self, name: str, version: str | None) -> LoadedModel:
        """Raises ApiError 404 for an unknown model or version, 503 for one that is not loaded."""
        entry = self.entry(name)
        loaded = entry.newest if version is None else entry.versions.get(version)
        if loaded is not None:
            return loaded
        if version is None:
            raise ApiError(503, f"model {name} is not loaded: {entry.reason}", RETRY_AFTER_S)
        check_version(version)
        if entry.is_package or not self.store.path(entry.model, version).exists():
            raise ApiError(404, f"model {name} has no version {version} here")
        raise ApiError(503, f"model {name} version {version} is not loaded", RETRY_AFTER_S)

    async def load(self, name: str, version: str | None, *, package: bool = False, beside: bool = False) -> ModelEntry:
        """Loads a stored version, or one of a package: by default the one that is loaded, or else the newest. It takes
        the place of the loaded ones, unless it is to serve `beside` them.

        A version identifies its bytes, so loading a loaded one does nothing. Raises ApiError 404 if nothing is stored,
        400 if the package is no model, or the artefact cannot be loaded or fails its canary, 507 if it needs more
        memory than there is.
        """
        async with self._one_load:
            known = self.entries.get(name)
            if known is not None and version in known.versions:
                return known
            entry, source, version = await self._source(name, version, package=package)
            if source is None:
                return entry
            entry.loading = True
            entry.reason = f"loading version {version}"
            try:
                execution = await asyncio.to_thread(open_model, source.model, source.artefact)
            except (ModelLoadError, MemoryShortageError, ModelFailure) as error:
                if source.forget:
                    source.forget()
                raise _refused(entry, version, error) from None
            finally:
                entry.loading = False
            others = [] if beside else list(entry.versions)
            entry.versions[version] = LoadedModel(entry, source.model, version, execution, source.forget)
            entry.reason = ""
            await self._drop(entry, others)
            return entry

    async def _source(self, name: str, version: str | None, *, package: bool) -> tuple[ModelEntry, _Source | None, str]:
        """What to load; None if it is loaded."""
        if package:
            opened = await self._open_package(name, check_version(version))
            entry = self.entries.get(name)
            if entry is None:
                entry = self.entries[name] = ModelEntry(opened.model, is_package=True)
            elif entry.is_package:
                entry.model = opened.model
            return entry, _Source(opened.model, opened.manifest, opened.forget), str(version)
        entry = self.entry(name)
        if version is None:
            stored = self.store.versions(entry.model)
            if not stored and not entry.version:
                raise ApiError(404, f"model {name} has no artefact here: PUT one first")
            version = entry.version or stored[0]
        check_version(version)
        if version in entry.versions:
            return entry, None, version
        path = self.store.path(entry.model, version)
        if not path.exists():
            raise ApiError(404, f"model {name} has no version {version} here: PUT it first")
        return entry, _Source(entry.model, path), version

    async def check_package(self, name: str, version: str) -> None:
        """Raises ApiError 400 if a package is no model."""
        opened = await self._open_package(name, check_version(version))
        opened.forget()

    async def _open_package(self, name: str, version: str) -> OpenedPackage:
        if not NAME.fullmatch(name):
            raise ApiError(400, f"{name!r} cannot be the name of a model")
        try:
            return await asyncio.to_thread(self.packages.open, name, version)
        except PackageError as error:
            raise ApiError(400, str(error)) from None

    async def unload(self, name: str, version: str | None = None) -> None:
        """Drops a version, by default all; artefacts stay on disk. What is not loaded is left as it is."""
        async with self._one_load:
            entry = self.entry(name)
            entry.reason = "unloaded"
            await self._drop(entry, [loaded for loaded in entry.versions if version in (None, loaded)])
            if entry.is_package and not entry.versions:
                del self.entries[name]

    async def _drop(self, entry: ModelEntry, dropped: Sequence[str]) -> None:
        """Drops versions, which a model with reference cycles would survive with its memory and threads."""
        for version in dropped:
            forget = entry.versions.pop(version).forget
            if forget:
                forget()
        await asyncio.to_thread(_collect_and_freeze)


def _collect_and_freeze() -> None:
    """Frees what is unreachable, and takes what remains out of later collections: a full one visits every object of the
    loaded models, which takes a tenth of the time of a text model."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _refused(entry: ModelEntry, version: str, error: ModelLoadError | MemoryShortageError | ModelFailure) -> ApiError:
    traceback = None
    if isinstance(error, ModelFailure):
        traceback = error.traceback
        entry.failures.add(entry.model.name, version, error, rows=0)
    lacks_memory = isinstance(error, MemoryShortageError) or (isinstance(error, ModelFailure) and error.out_of_memory)
    first_line = (str(error).splitlines() or [type(error).__name__])[0][:REASON_CHARACTERS_MAX]
    entry.reason = f"version {version} cannot be loaded: {first_line}"
    return ApiError(507 if lacks_memory else 400, f"model {entry.model.name} {entry.reason}", traceback=traceback)
