"""How much memory this process has, and how much there is. Linux only; elsewhere the figures are 0 or None."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
_STATM = Path("/proc/self/statm")
_STATUS = Path("/proc/self/status")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class ProcessMemory:
    """Resident memory (RSS) of this process."""

    rss_bytes: int
    rss_peak_bytes: int

    @classmethod
    def read(cls) -> ProcessMemory:
        return cls(rss_bytes(), _kib_field(_STATUS, "VmHWM:") * 1024)

    def as_json(self) -> dict[str, int]:
        return {"pid": os.getpid(), "rss_bytes": self.rss_bytes, "rss_peak_bytes": self.rss_peak_bytes}


def rss_bytes() -> int:
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def available_bytes(cgroup: Path = _CGROUP) -> int | None:
    """What can still be allocated: the machine's, or less if this process's control group has a limit. None if unknown.

    A service's own group is the root of what it sees if it has a namespace of its own, and is found by
    /proc/self/cgroup otherwise.
    """
    machine = _kib_field(_MEMINFO, "MemAvailable:") * 1024
    if not machine:
        return None
    own = cgroup / _own_group()
    for folder in (cgroup, own.parent, own):  # a server with groups for its runners is in a part of its unit's
        try:
            limit = (folder / "memory.max").read_text().strip()
            if limit != "max":
                used = int((folder / "memory.current").read_text()) - _reclaimable_bytes(folder)
                machine = min(machine, max(int(limit) - used, 0))
        except (OSError, ValueError):
            continue
    return machine


def _reclaimable_bytes(folder: Path) -> int:
    """The part of a group's memory that holds files which nobody has read lately."""
    lines = (folder / "memory.stat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)


def _own_group() -> str:
    try:
        line = Path("/proc/self/cgroup").read_text().splitlines()[0]
    except (OSError, IndexError):
        return ""
    return line.rpartition(":")[2].lstrip("/")


def _kib_field(file: Path, name: str) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
