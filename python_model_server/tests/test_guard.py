"""The guard: what the server started does not outlive it, and the server's end is the guard's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import is_running, wait_until

# When it is imported by the server: a child, a child in its own session, and an orphan in its own session.
MODEL = """
import os, subprocess, sys
from pathlib import Path

if "--work-dir" in sys.argv:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(["sleep", "600"], **quiet)
    leader = subprocess.Popen(["sleep", "600"], start_new_session=True, **quiet)
    shell = ["sh", "-c", "setsid sleep 600 < /dev/null > /dev/null 2>&1 & echo $!"]
    orphan = subprocess.run(shell, stdout=subprocess.PIPE, text=True, check=True).stdout
    Path(__file__).with_suffix(".pids").write_text(f"{os.getpid()} {child.pid} {leader.pid} {orphan}")
"""


@dataclass(frozen=True)
class Guarded:
    """A guard, the server, and what its model started."""

    guard: subprocess.Popen[bytes]
    server: int
    started: list[int]

    def assert_gone(self) -> None:
        family = (self.server, *self.started)
        wait_until(lambda: not any(map(is_running, family)), f"{family} to end", 10)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    models = tmp_path / "models"
    models.mkdir()
    (models / "forks.py").write_text(MODEL)
    port_file = tmp_path / "port"
    options = ["--port", "0", "--port-file", str(port_file), "--work-dir", str(tmp_path / "work")]
    command = [sys.executable, "-m", "idunno_model_server.guard", str(os.getpid()), *options]
    guard = subprocess.Popen([*command, "--models-dir", str(models)], stdout=subprocess.DEVNULL)
    wait_until(port_file.exists, "the port file")
    server, *started = map(int, (models / "forks.pids").read_text().split())
    assert all(map(is_running, (server, *started)))
    yield Guarded(guard, server, started)
    if guard.poll() is None:
        guard.terminate()
    guard.wait(20)


def test_sigterm_stops_the_server_and_ends_what_it_started(guarded: Guarded) -> None:
    guarded.guard.send_signal(signal.SIGTERM)
    assert guarded.guard.wait(20) == 0
    guarded.assert_gone()


def test_a_killed_server_leaves_nothing_and_its_status_is_passed_on(guarded: Guarded) -> None:
    os.kill(guarded.server, signal.SIGKILL)
    assert guarded.guard.wait(20) == -signal.SIGKILL
    guarded.assert_gone()


def test_a_parent_that_is_not_the_given_one_is_dead(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "idunno_model_server.guard", "999999999", "--work-dir", str(tmp_path)]
    assert subprocess.run(command, timeout=30, check=False).returncode == 3
