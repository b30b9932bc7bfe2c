"""Models that come as packages: a folder of files that the member fetched, and the manifest that describes them.

    PACKAGES/VERSION/manifest.json   runtime, entry and settings; the member has verified every file that it lists
    PACKAGES/VERSION/files/...       what the user added

A package's code is imported under a name of its own, each time anew, so that two versions of a model can be loaded at
once. `runtimes` makes a model of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ModelFileError, PackageError
from .models import Model
from .runtimes import RUNTIMES, runtime_called

MANIFEST = "manifest.json"
FILES = "files"
REQUIREMENTS = "requirements.txt"
NO_ENVIRONMENT = (
    "The package was added without an environment of its own: add it without --no-environment, or install this beside "
    "the model server on every member"
)


@dataclass(frozen=True)
class OpenedPackage:
    """A model, and how to forget its code once nothing of it is loaded."""

    model: Model
    manifest: Path
    """What stands for an artefact where the model has none."""
    forget: Callable[[], None] = field(default=lambda: None)


class Packages:
    """The packages in the member's folder. Without one, there are none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def folder(self, version: str) -> Path:
        """The folder of a package. Raises PackageError if there are none."""
        if self._folder is None:
            raise PackageError("this server loads no packages: it was started without --packages-dir")
        return self._folder / version


def require_requirements(folder: Path, advice: str = NO_ENVIRONMENT) -> None:
    """Raises PackageError if something that a package requires is not installed in this environment."""
    from .requirements import unmet_requirement  # not in runners, whose environments may lack what it imports

    requirements = folder / FILES / REQUIREMENTS
    if requirements.is_file():
        unmet = unmet_requirement(requirements.read_text(errors="replace"))
        if unmet:
            raise PackageError(f"{REQUIREMENTS}: {unmet}. {advice}")


def open_package(folder: Path, name: str) -> OpenedPackage:
    """Makes a model called `name` of what is in a folder. Raises PackageError."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        runtime, entry = str(manifest["runtime"]), str(manifest["entry"])
        settings: Mapping[str, Any] = manifest.get("settings", {})
    except FileNotFoundError:
        raise PackageError(f"the package is not in {folder}: the member fetches it before it is loaded") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PackageError(f"{path} cannot be read: {error}") from error
    make_model = runtime_called(runtime)
    if make_model is None:
        raise PackageError(f"runtime {runtime!r} is not among those of this server: {', '.join(RUNTIMES)}")
    files = folder / FILES
    try:
        made = make_model(name, files, entry, settings)
    except ModelFileError as error:
        raise PackageError(f"{entry}: {error}") from error
    return OpenedPackage(made.model, path, made.forget)
