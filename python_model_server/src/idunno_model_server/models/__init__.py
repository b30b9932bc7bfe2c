"""The predefined models. Every public module of this folder is imported, and every concrete `Model` in it counts.

Such a file must not import numpy, onnxruntime, Pillow or scikit-learn at its top: the registry is read at start-up.
Users' own models live elsewhere: see `plugins`.
"""

from __future__ import annotations

import importlib
import pkgutil

from .base import Model, Runner

__all__ = ["Model", "Runner", "registry"]


def registry() -> dict[str, Model]:
    """Every predefined model by name, sorted by name."""
    found: dict[str, Model] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for value in vars(module).values():
            is_model = isinstance(value, type) and issubclass(value, Model)
            if is_model and value.__module__ == module.__name__ and getattr(value, "name", None):
                found[value.name] = value()
    return dict(sorted(found.items()))
