"""Imports a package's Python files under a name of its own.

Two versions of a model, or two models, may each have a `helpers.py`. So the files are modules of one package with a
unique name, and within them `import helpers` means the file beside, if there is one: each module gets an `__import__`
that looks there first. Nothing of a package is found by other code, and it can be forgotten as a whole.

A module that finds others by name at run time (`importlib.import_module`, `pickle`) must use relative names.
"""

from __future__ import annotations

import builtins
import importlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

PREFIX = "idunno_package_"
_numbers = itertools.count(1)


class PackageImports:
    """The modules of one package's folder."""

    def __init__(self, folder: Path) -> None:
        self.name = f"{PREFIX}{next(_numbers)}"
        self.folder = folder
        parent = ModuleType(self.name)
        parent.__path__ = [str(folder)]
        sys.modules[self.name] = parent

    def module(self, stem: str) -> ModuleType:
        """Imports `stem`.py. Raises whatever the file raises."""
        importlib.invalidate_caches()
        return importlib.import_module(f"{self.name}.{stem}")

    def forget(self) -> None:
        """Removes all modules, so that their memory is freed once nothing refers to them."""
        for name in [name for name in sys.modules if name == self.name or name.startswith(f"{self.name}.")]:
            del sys.modules[name]


class _Loader(SourceFileLoader):
    """Executes a module with an `__import__` of its own, and writes no bytecode into the package."""

    def set_data(self, path: Any, data: Any, *, _mode: int = 0o666) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        package = module.__name__.split(".")[0]
        root = sys.modules[package]

        def import_beside(
            name: str,
            globals: Mapping[str, object] | None = None,
            locals: Mapping[str, object] | None = None,
            fromlist: Sequence[str] | None = (),
            level: int = 0,
        ) -> ModuleType:
            if level == 0 and _is_in(root, name.split(".")[0]):
                found = importlib.import_module(f"{package}.{name}")
                if not fromlist:
                    return sys.modules[f"{package}.{name.split('.')[0]}"]
                for wanted in fromlist:  # submodules, which `from` may name
                    if wanted != "*" and not hasattr(found, wanted) and hasattr(found, "__path__"):
                        try:
                            importlib.import_module(f"{found.__name__}.{wanted}")
                        except ModuleNotFoundError as error:
                            if error.name != f"{found.__name__}.{wanted}":
                                raise
                return found
            return builtins.__import__(name, globals, locals, fromlist or (), level)

        own = dict(vars(builtins))
        own["__import__"] = import_beside
        vars(module)["__builtins__"] = own
        super().exec_module(module)


def _is_in(root: ModuleType, name: str) -> bool:
    """Whether the package's folder has a module or package of this name."""
    return any(
        (Path(folder) / f"{name}.py").is_file() or (Path(folder) / name / "__init__.py").is_file()
        for folder in root.__path__
    )


class _Finder(MetaPathFinder):
    """Finds the modules of packages."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(PREFIX) or path is None:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


sys.meta_path.insert(0, _Finder())
