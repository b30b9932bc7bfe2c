"""The predefined models: every concrete `Model` in a module of this folder. Users' own are found by `user_models`.

A module here must not import numpy, onnxruntime, Pillow or scikit-learn at its top: all of them are imported at start.
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
