"""Control groups of runners (cgroup v2), where systemd delegated the group of this process to its unit (`Delegate=`).
Elsewhere there are none, and a runner's session and marks are what holds it together.

    GROUP/main            this process and whatever else was in GROUP: a group with groups in it has no processes
    GROUP/runner-NAME     a runner with all that it starts: no process can leave it

The kernel bounds the memory of a group, ends all of it when that runs out, and counts how often it did. Sources:
cgroups(7), the kernel's cgroup-v2.rst, systemd's CGROUP_DELEGATION.

Bound: GONE_S_MAX until a group whose processes were killed can be removed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

MAIN = "main"
RUNNER = "runner-"
GONE_S_MAX = 5.0
GONE_ROUND_S = 0.01
MOUNTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
"""Where groups of version 2 are, alone or beside those of version 1."""


class RunnerGroup:
    """The group of one runner. What fails is as if there were no group."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, pid: int) -> None:
        """Takes in a process. What it starts from then on is in the group, too."""
        self._write("cgroup.procs", str(pid))

    def limit_memory(self, bytes_max: int) -> None:
        """When this is exceeded, and nothing can be reclaimed, the kernel ends all processes of the group."""
        self._write("memory.oom.group", "1")
        self._write("memory.max", str(bytes_max))

    def was_out_of_memory(self) -> bool:
        """Whether the kernel ended processes of the group for lack of memory."""
        try:
            lines = (self._folder / "memory.events").read_text().splitlines()
        except OSError:
            return False
        return any(line.split()[0] == "oom_kill" and line.split()[1] != "0" for line in lines)

    def kill(self) -> None:
        """Kills all processes in it, also those that are being started."""
        self._write("cgroup.kill", "1")

    def remove(self) -> None:
        """Kills what is left, and waits until the group is gone."""
        self.kill()
        deadline_s = time.monotonic() + GONE_S_MAX
        while time.monotonic() < deadline_s:
            try:
                self._folder.rmdir()
            except FileNotFoundError:
                return
            except OSError:  # a process of it is still ending
                time.sleep(GONE_ROUND_S)

    def _write(self, file: str, text: str) -> None:
        with contextlib.suppress(OSError):
            _write(self._folder / file, text)


class Cgroups:
    """The groups of this server's runners."""

    def __init__(self, folder: Path | None) -> None:
        """Below `folder`, from which all processes are moved to MAIN. None if there is no group to be had."""
        self._folder = folder
        self.bounds_memory = False
        """Whether the kernel bounds the memory of a runner."""
        if folder is None:
            return
        try:
            _leave(folder)
            self.bounds_memory = _enable_memory(folder)
        except OSError as error:
            print(f"{folder} was delegated, but cannot be used: {error}", file=sys.stderr, flush=True)
            self._folder = None

    @property
    def are_there(self) -> bool:
        return self._folder is not None

    def new(self, name: str) -> RunnerGroup | None:
        """A group for a runner; None where there is none to be had."""
        if self._folder is None:
            return None
        folder = self._folder / f"{RUNNER}{name}"
        try:
            folder.mkdir()
        except OSError as error:
            print(f"cannot make {folder}: {error}", file=sys.stderr, flush=True)
            return None
        return RunnerGroup(folder)


def delegated(mounts: tuple[Path, ...] = MOUNTS, own: Path = Path("/proc/self/cgroup")) -> Path | None:
    """The group that was delegated: that of this process, or the one above if a server has moved the unit's processes
    to MAIN before. None if there is none."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    name = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    mounted = next((mount for mount in mounts if (mount / "cgroup.controllers").exists()), None)
    if not name or mounted is None:
        return None
    group = mounted / name
    if group.name == MAIN and _is_delegated(group.parent):
        return group.parent
    return group if _is_delegated(group) else None


def _is_delegated(group: Path) -> bool:
    """Whether systemd marked it so. One that merely can be written, such as a login's, may hold processes of others."""
    if not os.access(group, os.W_OK) or not os.access(group / "cgroup.procs", os.W_OK):
        return False
    try:
        return os.getxattr(group, "user.delegate") == b"1"
    except OSError:
        return False


def _leave(folder: Path) -> None:
    """Moves all processes of a group to MAIN within it, and removes groups of runners in which no process is left: the
    others are another server's. Raises OSError."""
    for old in folder.glob(f"{RUNNER}*"):
        with contextlib.suppress(OSError):
            old.rmdir()
    (folder / MAIN).mkdir(exist_ok=True)
    for pid in (folder / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            _write(folder / MAIN / "cgroup.procs", pid)


def _enable_memory(folder: Path) -> bool:
    if "memory" not in (folder / "cgroup.controllers").read_text().split():
        return False
    _write(folder / "cgroup.subtree_control", "+memory")
    return True


def _write(path: Path, text: str) -> None:
    """At once, into a file that is there: the kernel takes each write as a command."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
