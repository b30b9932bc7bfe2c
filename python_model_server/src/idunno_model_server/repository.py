"""Which version of each model is loaded: the protocol's model repository extension.

Invariants: at most one version of a model serves at a time; a version serves only once it has answered its canary; a
load that fails leaves the loaded version in place; a running request keeps its runner, whatever is loaded or unloaded
meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from .artefact_store import ArtefactStore, check_version
from .errors import ApiError, MemoryShortageError, ModelFailure, ModelLoadError
from .execution import Execution, open_model
from .failures import RecentFailures
from .models import Model, Runner
from .statistics import ModelStatistics

RETRY_AFTER_S = 1
REASON_CHARACTERS_MAX = 300


class ModelState(StrEnum):
    """The states of the model repository extension."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass
class ModelEntry:
    """One model, predefined or a user's, with its loaded version."""

    model: Model
    execution: Execution | None = None
    version: str = ""
    loading: bool = False
    reason: str = "not loaded yet"
    statistics: ModelStatistics = field(default_factory=ModelStatistics)
    failures: RecentFailures = field(default_factory=RecentFailures)

    @property
    def state(self) -> ModelState:
        if self.execution is not None:
            return ModelState.READY
        return ModelState.LOADING if self.loading else ModelState.UNAVAILABLE

    @property
    def memory_bytes(self) -> int:
        """By how much loading the model enlarged this process; 0 if it is not loaded."""
        return 0 if self.execution is None else self.execution.memory_bytes

    def limits(self) -> dict[str, Any]:
        """What the model declares about how it is to be called."""
        kind = type(self.model)
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
class LoadedModel:
    """A version as of one moment. A load or unload during a request changes the entry, not this."""

    entry: ModelEntry
    version: str
    execution: Execution


class Repository:
    """All models of this server. Owned by the event loop; loading happens in a thread, one model at a time."""

    def __init__(self, models: Mapping[str, Model], store: ArtefactStore) -> None:
        self.entries = {name: ModelEntry(model) for name, model in models.items()}
        self.store = store
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
        if version is not None and version != entry.version:
            check_version(version)
            if not self.store.path(entry.model, version).exists():
                raise ApiError(404, f"model {name} has no version {version} here")
            raise ApiError(503, f"model {name} version {version} is not loaded", RETRY_AFTER_S)
        if entry.execution is None:
            raise ApiError(503, f"model {name} is not loaded: {entry.reason}", RETRY_AFTER_S)
        return LoadedModel(entry, entry.version, entry.execution)

    async def load(self, name: str, version: str | None) -> ModelEntry:
        """Loads a stored version: by default the one that is loaded, or else the newest.

        A version identifies its bytes, so loading the loaded one does nothing. Raises ApiError 404 if nothing is
        stored, 400 if the artefact cannot be loaded or fails its canary, 507 if it needs more memory than there is.
        """
        entry = self.entry(name)
        async with self._one_load:
            if version is None:
                stored = self.store.versions(entry.model)
                if not stored and not entry.version:
                    raise ApiError(404, f"model {name} has no artefact here: PUT one first")
                version = entry.version or stored[0]
            check_version(version)
            if entry.execution is not None and entry.version == version:
                return entry
            path = self.store.path(entry.model, version)
            if not path.exists():
                raise ApiError(404, f"model {name} has no version {version} here: PUT it first")
            entry.loading = True
            entry.reason = f"loading version {version}"
            try:
                execution = await asyncio.to_thread(open_model, entry.model, path)
            except (ModelLoadError, MemoryShortageError, ModelFailure) as error:
                raise _refused(entry, version, error) from None
            finally:
                entry.loading = False
            await _replace(entry, execution, version, "")
            return entry

    async def unload(self, name: str) -> None:
        """Drops the runner; the artefact stays on disk. A model that is not loaded is left as it is."""
        entry = self.entry(name)
        async with self._one_load:
            await _replace(entry, None, "", "unloaded")


async def _replace(entry: ModelEntry, execution: Execution | None, version: str, reason: str) -> None:
    """Drops what was loaded, which a model with reference cycles would survive with its memory and threads."""
    entry.execution = execution
    entry.version = version
    entry.reason = reason
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


def load_and_check(model: Model, artefact: Path) -> Runner:
    """Loads an artefact and has it answer the model's canary, for use in one thread. Raises as `open_model` does."""
    return open_model(model, artefact).runner
