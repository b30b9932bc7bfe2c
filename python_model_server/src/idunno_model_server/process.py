"""What the server asks of its operating system: low priority, an end with its parent, a port others can find."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
EXIT_PARENT_DIED = 3


def one_thread_per_library() -> None:
    """Keeps BLAS and OpenMP to the calling thread. Must run before numpy is imported.

    Parallelism is across rows; pools inside the libraries would compete with it, and with the daemon.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def lower_priority(nice: int) -> None:
    """Adds `nice` to the inherited niceness, so that the daemon beside it is served first under full load."""
    if hasattr(os, "nice"):
        os.nice(nice)


def die_with_parent(parent: int) -> None:
    """Ends this process at once when the process that started it is gone. Linux only; raises OSError elsewhere.

    `parent` is that process's id, or 0 for whoever is the parent now; with 0 a parent that died before this call
    goes unnoticed, which is why a supervisor passes its own id.

    The kernel also sends the signal when only the *thread* that started us ends, which is normal in a daemon with
    a thread pool: the handler therefore looks whether the parent process has really changed.
    """
    if sys.platform != "linux":
        raise OSError("--die-with-parent needs Linux")
    parent = parent or os.getppid()

    def check_parent(_number: int, _frame: FrameType | None) -> None:
        if os.getppid() != parent:
            os._exit(EXIT_PARENT_DIED)

    signal.signal(signal.SIGUSR1, check_parent)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    check_parent(0, None)  # it may have died before the kernel was asked, and then no signal comes


def is_loopback(host: str) -> bool:
    """Whether an address is this machine, seen from itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on this machine alone; port 0 takes a free one. Raises OSError, also for any other address.

    There is neither encryption nor authentication here: whoever reaches the port can have it work.
    """
    if not is_loopback(host):
        raise OSError(f"{host} can be reached from other machines: give 127.0.0.1 or ::1")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def write_port_file(path: Path, port: int) -> None:
    """Writes the port so that a reader sees all of it or no file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{port}\n")
    os.replace(temporary, path)
