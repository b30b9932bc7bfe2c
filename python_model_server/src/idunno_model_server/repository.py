"""Which versions of each model are loaded: the protocol's model repository extension.

Predefined models run in this process; every version of another model has a runner of its own (`runners`).

Invariants: a version serves only once it has answered its canary; a load takes the place of what was loaded, unless it
is to serve beside it; one that fails leaves everything in place; a running request keeps what answers it, whatever is
loaded or unloaded meanwhile.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from .artefact_store import ArtefactStore, check_version
from .data_lock import data_directory
from .devices import CPU
from .environments import Environments
from .errors import ApiError, MemoryShortageError, ModelFailure, PackageError, RunnerError
from .execution import open_model
from .failures import RecentFailures
from .garbage import collect_and_freeze
from .gpus import ANYWHERE, Gpus, Place
from .inference_pool import InferencePool
from .models import Model
from .models.description import ModelDescription
from .packages import FILES, Packages, PackageSettings, require_requirements
from .runners.host import RunnerHost
from .runners.replicas import NewRunner, Replicas
from .runners.supervised_runner import START_ERRORS, SupervisedRunner
from .sandbox import Needs
from .serving import InServer, Serving
from .statistics import ModelStatistics
from .training_tasks import TrainingSubject
from .user_models import NAME, files_of

RETRY_AFTER_S = 1
REASON_CHARACTERS_MAX = 420


class ModelState(StrEnum):
    """The states of the model repository extension."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True)
class LoadedModel:
    """A version as of one moment. A load or unload during a request changes the entry, not this."""

    entry: ModelEntry
    about: ModelDescription
    version: str
    serving: Serving
    environment: str | None = None
    """The key of its environment, if its package brings one."""


@dataclass
class ModelEntry:
    """One model, predefined, a user's or a package's, with its loaded versions."""

    name: str
    about: ModelDescription | None
    """What its file declares, or the package opened last; None before the first package was opened."""
    model: Model | None = None
    """What trains it. Of a package there is none, and the entry is gone once no version is loaded."""
    is_predefined: bool = False
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
        if any(loaded.serving.is_ready for loaded in self.versions.values()):
            return ModelState.READY
        return ModelState.LOADING if self.loading or self.versions else ModelState.UNAVAILABLE

    @property
    def memory_bytes(self) -> int:
        """What its runners have, or by how much loading it enlarged this process; 0 if no version is loaded."""
        return sum(loaded.serving.memory_bytes for loaded in self.versions.values())

    def description(self) -> ModelDescription:
        """What the version that was loaded last declares, or else what its file does. Raises ApiError 503."""
        about = self.newest.about if self.newest else self.about
        if about is None:
            raise ApiError(503, f"model {self.name} is not loaded: {self.reason}", RETRY_AFTER_S)
        return about

    def limits(self) -> dict[str, Any]:
        """What the model declares about how it is to be called."""
        return asdict(self.description().limits)

    def runners(self) -> list[dict[str, Any]]:
        """The processes of its versions."""
        return [
            {"version": loaded.version, **process}
            for loaded in self.versions.values()
            for process in loaded.serving.runners()
        ]

    def as_json(self) -> dict[str, Any]:
        """One element of the repository index."""
        return {
            "name": self.name,
            "version": self.version,
            "state": self.state,
            "reason": "" if self.state == ModelState.READY else self.reason,
        }


class Repository:
    """All models of this server. Owned by the event loop; each model is loaded once at a time."""

    def __init__(
        self,
        predefined: Mapping[str, Model],
        users: Mapping[str, Model],
        store: ArtefactStore,
        pool: InferencePool,
        host: RunnerHost,
        packages: Packages,
        environments: Environments,
        gpus: Gpus,
    ) -> None:
        self.entries = {
            name: ModelEntry(name, ModelDescription.of(model), model, name in predefined)
            for name, model in {**predefined, **users}.items()
        }
        self.store = store
        self.packages = packages
        self._pool = pool
        self._host = host
        self._environments = environments
        self._gpus = gpus
        self.environments_elsewhere: Callable[[], set[str]] = set
        """The keys of environments that others than loaded versions use."""
        self._loads: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._one_load_here = asyncio.Lock()

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
        if entry.model is None or not self.store.path(entry.model, version).exists():
            raise ApiError(404, f"model {name} has no version {version} here")
        raise ApiError(503, f"model {name} version {version} is not loaded", RETRY_AFTER_S)

    async def load(self, name: str, version: str | None, *, package: bool = False, beside: bool = False) -> ModelEntry:
        """Loads a stored version, or one of a package: by default the one that is loaded, or else the newest. It takes
        the place of the loaded ones, unless it is to serve `beside` them.

        A version identifies its bytes, so loading a loaded one does nothing, but to wait for its process if that is
        being started again. Raises ApiError 404 if nothing is stored, 400 if the package is no model, or the artefact
        cannot be loaded or fails its canary, 507 if it needs more memory than there is.
        """
        async with self._loads[name]:
            entry = self._entry_of_package(name) if package else self.entry(name)
            version = check_version(version) if package else self._stored_version(entry, version)
            known = entry.versions.get(version)
            try:
                if known is not None:
                    await known.serving.ready()
                    return entry
                entry.loading = True
                entry.reason = f"loading version {version}"
                loaded = await self._open(entry, version)
            except START_ERRORS as error:
                if isinstance(error, PackageError):
                    self._forget_unused(entry)
                raise _refused(entry, version, error) from None
            finally:
                entry.loading = False
            others = [] if beside else list(entry.versions)
            entry.versions[version] = loaded
            entry.about = loaded.about if entry.model is None else entry.about
            entry.reason = ""
            await self._drop(entry, others)
            return entry

    def _entry_of_package(self, name: str) -> ModelEntry:
        if not NAME.fullmatch(name):
            raise ApiError(400, f"{name!r} cannot be the name of a model")
        return self.entries.setdefault(name, ModelEntry(name, None))

    def _stored_version(self, entry: ModelEntry, version: str | None) -> str:
        """The version that is meant. Raises ApiError 404 unless it is stored or loaded."""
        name, model = entry.name, entry.model
        stored = self.store.versions(model) if model else []
        if version is None:
            if not stored and not entry.version:
                raise ApiError(404, f"model {name} has no artefact here: PUT one first")
            version = entry.version or stored[0]
        check_version(version)
        if version not in entry.versions and version not in stored:
            raise ApiError(404, f"model {name} has no version {version} here: PUT it first")
        return version

    async def _open(self, entry: ModelEntry, version: str) -> LoadedModel:
        """Raises START_ERRORS."""
        model = entry.model
        if model is not None and entry.is_predefined:
            async with self._one_load_here:
                execution = await asyncio.to_thread(open_model, model, self.store.path(model, version))
                serving = InServer(execution, self._pool)
                return LoadedModel(entry, ModelDescription.of(model), version, serving)
        new_runner, environment = await self._new_runner(entry.name, model, version)
        replicas = Replicas(self._gpus, new_runner)
        return LoadedModel(entry, await replicas.open(), version, replicas, environment)

    async def _new_runner(self, name: str, model: Model | None, version: str) -> tuple[NewRunner, str | None]:
        """What makes its runners, and the key of their environment. Raises PackageError."""
        source = {"name": name}
        python, key = Path(sys.executable), None
        if model is not None:
            file, artefact = Path(inspect.getfile(type(model))), self.store.path(model, version)
            source |= {"file": str(file), "artefact": str(artefact)}
            needs = Needs((files_of(file), artefact, data_directory()), type(model).network)
        else:
            folder = self.packages.folder(version)
            source["package"] = str(folder)
            needs = (await asyncio.to_thread(PackageSettings.read, folder)).needs(folder)
            python, key = await self._environment_of(folder)

        def new_runner(place: Place) -> SupervisedRunner:
            title = f"model {name} version {version[:12]}" + ("" if place.device == CPU else f" on {place.device}")
            return SupervisedRunner(self._host, title, python, source, needs, place)

        return new_runner, key

    async def _environment_of(self, folder: Path) -> tuple[Path, str | None]:
        """The Python of a package, and the key of its environment if it brings one. Raises PackageError."""
        key = await asyncio.to_thread(self._environments.key, folder / FILES)
        if key is None:
            require_requirements(folder)
            return Path(sys.executable), None
        return await self._environments.python(key, folder / FILES, self._environments_in_use()), key

    def _environments_in_use(self) -> set[str]:
        loaded = (loaded for entry in self.entries.values() for loaded in entry.versions.values())
        return {version.environment for version in loaded if version.environment} | self.environments_elsewhere()

    async def check_package(self, name: str, version: str) -> None:
        """Raises ApiError 400 if a package is no model."""
        if not NAME.fullmatch(name):
            raise ApiError(400, f"{name!r} cannot be the name of a model")
        try:
            new_runner, _ = await self._new_runner(name, None, check_version(version))
            await new_runner(ANYWHERE).check()
        except START_ERRORS as error:
            raise ApiError(400, str(error)) from None

    async def package_to_train(self, name: str, version: str) -> TrainingSubject:
        """Raises ApiError 400 if a package is no model, or one without a `train`."""
        try:
            folder = self.packages.folder(check_version(version))
            python, key = await self._environment_of(folder)
            new_runner, _ = await self._new_runner(name, None, version)
            about = await new_runner(ANYWHERE).check()
            needs = (await asyncio.to_thread(PackageSettings.read, folder)).needs(folder)
        except START_ERRORS as error:
            raise ApiError(400, str(error)) from None
        if not about.trains:
            raise ApiError(
                400,
                f"model {name} is not trained: its class defines no train(self, dataset, run). Add the model again "
                "with one, or with its weights in the package",
            )
        network = needs.network
        return TrainingSubject(name, about.dataset, about.reproducible, None, folder, python, key, network)

    async def unload(self, name: str, version: str | None = None) -> None:
        """Drops a version, by default all; artefacts stay on disk. What is not loaded is left as it is."""
        async with self._loads[name]:
            entry = self.entry(name)
            entry.reason = "unloaded"
            await self._drop(entry, [loaded for loaded in entry.versions if version in (None, loaded)])
            self._forget_unused(entry)

    def _forget_unused(self, entry: ModelEntry) -> None:
        """A package leaves nothing once no version of it is loaded."""
        if entry.model is None and not entry.versions:
            self.entries.pop(entry.name, None)

    async def _drop(self, entry: ModelEntry, dropped: Sequence[str]) -> None:
        """Drops versions, which a model with reference cycles would survive with its memory and threads."""
        for version in dropped:
            await entry.versions.pop(version).serving.end()
        if entry.is_predefined:
            await asyncio.to_thread(collect_and_freeze)

    async def close(self) -> None:
        """Ends all runners."""
        for entry in self.entries.values():
            for version in list(entry.versions):
                await entry.versions.pop(version).serving.end()
        await self._host.close()


def _refused(entry: ModelEntry, version: str, error: Exception) -> ApiError:
    traceback = None
    if isinstance(error, RunnerError):
        entry.failures.add(entry.name, version, ModelFailure(str(error)), rows=0)
    if isinstance(error, ModelFailure):
        traceback = error.traceback
        entry.failures.add(entry.name, version, error, rows=0)
    if isinstance(error, PackageError):
        return ApiError(400, str(error))
    lacks_memory = isinstance(error, MemoryShortageError) or (isinstance(error, ModelFailure) and error.out_of_memory)
    first_line = (str(error).splitlines() or [type(error).__name__])[0][:REASON_CHARACTERS_MAX]
    entry.reason = f"version {version} cannot be loaded: {first_line}"
    return ApiError(507 if lacks_memory else 400, f"model {entry.name} {entry.reason}", traceback=traceback)
