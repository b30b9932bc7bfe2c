"""The dependency files agree: ranges in pyproject.toml, pins in the lock files."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def test_what_builds_the_package_is_the_locked_one() -> None:
    requires = tomllib.loads((FOLDER / "pyproject.toml").read_text())["build-system"]["requires"]
    locked = pins("requirements.lock")
    assert [f"{name}=={locked[canonicalize_name(name)]}" for name in ("flit_core",)] == requires


def test_every_locked_package_has_hashes() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        lines = (FOLDER / name).read_text().splitlines()
        starts = [number for number, line in enumerate(lines) if "==" in line and line[0] not in "# "]
        assert starts
        for number in starts:
            assert lines[number + 1].startswith("    --hash=sha256:"), lines[number]
