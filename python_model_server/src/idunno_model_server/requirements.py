"""Whether what a package requires is installed in this environment."""

from __future__ import annotations

import re
from importlib import metadata

LINE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?\s*(?P<bounds>(?:[(<>=!~][^;]*?)?)\s*(?:;.*)?")
BOUND = re.compile(r"(?P<operator>===?|~=|!=|<=|>=|<|>)\s*(?P<version>[0-9A-Za-z.*+!-]+)")


def unmet_requirement(text: str) -> str | None:
    """The first line of a requirements file that this environment does not meet, and why; None if all are met."""
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        requirement = re.sub(r"(^|\s)#.*", "", line).strip()
        requirement = re.sub(r"\s--hash=\S+", "", requirement).strip()
        if not requirement:
            continue
        reason = _unmet(requirement)
        if reason:
            return f"{requirement} is required, and {reason}"
    return None


def _unmet(requirement: str) -> str | None:
    match = LINE.fullmatch(requirement)
    if match is None or requirement.startswith("-"):
        return "only names and versions can be compared with what is installed"
    try:
        installed = metadata.version(match["name"])
    except metadata.PackageNotFoundError:
        return f"{match['name']} is not installed"
    for bound in filter(None, (part.strip() for part in match["bounds"].strip("() ").split(","))):
        parsed = BOUND.fullmatch(bound)
        if parsed is None:
            return f"{bound!r} cannot be compared with the installed version {installed}"
        if not _meets(installed, parsed["operator"], parsed["version"]):
            return f"version {installed} is installed"
    return None


def _meets(installed: str, operator: str, wanted: str) -> bool:
    """Compares release numbers; suffixes such as rc1 or +cpu are left out."""
    have, want = _release(installed), _release(wanted)
    length = max(len(have), len(want))
    padded_have, padded_want = have + (0,) * (length - len(have)), want + (0,) * (length - len(want))
    if operator in ("==", "===", "!="):
        equal = have[: len(want)] == want if wanted.endswith(".*") else padded_have == padded_want
        return equal if operator != "!=" else not equal
    if operator == "~=":
        return padded_have >= padded_want and have[: len(want) - 1] == want[:-1]
    return {
        "<": padded_have < padded_want,
        "<=": padded_have <= padded_want,
        ">": padded_have > padded_want,
        ">=": padded_have >= padded_want,
    }[operator]


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"(?:\d+!)?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in match[1].split(".")) if match else ()
