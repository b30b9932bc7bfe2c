"""Reads pickled weights without running what a pickle may name.

Both readers go through an allow-listing unpickler: a name outside the list is refused, never called.
"""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

TORCH_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_LEGACY_PROTOCOL = 1001
TORCH_DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}

Tensors = dict[str, np.ndarray]


class _Storage:
    """A flat buffer of one dtype. The pickle names it; its bytes follow later in the file."""

    def __init__(self, dtype: str, length: int) -> None:
        self.dtype = np.dtype(dtype)
        self.length = length
        self.data = np.empty(0, self.dtype)


def _rebuild_tensor(storage: _Storage, offset: int, size: Any, stride: Any, *_unused: Any) -> tuple[Any, ...]:
    """Stands in for torch._utils._rebuild_tensor_v2: remembers the view, because the bytes are not read yet."""
    return storage, offset, tuple(size), tuple(stride)


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
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, pid: Any) -> _Storage:
        _kind, dtype, key, _location, length, view = pid
        if view is not None:
            raise pickle.UnpicklingError("storage views are not supported")
        return self.storages.setdefault(key, _Storage(dtype, length))


class _NumpyUnpickler(pickle.Unpickler):
    """Allows only the names that a pickled numpy array needs."""

    ALLOWED = frozenset({("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")})

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_torch_legacy(path: Path) -> Tensors:
    """Reads torch's serialisation from before 1.6 (several pickles in a row, then the raw storages)."""
    with path.open("rb") as file:
        if _TorchUnpickler(file).load() != TORCH_LEGACY_MAGIC or _TorchUnpickler(file).load() != TORCH_LEGACY_PROTOCOL:
            raise ValueError(f"{path}: not a legacy torch file")
        _TorchUnpickler(file).load()  # sizes of the C types on the machine that wrote the file: not needed
        unpickler = _TorchUnpickler(file)
        views = unpickler.load()
        for key in _TorchUnpickler(file).load():
            storage = unpickler.storages[key]
            length = int(np.frombuffer(file.read(8), "<i8")[0])
            if length != storage.length:
                raise ValueError(f"{path}: storage {key} holds {length} values, {storage.length} announced")
            storage.data = np.frombuffer(file.read(length * storage.dtype.itemsize), storage.dtype)
    tensors = {}
    for name, (storage, offset, size, stride) in views.items():
        strides = [step * storage.dtype.itemsize for step in stride]
        tensors[name] = np.lib.stride_tricks.as_strided(storage.data[offset:], size, strides).copy()
    return tensors


def read_numpy_pickle(path: Path) -> dict[str, Any]:
    """Reads a pickled dictionary of numpy arrays."""
    with path.open("rb") as file:
        return _NumpyUnpickler(file).load()
