"""Users' own models: Python files in a folder outside the package, so that an upgrade leaves them alone.

Every file `*.py`, and every folder with `__init__.py`, whose name does not begin with `_` is imported once, at start,
and every concrete `Model` that it defines is offered beside the predefined ones. What is wrong with a file is told with
the file's name and keeps nothing else from working.

These files run with the rights of the server. A folder or file that everyone may write to is therefore refused.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import pkgutil
import re
import stat
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import get_args

from .models.base import DatasetUse, Model
from .parameters import RESERVED, TYPE_NAMES, Parameter

ENVIRONMENT = "IDUNNO_MODELS_DIR"
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")
MODULE_PREFIX = "idunno_user_models_"


@dataclass(frozen=True)
class BrokenFile:
    """A file whose models are not offered, and why."""

    file: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass
class Found:
    """What a folder holds."""

    models: dict[str, Model] = field(default_factory=dict)
    broken: list[BrokenFile] = field(default_factory=list)


class InvalidModelError(Exception):
    """A file does not keep the rules of a model."""


def default_folder() -> Path:
    """IDUNNO_MODELS_DIR, or else idunno/models in the user's data folder."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named)
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")  # unlike Path.home, it cannot fail
    return Path(data) / "idunno" / "models"


def discover(folder: Path, taken: Mapping[str, Model]) -> Found:
    """The models of a folder, sorted by name. `taken` are those whose names are in use. A missing folder has none."""
    found = Found()
    owners: dict[str, str] = dict.fromkeys(taken, "the predefined models")
    try:
        if not folder.exists():
            return found
        _refuse_writable(folder)
        modules = sorted(pkgutil.iter_modules([str(folder)]), key=lambda module: module.name)
    except (OSError, InvalidModelError) as error:
        found.broken.append(BrokenFile(folder, str(error)))
        return found
    for module in modules:
        if module.name.startswith("_"):
            continue
        file = folder / module.name / "__init__.py" if module.ispkg else folder / f"{module.name}.py"
        try:
            _refuse_writable(file)
            for model in _models_in(_import(file, module.name)):
                if model.name in owners:
                    raise InvalidModelError(f"model name {model.name!r} is in use by {owners[model.name]}")
                owners[model.name] = str(file)
                found.models[model.name] = model
        except InvalidModelError as error:
            found.broken.append(BrokenFile(file, str(error)))
    found.models = dict(sorted(found.models.items()))
    return found


def _refuse_writable(path: Path) -> None:
    if path.stat().st_mode & stat.S_IWOTH:
        raise InvalidModelError(f"everyone may write to it; run: chmod o-w {path}")


def _import(file: Path, name: str) -> ModuleType:
    """Imports under a name of its own, so that a user's `json.py` is not everyone's `json`."""
    spec = importlib.util.spec_from_file_location(MODULE_PREFIX + name, file)
    if spec is None or spec.loader is None:
        raise InvalidModelError("it is not a Python source file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise InvalidModelError(f"{_line_in(error, file)}{type(error).__name__}: {error}") from error
    return module


def _line_in(error: BaseException, file: Path) -> str:
    """Where in the user's file an error arose."""
    if isinstance(error, SyntaxError):
        return ""  # its own words name the line
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"line {lines[-1]}: " if lines else ""


def _models_in(module: ModuleType) -> list[Model]:
    """Raises InvalidModelError that names the class and the rule."""
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Model) and value.__module__ == module.__name__
    ]
    models = [_checked(value) for value in classes if hasattr(value, "name")]
    if not models:
        hint = ": it needs a name" if classes else ""
        raise InvalidModelError(f"it defines no class that extends Model and has a name{hint}")
    return models


def _checked(kind: type[Model]) -> Model:
    def refuse(rule: str) -> InvalidModelError:
        return InvalidModelError(f"class {kind.__name__}: {rule}")

    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    if missing:
        raise refuse(f"it does not define {', '.join(missing)}")
    if not isinstance(kind.name, str) or not NAME.fullmatch(kind.name):
        raise refuse(f"name {kind.name!r} must be 1 to 64 letters, digits, '.', '_' and '-'")
    for attribute in ("description", "platform"):
        if not isinstance(getattr(kind, attribute, None), str):
            raise refuse(f"{attribute} must be a text")
    if not isinstance(kind.suffix, str) or not SUFFIX.fullmatch(kind.suffix):
        raise refuse(f"suffix {kind.suffix!r} must be a dot and up to 16 letters and digits")
    if kind.dataset not in get_args(DatasetUse):
        raise refuse(f"dataset {kind.dataset!r} must be one of {', '.join(get_args(DatasetUse))}")
    for name, parameter in dict(kind.parameters).items():
        if not isinstance(parameter, Parameter) or type(parameter.default) not in TYPE_NAMES:
            raise refuse(f"parameter {name!r} must be Parameter(default), the default a bool, int, float or str")
        try:
            parameter.parse(parameter.default)
        except ValueError:
            raise refuse(f"the default of parameter {name!r} must be {parameter.wanted()}") from None
        if not isinstance(name, str) or not name.isidentifier() or name in RESERVED:
            raise refuse(f"parameter name {name!r} must be an identifier and none of the protocol's own")
    wanted = len(inspect.signature(Model.train).parameters)
    if len(inspect.signature(kind.train).parameters) != wanted:
        raise refuse("train must take (self, dataset, run)")
    try:
        return kind()
    except Exception as error:
        raise refuse(f"it cannot be made without arguments: {error}") from error
