"""Operating-system services: low priority, exiting with the parent, a listening port, the file that announces it."""

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
PR_SET_CHILD_SUBREAPER = 36
EXIT_PARENT_DIED = 3


def one_thread_per_library() -> None:
    """Confines BLAS and OpenMP to the calling thread. Must run before numpy is imported.

    The server runs rows in parallel; thread pools inside the libraries would compete with that and with the daemon.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def lower_priority(nice: int) -> None:
    """Adds `nice` to the inherited niceness, so that the daemon on the same machine keeps its CPU under full load."""
    if hasattr(os, "nice"):
        os.nice(nice)


def die_with_parent(parent: int) -> None:
    """Exits this process as soon as its parent process is gone. Linux only; raises OSError elsewhere.

    `parent` is the parent's process id, or 0 for the current one. With 0, a parent that died before this call goes
    unnoticed; that is why a supervisor passes its own id.

    The kernel sends the signal when the *thread* that started this process ends, which is normal in a daemon with a
    thread pool. The handler therefore checks that the parent process has changed.
    """
    if sys.platform != "linux":
        raise OSError("--die-with-parent needs Linux")
    parent = parent or os.getppid()

    def check_parent(_number: int, _frame: FrameType | None) -> None:
        if os.getppid() != parent:
            os._exit(EXIT_PARENT_DIED)

    signal.signal(signal.SIGUSR1, check_parent)
    signal_at_parent_death(signal.SIGUSR1)
    check_parent(0, None)  # if the parent died before prctl, no signal will come


def signal_at_parent_death(number: signal.Signals) -> None:
    """Has the kernel send a signal when the thread that started this process ends. Raises OSError."""
    _prctl(PR_SET_PDEATHSIG, number)


def become_subreaper() -> None:
    """From now on a descendant whose parent ends becomes a child of this process. Raises OSError."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on a loopback address; port 0 picks a free port. Raises OSError, also for other addresses.

    There is neither encryption nor authentication: anyone who reaches the port controls the server.
    """
    if not is_loopback(host):
        raise OSError(f"{host} can be reached from other machines: use 127.0.0.1 or ::1")
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


def listen_at(path: Path, mode: int) -> socket.socket:
    """A listening Unix socket in place of whatever has this name. Raises OSError.

    Whoever may enter its folder and write to it, as its mode says, controls the server. The kernel takes no path of
    more than about 100 bytes: the socket is named from its folder's descriptor.
    """
    path.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        near = Path(f"/proc/self/fd/{folder}", path.name)
        listener.bind(str(near))
        near.chmod(mode)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    finally:
        os.close(folder)
    return listener


def write_port_file(path: Path, port: int) -> None:
    """Writes the port atomically: a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{port}\n")
    Path(temporary).replace(path)
