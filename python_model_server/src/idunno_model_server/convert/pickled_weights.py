"""Reads pickled weights without running any code that a pickle names.

Both readers use an unpickler with an allow-list: any other name is refused, never called.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import ConversionError

TORCH_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_LEGACY_PROTOCOL = 1001
TORCH_DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


@dataclass(frozen=True)
class Layer:
    """A convolution of a numpy pickle."""

    filters: np.ndarray
    bias: np.ndarray


class _Storage:
    """A flat buffer of one dtype. The pickle names it; its bytes follow later in the file."""

    def __init__(self, dtype: str, length: int) -> None:
        self.dtype = np.dtype(dtype)
        self.length = length
        self.data = np.empty(0, self.dtype)


@dataclass(frozen=True)
class _TensorView:
    """A tensor as a view of a storage, in elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> np.ndarray:
        strides = [step * self.storage.dtype.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(self.storage.data[self.offset :], self.size, strides).copy()


def _rebuild_tensor(
    storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_unused: object
) -> _TensorView:
    """Replaces torch._utils._rebuild_tensor_v2. Only records the view, because the bytes are not read yet."""
    return _TensorView(storage, offset, tuple(size), tuple(stride))


class _TorchUnpickler(pickle.Unpickler):
    """Allows only the names that a torch state dict needs."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in TORCH_DTYPES:
            return TORCH_DTYPES[name]
        raise ConversionError(f"the pickle names {module}.{name}, which is not allowed")

    def persistent_load(self, pid: Any) -> _Storage:
        _kind, dtype, key, _location, length, view = pid
        if view is not None:
            raise ConversionError("storage views are not supported")
        return self.storages.setdefault(key, _Storage(dtype, length))


class _NumpyUnpickler(pickle.Unpickler):
    """Allows only the names that a pickled numpy array needs."""

    ALLOWED = frozenset({("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")})

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise ConversionError(f"the pickle names {module}.{name}, which is not allowed")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_torch_legacy(path: Path) -> dict[str, np.ndarray]:
    """Reads torch's serialisation from before 1.6: several pickles in a row, then the raw storages."""
    with path.open("rb") as file:
        if _TorchUnpickler(file).load() != TORCH_LEGACY_MAGIC or _TorchUnpickler(file).load() != TORCH_LEGACY_PROTOCOL:
            raise ConversionError(f"{path}: not a legacy torch file")
        _TorchUnpickler(file).load()  # skips the sizes of C types on the machine that wrote the file
        unpickler = _TorchUnpickler(file)
        views: dict[str, _TensorView] = unpickler.load()
        for key in _TorchUnpickler(file).load():
            storage = unpickler.storages[key]
            length = int(np.frombuffer(file.read(8), "<i8")[0])
            if length != storage.length:
                raise ConversionError(f"{path}: storage {key} holds {length} values, not {storage.length}")
            storage.data = np.frombuffer(file.read(length * storage.dtype.itemsize), storage.dtype)
    return {name: view.read() for name, view in views.items()}


def read_layers(path: Path) -> dict[str, Layer]:
    """Reads a pickled dictionary of (filters, bias) pairs of numpy arrays."""
    with path.open("rb") as file:
        pairs = _NumpyUnpickler(file).load()
    return {name: Layer(filters, bias) for name, (filters, bias) in pairs.items()}
