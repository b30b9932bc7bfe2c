"""Runs the model server so that nothing that it started outlives it or the member: `python -m
idunno_model_server.guard PARENT_PID OPTIONS...` with the server's options. Linux only.

The guard is the parent of the server, and the kernel makes it the parent of every descendant whose own parent ends
(PR_SET_CHILD_SUBREAPER). It never runs a model's code, so it cannot hang with one. When the server ends, for whatever
reason, and when the member does, it kills whatever is left below it and ends with the server's status. SIGTERM and
SIGINT go to the server.

If the guard itself is killed, the server ends (`--die-with-parent`), and the member kills what is left in the guard's
process group and among the orphans that it adopts.

Bound: KILL_S_MAX to kill what is left; a process that is stuck in the kernel is abandoned.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time

from .os_process import EXIT_PARENT_DIED, become_subreaper, signal_at_parent_death

KILL_S_MAX = 10.0
KILL_ROUND_S = 0.05
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
PARENT_DEATH = signal.SIGUSR1
SIGNALS = (*STOP_SIGNALS, PARENT_DEATH, signal.SIGCHLD)


def main(arguments: list[str]) -> int:
    parent = int(arguments[0])
    become_subreaper()
    # Blocked before the server starts, so that none is lost; `sigwait` takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    words = [sys.executable, "-m", "idunno_model_server", *arguments[1:], "--die-with-parent", str(os.getpid())]
    server = os.posix_spawn(sys.executable, words, os.environ, setsigmask=[])
    signal_at_parent_death(PARENT_DEATH)
    while True:
        status = _reap(server)
        if status is not None:
            kill_children()
            return _end_like(status)
        if os.getppid() != parent:
            kill_children()
            return EXIT_PARENT_DIED
        if signal.sigwait(SIGNALS) in STOP_SIGNALS:
            os.kill(server, signal.SIGTERM)


def _reap(server: int) -> int | None:
    """Reaps what has ended. Returns the status of the server if it has."""
    found = None
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return found
            if pid == server:
                found = status
    except ChildProcessError:
        return found


def kill_children() -> None:
    """Kills and reaps all children; their own children become this process's in turn."""
    deadline_s = time.monotonic() + KILL_S_MAX
    while time.monotonic() < deadline_s:
        for pid in _children():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:  # it has just ended, or has become another user's
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            return
        signal.sigtimedwait([signal.SIGCHLD], KILL_ROUND_S)


def _children() -> list[int]:
    """From /proc: the kernel may lack the file that lists a task's children."""
    me = str(os.getpid())
    children = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/stat", "rb") as file:  # noqa: PTH123 - pathlib is not imported
                # After the command's name, which may contain anything: the state, then the parent.
                parent = file.read().rpartition(b")")[2].split()[1].decode()
        except OSError:
            continue
        if parent == me:
            children.append(int(entry.name))
    return children


def _end_like(status: int) -> int:
    """The exit code of the server; if a signal ended it, the same one ends this process."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [-code])
    os.kill(os.getpid(), -code)
    return 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
