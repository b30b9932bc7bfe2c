"""What all runtimes share: a class for one package, checked like a user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..devices import resolve_device
from ..errors import ModelFileError, ModelLoadError
from ..models import Model, Runner
from ..models.batch_model import BatchModel, BatchRunner, SetupContext
from ..user_models import checked_model

LIMITS = ("batch_max", "concurrency", "device", "memory_mib", "row_timeout_s")
"""The settings that stand for attributes of the class."""


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class MadeModel:
    """A model, and what forgets its code."""

    model: Model
    forget: Callable[[], None] = field(default=_nothing)


def packaged(kind: type[Model], name: str, files: Path, settings: Mapping[str, Any]) -> Model:
    """An instance of a subclass for one package, with its name and settings. Raises ModelFileError."""
    attributes: dict[str, Any] = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "name": name}
    if not isinstance(getattr(kind, "description", None), str) or "description" in settings:
        attributes["description"] = str(settings.get("description", name))
    attributes.update({limit: settings[limit] for limit in LIMITS if limit in settings})
    if kind.network is True and settings.get("network") is not True:
        raise ModelFileError("its class declares network, and a package does that in model.toml: network = true")
    artefact = settings.get("artefact")
    if artefact is not None:
        attributes["load"] = lambda self, _manifest: kind.load(self, files / artefact)
    is_trained = kind.train is not BatchModel.train
    if artefact is None and is_trained:
        attributes["load"] = lambda _self, _manifest: _refuse_untrained(name)
    elif issubclass(kind, BatchModel) and kind.load is BatchModel.load:
        attributes["load"] = lambda self, manifest: _set_up(self, files / artefact if artefact else manifest, files)
    return checked_model(type(kind.__name__, (kind,), attributes))


def _refuse_untrained(name: str) -> Runner:
    raise ModelLoadError(
        f"it is not trained yet: run 'idunno train-start {name}', or put the artefact that its train wrote into the "
        'package, and name it in model.toml, as artefact = "FILE"'
    )


def _set_up(model: BatchModel, artefact: Path, folder: Path) -> Runner:
    instance = type(model)()
    instance.setup(SetupContext(artefact, folder, resolve_device(type(model).device)))
    return BatchRunner(instance)
