"""The runtime `python`: one class, as in a user's model file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ModelFileError
from ..models import Model
from ..user_models import line_prefix
from .base import MadeModel, packaged
from .package_imports import PackageImports


def python_model(name: str, files: Path, entry: str, settings: Mapping[str, Any]) -> MadeModel:
    path = files / entry
    if path.suffix != ".py":
        raise ModelFileError("the entry of the runtime python must be a .py file")
    # A folder with __init__.py is a package of itself.
    folder, stem = (path.parent, path.stem) if path.stem != "__init__" else (path.parent.parent, path.parent.name)
    imports = PackageImports(folder)
    try:
        kind = _class_in(_import(imports, stem, path), settings.get("class"))
        _check_artefact(files, settings.get("artefact"))
        return MadeModel(packaged(kind, name, files, settings), imports.forget)
    except BaseException:
        imports.forget()
        raise


def _import(imports: PackageImports, stem: str, path: Path) -> ModuleType:
    try:
        return imports.module(stem)
    except BaseException as error:
        raise ModelFileError(f"{line_prefix(error, path)}{type(error).__name__}: {error}") from error


def _class_in(module: ModuleType, wanted: object) -> type[Model]:
    kinds = {
        value.__name__: value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Model) and value.__module__ == module.__name__
    }
    if wanted is not None:
        if wanted not in kinds:
            raise ModelFileError(f"it defines no class {wanted!r} that derives from BatchModel or Model")
        return kinds[str(wanted)]
    if not kinds:
        raise ModelFileError("it defines no class that derives from BatchModel or Model")
    named = [kind for kind in kinds.values() if not getattr(kind, "__abstractmethods__", ())] or list(kinds.values())
    if len(named) > 1:
        names = ", ".join(kind.__name__ for kind in named)
        raise ModelFileError(f'it defines several models ({names}): name one in model.toml, as class = "..."')
    return named[0]


def _check_artefact(files: Path, artefact: object) -> None:
    if artefact is not None and not (files / str(artefact)).is_file():
        raise ModelFileError(f"model.toml names the artefact {artefact!r}, which is not in the package")
