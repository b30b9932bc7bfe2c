"""The processes below this one: a runner, what it started, and what it left behind.

A family is one leader, which has a session of its own, and every process below this one that is in that session, has
the leader's mark in its environment, or descends from such a one. The server is the parent of orphans
(PR_SET_CHILD_SUBREAPER), so nothing leaves the tree. A process that leaves the session, empties its environment and
outlives its parents belongs to no family, and is killed as soon as it is seen.

Linux only; elsewhere a leader's process group is all that is known of it. Bound: KILL_S_MAX to kill a family; a process
that is stuck in the kernel is abandoned.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK = "IDUNNO_RUNNER"
KILL_S_MAX = 10.0
KILL_ROUND_S = 0.02
_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class ProcessEntry:
    """A line of the process table."""

    pid: int
    state: str
    parent: int
    session: int
    cpu_ticks: int
    """Also those of children that have ended."""


@dataclass(frozen=True)
class Family:
    """The processes of one leader."""

    leader: int
    mark: str

    def members(self, table: Mapping[int, ProcessEntry], leaders: Collection[int] = ()) -> list[int]:
        """`leaders` are those of other families, whose environments need not be read."""
        below = descendants(os.getpid(), table)
        found: set[int] = set()
        for pid in below:  # parents come before their children
            entry = table[pid]
            is_own = pid == self.leader or entry.session == self.leader or entry.parent in found
            may_be_orphan = entry.parent == os.getpid() and pid not in leaders
            if is_own or (may_be_orphan and _mark_of(pid) == self.mark):
                found.add(pid)
        return sorted(found)

    def kill(self) -> None:
        """Kills all members, again until none is left, and reaps those that became children of this process. The leader
        is reaped by who started it."""
        deadline_s = time.monotonic() + KILL_S_MAX
        orphans: set[int] = set()
        while time.monotonic() < deadline_s:
            table = process_table()
            if not table:
                return _kill_group(self.leader)
            members = self.members(table)
            living = [pid for pid in members if table[pid].state != "Z"]
            orphans |= set(members) - {self.leader}
            for pid in living:
                _kill(pid)
            _reap(orphans)
            if not living:
                return None
            time.sleep(KILL_ROUND_S)
        return None


class Families:
    """The families that live. Children that this process has before are none of its concern, all later ones are."""

    def __init__(self) -> None:
        self._living: set[Family] = set()
        self._strangers = {entry.pid for entry in process_table().values() if entry.parent == os.getpid()}
        self._suspects: set[int] = set()

    def add(self, family: Family) -> None:
        self._living.add(family)

    def discard(self, family: Family) -> None:
        self._living.discard(family)

    def leaders(self) -> set[int]:
        return {family.leader for family in self._living}

    def sweep(self, table: Mapping[int, ProcessEntry]) -> None:
        """Reaps orphans that have ended, and kills those that belong to no family. One that is seen for the first time
        may be a leader that is about to be added."""
        leaders = self.leaders()
        found = {entry.pid for entry in table.values() if entry.parent == os.getpid()}
        orphans = found - leaders - self._strangers
        for family in self._living if orphans else ():
            orphans.difference_update(pid for pid in family.members(table, leaders) if table[pid].state != "Z")
        for pid in orphans & self._suspects:
            _kill(pid)
            _reap({pid})
        self._suspects = orphans


@asynccontextmanager
async def family_process(
    families: Families, *words: str, env: Mapping[str, str], **options: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with a family of its own. On leaving, it and all that it started have ended."""
    mark = secrets.token_hex(8)
    process = await asyncio.create_subprocess_exec(
        *words, env={**env, MARK: mark}, start_new_session=True, stdin=asyncio.subprocess.DEVNULL, **options
    )
    family = Family(process.pid, mark)
    families.add(family)

    async def end() -> None:
        await asyncio.to_thread(family.kill)
        await process.wait()
        families.discard(family)

    try:
        yield process
    finally:
        await asyncio.shield(end())


def process_table() -> dict[int, ProcessEntry]:
    table = {}
    try:
        names = [entry.name for entry in os.scandir(_PROC) if entry.name.isdigit()]
    except OSError:
        return {}
    for name in names:
        try:
            # After the command's name, which may contain anything: state, parent, group, session.
            words = (_PROC / name / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        ticks = sum(map(int, words[11:15]))
        table[int(name)] = ProcessEntry(int(name), words[0].decode(), int(words[1]), int(words[3]), ticks)
    return table


def descendants(root: int, table: Mapping[int, ProcessEntry]) -> list[int]:
    """All processes below one, parents before their children."""
    children: dict[int, list[int]] = {}
    for entry in table.values():
        children.setdefault(entry.parent, []).append(entry.pid)
    found: list[int] = []
    level = [root]
    while level:
        level = [child for parent in level for child in children.get(parent, ())]
        found += level
    return found


def private_bytes(pids: Collection[int]) -> int:
    """Resident memory of processes that is theirs alone: without files and shared memory."""
    total = 0
    for pid in pids:
        try:
            words = (_PROC / str(pid) / "statm").read_bytes().split()
        except OSError:
            continue
        total += max(0, int(words[1]) - int(words[2])) * _PAGE_BYTES
    return total


def read_bytes(pid: int) -> int:
    """What a process has read so far, from files and elsewhere; 0 if that is not known."""
    try:
        return int((_PROC / str(pid) / "io").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _mark_of(pid: int) -> str | None:
    try:
        entries = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = f"{MARK}=".encode()
    return next((entry[len(prefix) :].decode(errors="replace") for entry in entries if entry.startswith(prefix)), None)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return  # it has just ended, or is another user's


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except OSError:
        return  # all have ended


def _reap(pids: set[int]) -> None:
    for pid in list(pids):
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                pids.discard(pid)
        except ChildProcessError:
            continue  # its parent is another process still
