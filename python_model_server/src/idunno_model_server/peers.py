"""Who is at the other end of a connection."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

WALKS_MAX = 3
_CREDENTIALS = struct.Struct("3i")
"""Process, user and group (unix(7))."""
_PROC = Path("/proc")


def is_own_descendant(connection: socket.socket) -> bool:
    """Whether a process below this one, such as a model's, opened a connection to a Unix socket; also if one of this
    user did that is gone, and may have been one. False for other sockets, and where the kernel does not tell."""
    if connection.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return False
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _group = _CREDENTIALS.unpack(told)
    if user != os.geteuid():
        return False  # what this process starts stays of its user
    if pid in _ancestors():
        return False  # the member, of which this user sees nothing under `ProtectProc=invisible`: it cannot be traced
    for _ in range(WALKS_MAX):
        found = _is_below_this(pid)
        if found is not None:
            return found
    return not (_PROC / str(pid)).exists()


def _ancestors() -> set[int]:
    """The processes above this one, up to the first of which this user sees nothing."""
    found: set[int] = set()
    pid: int | None = os.getpid()
    while pid is not None and pid > 1:
        pid = _parent(pid)
        if pid is not None:
            found.add(pid)
    return found


def _parent(pid: int) -> int | None:
    """None if it has just ended, or if this user does not see it."""
    try:
        # After the command's name, which may contain anything: the state, then the parent.
        return int((_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _is_below_this(pid: int) -> bool | None:
    """None if the walk to the first process meets one that has just ended, or that this user does not see."""
    while pid > 1:
        if pid == os.getpid():
            return True
        parent = _parent(pid)
        if parent is None:
            return None
        pid = parent
    return False
