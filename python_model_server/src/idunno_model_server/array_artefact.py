"""Artefacts that consist of numpy arrays, stored as safetensors: no pickles, and no way to run code from a file.

Equal arrays and labels give equal bytes, because a model's version is the hash of its artefact. The format sorts the
tensors but not its metadata, so a file holds a single metadata entry, `labels`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ModelLoadError

if TYPE_CHECKING:
    import numpy as np

LABELS_KEY = "labels"


@dataclass(frozen=True)
class ArrayArtefact:
    """Named float32 arrays, and the labels that the model answers with, in the order of its outputs."""

    arrays: Mapping[str, np.ndarray]
    labels: tuple[str, ...]

    def require_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raises ModelLoadError unless exactly these arrays are there, in these shapes."""
        found = {name: array.shape for name, array in self.arrays.items()}
        if found != dict(shapes):
            raise ModelLoadError(f"the artefact holds arrays {found}; expected {dict(shapes)}")


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], labels: Sequence[str]) -> None:
    """Writes the arrays as little-endian float32."""
    import numpy as np
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(array, "<f4") for name, array in arrays.items()}
    save_file(tensors, path, metadata={LABELS_KEY: json.dumps(list(labels))})


def load_arrays(path: Path) -> ArrayArtefact:
    """Raises SafetensorError for a file of another format, ModelLoadError for one that `save_arrays` did not write."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a mapping
        metadata = file.metadata() or {}
    if LABELS_KEY not in metadata or any(array.dtype != "<f4" for array in arrays.values()):
        raise ModelLoadError("the artefact does not hold float32 arrays with labels")
    return ArrayArtefact(arrays, tuple(json.loads(metadata[LABELS_KEY])))
