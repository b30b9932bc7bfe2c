"""The errors of a model that a runner tells the server."""

from __future__ import annotations

from typing import Any

from ..errors import MemoryShortageError, ModelFailure, ModelLoadError, PackageError

Carried = ModelFailure | ModelLoadError | MemoryShortageError | PackageError
CARRIED = (ModelFailure, ModelLoadError, MemoryShortageError, PackageError)
_BY_NAME: dict[str, type[ModelLoadError] | type[MemoryShortageError] | type[PackageError]] = {
    kind.__name__: kind for kind in (ModelLoadError, MemoryShortageError, PackageError)
}


def error_as_json(error: Carried) -> dict[str, Any]:
    if isinstance(error, ModelFailure):
        details = {"traceback": error.traceback, "out_of_memory": error.out_of_memory}
        return {"kind": ModelFailure.__name__, "message": error.message, **details}
    return {"kind": type(error).__name__, "message": str(error)}


def error_of_json(value: dict[str, Any]) -> Carried:
    message = str(value.get("message"))
    kind = _BY_NAME.get(str(value.get("kind")))
    if kind is not None:
        return kind(message)
    return ModelFailure(message, str(value.get("traceback", "")), out_of_memory=value.get("out_of_memory") is True)
