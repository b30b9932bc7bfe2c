"""Who is at the other end of a connection."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

_CREDENTIALS = struct.Struct("3i")
"""Process, user and group (unix(7))."""
_PROC = Path("/proc")


def is_own_descendant(connection: socket.socket) -> bool:
    """Whether a process below this one, such as a model's, opened a connection to a Unix socket, or one that is gone,
    of which that is not known. False for other sockets, and where the kernel does not tell."""
    if connection.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return False
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(told)[0]
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            # After the command's name, which may contain anything: the state, then the parent.
            pid = int((_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[1])
        except (OSError, ValueError):
            return True
    return False
