"""Whether what a package requires is installed in this environment."""

from __future__ import annotations

import re
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement


def unmet_requirement(text: str) -> str | None:
    """The first line of a requirements file that this environment does not meet, and why; None if all are met."""
    for line in text.replace("\\\n", " ").splitlines():
        requirement = re.sub(r"(^|\s)#.*|\s--hash=\S+", "", line).strip()
        reason = _unmet(requirement) if requirement else None
        if reason:
            return f"{requirement} is required, and {reason}"
    return None


def _unmet(line: str) -> str | None:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return "only names and versions can be compared with what is installed"
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    if requirement.url is not None:
        return "what is installed does not say from which URL it came"
    try:
        installed = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(installed, prereleases=True):
        return f"version {installed} is installed"
    return None
