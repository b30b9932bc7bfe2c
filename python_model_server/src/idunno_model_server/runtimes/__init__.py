"""What makes a model of a package's files, by the name in its manifest."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .base import MadeModel

MakeModel = Callable[[str, Path, str, Mapping[str, Any]], MadeModel]
"""Takes the model's name, the folder of its files, the entry within it, and the settings. Raises ModelFileError."""

RUNTIMES: Mapping[str, str] = {
    "python": "python_class.python_model",
    "sentence-transformers": "sentence_embeddings.sentence_model",
    "transformers": "transformers_folder.transformers_model",
    "sklearn": "sklearn_file.sklearn_model",
    "onnx": "onnx_file.onnx_model",
    "command": "command.command_model",
    "openai": "openai_server.openai_model",
}
"""Where each is, in this package."""


def runtime_called(name: str) -> MakeModel | None:
    """What makes models of this runtime; None if there is none. Each runner imports no other than its own."""
    if name not in RUNTIMES:
        return None
    module, function = RUNTIMES[name].split(".")
    make_model: MakeModel = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return make_model
