"""Which version of which model is loaded: the protocol's model repository extension.

Invariants: at most one version of a model serves at a time; a version serves only after it answered its canary; a
load that fails leaves what served before; a call that runs keeps its runner, whatever is loaded or unloaded meanwhile.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from .artefacts import ArtefactStore, check_version
from .errors import ApiError
from .models import Model, Runner
from .parameters import resolve
from .statistics import ModelStatistics

RETRY_AFTER_S = 1


@dataclass
class Entry:
    """One predefined model on this server."""

    model: Model
    runner: Runner | None = None
    version: str = ""
    loading: bool = False
    reason: str = "not loaded yet"
    statistics: ModelStatistics = field(default_factory=ModelStatistics)

    @property
    def state(self) -> str:
        if self.loading and self.runner is None:
            return "LOADING"
        return "READY" if self.runner is not None else "UNAVAILABLE"

    def as_json(self) -> dict[str, Any]:
        """One element of the repository index."""
        return {
            "name": self.model.name,
            "version": self.version,
            "state": self.state,
            "reason": "" if self.state == "READY" else self.reason,
        }


class Repository:
    """All predefined models. Owned by the event loop; loading happens in a thread, one load at a time."""

    def __init__(self, models: dict[str, Model], store: ArtefactStore) -> None:
        self.entries = {name: Entry(model) for name, model in models.items()}
        self.store = store
        self._one_load = asyncio.Lock()

    def entry(self, name: str) -> Entry:
        """Raises ApiError 404 for a name that is no predefined model."""
        entry = self.entries.get(name)
        if entry is None:
            raise ApiError(404, f"unknown model {name!r}: there are {', '.join(self.entries)}")
        return entry

    def serving(self, name: str, version: str | None) -> tuple[Entry, Runner]:
        """The loaded runner. Raises ApiError 404 for an unknown model or version, 503 for one not loaded."""
        entry = self.entry(name)
        if version is not None and version != entry.version:
            check_version(version)
            if not self.store.path(entry.model, version).exists():
                raise ApiError(404, f"model {name} has no version {version} here")
            raise ApiError(503, f"model {name} version {version} is not loaded", RETRY_AFTER_S)
        if entry.runner is None:
            raise ApiError(503, f"model {name} is not loaded: {entry.reason}", RETRY_AFTER_S)
        return entry, entry.runner

    async def load(self, name: str, version: str | None) -> Entry:
        """Loads a stored version, by default the loaded one or else the one stored last.

        A version names its bytes, so loading the loaded one does nothing. Raises ApiError 404 where nothing is
        stored, 400 where the artefact cannot be loaded or fails its canary.
        """
        entry = self.entry(name)
        async with self._one_load:
            if version is None:
                stored = self.store.versions(entry.model)
                if not stored and not entry.version:
                    raise ApiError(404, f"model {name} has no artefact here: PUT one first")
                version = entry.version or stored[0]
            check_version(version)
            if entry.runner is not None and entry.version == version:
                return entry
            path = self.store.path(entry.model, version)
            if not path.exists():
                raise ApiError(404, f"model {name} has no version {version} here: PUT it first")
            entry.loading, entry.reason = True, f"loading version {version}"
            try:
                runner = await asyncio.to_thread(load_and_check, entry.model, path)
            except Exception as error:
                first_line = (str(error).splitlines() or [type(error).__name__])[0][:300]
                entry.reason = f"version {version} cannot be loaded: {first_line}"
                raise ApiError(400, f"model {name} {entry.reason}") from error
            finally:
                entry.loading = False
            entry.runner, entry.version, entry.reason = runner, version, ""
            return entry

    async def unload(self, name: str) -> None:
        """Lets go of the runner; the artefact stays on the disk. Unloading twice is no error."""
        entry = self.entry(name)
        async with self._one_load:
            entry.runner, entry.version, entry.reason = None, "", "unloaded"


def load_and_check(model: Model, artefact: Path) -> Runner:
    """A process that is up is not a model that answers: the canary must be answered, and with JSON."""
    runner = model.load(artefact)
    if not isinstance(runner, Runner):
        raise TypeError(f"load gave {type(runner).__name__}, not a Runner")
    runner = runner.with_parameters(resolve(model.name, model.parameters, {}))
    answer = runner.answer(model.canary())
    if not isinstance(answer, bytes):
        raise TypeError(f"encode gave {type(answer).__name__}, not bytes")
    try:
        orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"encode did not give JSON: {error}") from None
    return runner
