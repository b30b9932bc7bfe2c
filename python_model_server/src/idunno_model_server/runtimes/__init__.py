"""What makes a model of a package's files, by the name in its manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .base import MadeModel
from .command import command_model
from .onnx_file import onnx_model
from .openai_server import openai_model
from .python_class import python_model

MakeModel = Callable[[str, Path, str, Mapping[str, Any]], MadeModel]
"""Takes the model's name, the folder of its files, the entry within it, and the settings. Raises ModelFileError."""

RUNTIMES: Mapping[str, MakeModel] = {
    "python": python_model,
    "onnx": onnx_model,
    "command": command_model,
    "openai": openai_model,
}
