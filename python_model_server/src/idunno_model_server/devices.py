"""Which device a model runs on. A GPU counts if this process may open its device file and is not told to ignore it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .errors import ModelLoadError
from .models.base import DeviceUse

CPU = "cpu"
FIRST_GPU = "cuda:0"
VISIBLE = "CUDA_VISIBLE_DEVICES"
ASSIGNED = "IDUNNO_DEVICE"
"""Set in a runner to which the server has assigned a GPU: to "cuda:0", the only one that it sees."""
UNLESS_ON_GPU = "unless on a GPU"
"""What a server that knows of GPUs asks first: to load the model, unless it wants one."""


def resolve_device(device: DeviceUse, folder: Path = Path("/dev"), environment: Mapping[str, str] = os.environ) -> str:
    """ "cpu" or "cuda:0". Raises ModelLoadError for a model that needs a GPU where there is none."""
    if device == CPU:
        return CPU
    if environment.get(ASSIGNED) == FIRST_GPU or has_gpu(folder, environment):
        return FIRST_GPU
    if device == "auto":
        return CPU
    raise ModelLoadError(
        f'the model declares device = "cuda", but no GPU can be used: {_why_none(folder, environment)}'
    )


def has_gpu(folder: Path, environment: Mapping[str, str]) -> bool:
    hidden = environment.get(VISIBLE) in ("", "-1")
    return not hidden and any(os.access(file, os.R_OK | os.W_OK) for file in _device_files(folder))


def _device_files(folder: Path) -> list[Path]:
    """NVIDIA's, and that of Windows's Linux."""
    return [*folder.glob("nvidia[0-9]*"), *folder.glob("dxg")]


def _why_none(folder: Path, environment: Mapping[str, str]) -> str:
    files = _device_files(folder)
    if not files:
        return f"{folder} has no nvidia device"
    if environment.get(VISIBLE) in ("", "-1"):
        return f"{VISIBLE} hides them"
    return f"{files[0]} may not be opened"
