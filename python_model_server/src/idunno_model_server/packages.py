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
from .sandbox import Needs

MANIFEST = "manifest.json"
FILES = "files"
REQUIREMENTS = "requirements.txt"
OPENAI = "openai"
"""The runtime and its table in the settings."""
MEMBERS_FILES = ("token_file", "ca_file")
"""Its settings that name files of each member."""
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


@dataclass(frozen=True)
class PackageSettings:
    """What a manifest says, but for its files."""

    runtime: str
    entry: str
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> PackageSettings:
        """Raises PackageError."""
        path = folder / MANIFEST
        try:
            manifest: dict[str, Any] = json.loads(path.read_bytes())
            runtime, entry = str(manifest["runtime"]), str(manifest["entry"])
            return cls(runtime, entry, dict(manifest.get("settings", {})))
        except FileNotFoundError:
            raise PackageError(f"the package is not in {folder}: the member fetches it before it is loaded") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PackageError(f"{path} cannot be read: {error}") from error

    def needs(self, folder: Path) -> Needs:
        """What its process uses: its folder, and the files of the machine that settings for a server name. Raises
        PackageError."""
        network = self.settings.get("network", self.runtime == OPENAI)
        if not isinstance(network, bool):
            raise PackageError(f"network must be true or false, not {network!r}")
        server = self.settings.get(OPENAI) if self.runtime == OPENAI else None  # whose code is ours
        named = (server.get(key) for key in MEMBERS_FILES) if isinstance(server, Mapping) else ()
        return Needs((folder, *(Path(name) for name in named if isinstance(name, str))), network)


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
    package = PackageSettings.read(folder)
    make_model = runtime_called(package.runtime)
    if make_model is None:
        raise PackageError(f"runtime {package.runtime!r} is not among those of this server: {', '.join(RUNTIMES)}")
    files = folder / FILES
    try:
        made = make_model(name, files, package.entry, package.settings)
    except ModelFileError as error:
        raise PackageError(f"{package.entry}: {error}") from error
    return OpenedPackage(made.model, folder / MANIFEST, made.forget)
