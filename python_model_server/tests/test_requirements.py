"""The dependency files agree: ranges in pyproject.toml, pins in the lock files."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from idunno_model_server.package_data import DATA_PACKAGES

FOLDER = Path(__file__).parent.parent


def pins(name: str) -> dict[str, str]:
    """The versions in a requirements file or a lock file, by package."""
    lines = (FOLDER / name).read_text().splitlines()
    requirements = [Requirement(line.removesuffix("\\")) for line in lines if "==" in line and line[0] not in "# "]
    return {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in requirements}


def test_every_dependency_is_locked_within_its_range() -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    locked = pins("requirements-dev.lock")
    declared = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    for requirement in map(Requirement, declared):
        if requirement.name != project["name"]:
            assert locked[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_servers_lock_is_part_of_the_development_lock() -> None:
    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()


def test_pins_of_the_data_packages_agree() -> None:
    text = (FOLDER / "requirements-weights.txt").read_text()
    assert sorted(DATA_PACKAGES.values()) == sorted(line for line in text.splitlines() if not line.startswith("#"))
    assert pins("requirements-weights.lock") == pins("requirements-weights.txt")
