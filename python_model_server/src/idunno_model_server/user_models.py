"""Users' own models: Python files in a folder outside the package, so that an upgrade leaves them alone.

At start the server imports every `*.py` file, and every folder with `__init__.py`, whose name does not begin with `_`,
and offers each concrete `Model` that it defines beside the predefined ones. A broken file is reported by name and
affects no other.

These files run with the server's rights. A file or folder that everyone may write to is therefore refused.
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import get_args

from .bytes_tensor import ROWS_MAX
from .errors import ModelFileError
from .models.base import DatasetUse, DeviceUse, Model
from .models.batch_model import is_async
from .parameters import RESERVED, TYPE_NAMES, Parameter

ENVIRONMENT = "IDUNNO_MODELS_DIR"
NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}")  # a name of a folder, never "." or ".."
SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")
LIMITS = {"batch_max": (1, ROWS_MAX), "concurrency": (1, 64), "memory_mib": (1, 1 << 24), "row_timeout_s": (1, 3600)}
"""The range of what a class may declare: integers, but for the timeout."""
OPTIONAL_LIMITS = frozenset(("concurrency", "memory_mib", "row_timeout_s"))
MODULE_PREFIX = "idunno_user_models_"
INIT = "__init__.py"


@dataclass(frozen=True)
class BrokenFile:
    """A file whose models are not offered, and why."""

    file: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass
class UserModels:
    """The models in a folder, and the files that cannot be used."""

    models: dict[str, Model] = field(default_factory=dict)
    broken: list[BrokenFile] = field(default_factory=list)


def default_folder() -> Path:
    """IDUNNO_MODELS_DIR, or else idunno/models in the user's data folder."""
    configured = os.environ.get(ENVIRONMENT)
    if configured:
        return Path(configured)
    data = os.environ.get("XDG_DATA_HOME")
    # Unlike Path.home, expanduser does not fail for a user without a home.
    return Path(data or os.path.expanduser("~/.local/share")) / "idunno" / "models"  # noqa: PTH111


def discover(folder: Path, predefined: Mapping[str, Model]) -> UserModels:
    """The models of a folder, sorted by name; none if it is missing. The names of predefined models are taken."""
    found = UserModels()
    owners: dict[str, str] = dict.fromkeys(predefined, "the predefined models")
    try:
        if not folder.exists():
            return found
        _refuse_world_writable(folder)
        modules = sorted(pkgutil.iter_modules([str(folder)]), key=lambda module: module.name)
    except (OSError, ModelFileError) as error:
        found.broken.append(BrokenFile(folder, str(error)))
        return found
    for module in modules:
        if module.name.startswith("_"):
            continue
        file = folder / module.name / INIT if module.ispkg else folder / f"{module.name}.py"
        try:
            _refuse_world_writable(file)
            for model in _models_in(_import(file, module.name)):
                if model.name in owners:
                    raise ModelFileError(f"model name {model.name!r} is already used by {owners[model.name]}")
                owners[model.name] = str(file)
                found.models[model.name] = model
        except ModelFileError as error:
            found.broken.append(BrokenFile(file, str(error)))
    found.models = dict(sorted(found.models.items()))
    return found


def open_user_model(file: Path, name: str) -> Model:
    """The model of that name in a file, imported anew. Raises ModelFileError."""
    _refuse_world_writable(file)
    stem = file.parent.name if file.name == INIT else file.stem
    for model in _models_in(_import(file, stem)):
        if model.name == name:
            return model
    raise ModelFileError(f"{file} no longer defines the model {name!r}")


def files_of(file: Path) -> Path:
    """What belongs to the model in a file: the folder of a package, or the file alone."""
    return file.parent if file.name == INIT else file


def _refuse_world_writable(path: Path) -> None:
    if path.stat().st_mode & stat.S_IWOTH:
        raise ModelFileError(f"everyone may write to it; run: chmod o-w {path}")


def _import(file: Path, name: str) -> ModuleType:
    """Imports under a prefixed name, so that a user's `json.py` does not replace the standard `json`."""
    spec = importlib.util.spec_from_file_location(MODULE_PREFIX + name, file)
    if spec is None or spec.loader is None:
        raise ModelFileError("not a Python source file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:  # a person's, at start
        raise
    except BaseException as error:
        del sys.modules[spec.name]
        raise ModelFileError(f"{line_prefix(error, file)}{type(error).__name__}: {error}") from error
    return module


def line_prefix(error: BaseException, file: Path) -> str:
    """Where in the user's file an error arose."""
    if isinstance(error, SyntaxError):
        return ""  # its message has the line
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"line {lines[-1]}: " if lines else ""


def _models_in(module: ModuleType) -> list[Model]:
    """Raises ModelFileError naming the class and the rule that it breaks."""
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Model) and value.__module__ == module.__name__
    ]
    models = [checked_model(value) for value in classes if hasattr(value, "name")]
    if not models:
        raise ModelFileError("it defines no subclass of Model that sets a name")
    return models


def _check_limits(kind: type[Model], refuse: Callable[[str], ModelFileError]) -> None:
    """Checks what a class declares about how it is to be called."""
    if kind.device not in get_args(DeviceUse):
        raise refuse(f"device {kind.device!r} must be one of {', '.join(get_args(DeviceUse))}")
    for name, (low, high) in LIMITS.items():
        value: object = getattr(kind, name)
        is_number = type(value) is int or (type(value) is float and name == "row_timeout_s")
        is_in_range = is_number and isinstance(value, int | float) and low <= value <= high
        if not is_in_range and not (value is None and name in OPTIONAL_LIMITS):
            raise refuse(f"{name} must be from {low} to {high}, not {value!r}")
    if type(kind.network) is not bool:
        raise refuse(f"network must be True or False, not {kind.network!r}")
    if inspect.iscoroutinefunction(getattr(kind, "setup", None)):
        raise refuse("setup must not be async: it is called on the event loop's thread")
    if is_async(kind) and kind.concurrency is None:
        raise refuse("an async predict needs a concurrency")


def checked_model(kind: type[Model]) -> Model:
    def refuse(rule: str) -> ModelFileError:
        return ModelFileError(f"class {kind.__name__}: {rule}")

    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    if missing:
        raise refuse(f"it does not define {', '.join(missing)}")
    if not isinstance(kind.name, str) or not NAME.fullmatch(kind.name):
        raise refuse(f"name {kind.name!r} must be 1 to 64 letters, digits, '.', '_' and '-', and not '.' or '..'")
    for attribute in ("description", "platform"):
        if not isinstance(getattr(kind, attribute, None), str):
            raise refuse(f"{attribute} must be a string")
    if not isinstance(kind.suffix, str) or not SUFFIX.fullmatch(kind.suffix):
        raise refuse(f"suffix {kind.suffix!r} must be a dot and up to 16 letters and digits")
    if kind.dataset not in get_args(DatasetUse):
        raise refuse(f"dataset {kind.dataset!r} must be one of {', '.join(get_args(DatasetUse))}")
    if type(kind.reproducible) is not bool:
        raise refuse(f"reproducible must be True or False, not {kind.reproducible!r}")
    _check_limits(kind, refuse)
    for name, parameter in dict(kind.parameters).items():
        if not isinstance(parameter, Parameter) or type(parameter.default) not in TYPE_NAMES:
            raise refuse(f"parameter {name!r} must be Parameter(default) with a bool, int, float or str as default")
        try:
            parameter.parse(parameter.default)
        except ValueError:
            raise refuse(f"the default of parameter {name!r} must be {parameter.constraint()}") from None
        if not isinstance(name, str) or not name.isidentifier() or name in RESERVED:
            raise refuse(f"parameter name {name!r} must be an identifier that the protocol does not reserve")
    expected = inspect.signature(Model.train).parameters
    if len(inspect.signature(kind.train).parameters) != len(expected):
        raise refuse("train must take (self, dataset, run)")
    try:
        return kind()
    except BaseException as error:
        raise refuse(f"it cannot be constructed without arguments: {error}") from error
