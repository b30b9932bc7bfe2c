"""Control groups of runners: in a folder that stands for the kernel's tree, and where this machine allows, in that."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import is_running, wait_until
from test_packages import write_package

from idunno_model_server.runners import cgroups as cgroups_module
from idunno_model_server.runners.cgroups import MAIN, MOUNTS, Cgroups, RunnerGroup, delegated
from idunno_model_server.runners.host import RunnerHost
from idunno_model_server.runners.process_family import Families
from idunno_model_server.runners.runner_process import RunnerLimits
from idunno_model_server.sandbox import Needs

FILES = ("cgroup.procs", "cgroup.controllers", "cgroup.subtree_control")
OF_A_RUNNER = ("cgroup.procs", "cgroup.kill", "memory.max", "memory.oom.group", "memory.events")


def write_group(folder: Path, files: tuple[str, ...], **content: str) -> Path:
    """A folder with the files of a group; in place of `.` in their names, `_`."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file).write_text(content.get(file.replace(".", "_"), ""))
    return folder


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """A delegated group, as systemd leaves it: with the processes of the unit in it."""
    unit = tmp_path / "fs" / "system.slice" / "idunno-member.service"
    write_group(tmp_path / "fs", ("cgroup.controllers",))
    write_group(unit, FILES, cgroup_controllers="cpu memory pids")
    write_group(unit / MAIN, ("cgroup.procs",))
    try:
        os.setxattr(unit, "user.delegate", b"1")
    except OSError as error:
        pytest.skip(f"{unit} takes no attributes: {error}")
    return unit


def groups(unit: Path) -> list[Path]:
    return list(unit.glob("runner-*"))


def found(unit: Path, name: str) -> Path | None:
    own = unit.parents[2] / "own"
    own.write_text(f"1:name=systemd:/x\n0::/{name}\n")
    return delegated((unit.parents[2] / "missing", unit.parents[1]), own)


def test_a_group_is_used_only_if_it_was_delegated(unit: Path) -> None:
    name = "system.slice/idunno-member.service"
    assert found(unit, name) == unit
    assert found(unit, f"{name}/{MAIN}") == unit, "an earlier server has moved the processes"
    assert found(unit, "system.slice") is None
    assert found(unit, "") is None, "the root of the machine"
    os.removexattr(unit, "user.delegate")
    assert found(unit, name) is None, "what can be written may hold processes of others"


def test_the_units_processes_make_room_for_groups(unit: Path) -> None:
    (unit / "cgroup.procs").write_text("17")
    (unit / "runner-left").mkdir()
    write_group(unit / "runner-other", OF_A_RUNNER)
    cgroups = Cgroups(unit)
    assert not (unit / "runner-left").exists()
    assert not (unit / "runner-other" / "cgroup.kill").read_text(), "another server may run there"
    assert (cgroups.are_there, cgroups.bounds_memory) == (True, True)
    assert (unit / MAIN / "cgroup.procs").read_text() == "17"
    assert (unit / "cgroup.subtree_control").read_text() == "+memory"
    write_group(unit, FILES, cgroup_controllers="cpu pids")
    assert not Cgroups(unit).bounds_memory
    assert Cgroups(None).new("a") is None


def test_a_group_that_cannot_be_used_is_reported_and_left(unit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (unit / "cgroup.procs").unlink()
    assert not Cgroups(unit).are_there
    assert f"{unit} was delegated, but cannot be used" in capsys.readouterr().err


def test_a_runners_group_has_its_limit_and_tells_of_its_end(unit: Path) -> None:
    group = Cgroups(unit).new("abc")
    assert group is not None
    folder = write_group(unit / "runner-abc", OF_A_RUNNER, memory_events="oom 0\noom_kill 0\n")
    group.add(42)
    group.limit_memory(1000)
    assert [(folder / file).read_text() for file in OF_A_RUNNER[:4]] == ["42", "", "1000", "1"]
    assert not group.was_out_of_memory()
    (folder / "memory.events").write_text("oom 1\noom_kill 3\noom_group_kill 1\n")
    assert group.was_out_of_memory()
    group.kill()
    assert (folder / "cgroup.kill").read_text() == "1"


def test_the_end_of_a_runner_names_its_memory(unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel ends a group at once. Here a kill stands for that, and a file for what the kernel says of it."""
    monkeypatch.setattr(cgroups_module, "GONE_S_MAX", 0.0)  # the folder is no group, and cannot be removed as one
    code = """
from idunno_model_server.api import BatchModel
class Large(BatchModel):
    memory_mib = 3000
    def predict(self, inputs):
        return [1 for _ in inputs]
    def canary(self):
        return None
"""

    async def test() -> str:
        host = RunnerHost(RunnerLimits(1), Families(), unit.parents[2] / "scratch", (), Cgroups(unit))
        package = unit.parents[2] / write_package(unit.parents[2], {"model.py": code})
        process = await host.start("model large", Path(sys.executable), Needs((package,)))
        (folder,) = groups(unit)
        write_group(folder, OF_A_RUNNER)
        await process.open({"name": "large", "package": str(package), "load": True})
        size = sum(file.stat().st_size for file in package.rglob("*"))
        assert (folder / "memory.max").read_text() == str((3000 << 20) + size)
        (folder / "memory.events").write_text("oom_kill 1\n")
        os.kill(process.family.leader, 9)
        reason = await process.ended
        assert (folder / "cgroup.kill").read_text() == "1"
        await host.close()
        return reason

    assert asyncio.run(test()) == "the kernel ended it for lack of memory: it declares memory_mib = 3000"


# --- the kernel's own tree ---


@pytest.fixture
def real() -> Iterator[Path]:
    """A group of this test's own."""
    mount = next((mount for mount in MOUNTS if (mount / "cgroup.controllers").exists()), None)
    if mount is None:
        pytest.skip("no control groups of version 2 are mounted")
    folder = mount / f"idunno-test-{secrets.token_hex(4)}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"this user may not make a control group: {error}")
    yield folder
    for group in (*folder.glob("*/"), folder):
        RunnerGroup(group).remove()


def test_nothing_leaves_a_group_of_the_kernels(real: Path) -> None:
    cgroups = Cgroups(real)
    group = cgroups.new("abc")
    assert group is not None
    shell = "read line; env -i setsid sleep 600 > /dev/null 2>&1 & echo $!; exec sleep 600"
    words = ["/bin/sh", "-c", f"read go; {shell}"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    hidden = 0
    try:
        group.add(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"go\n\n")
        process.stdin.flush()
        hidden = int(process.stdout.readline())
        assert is_running(hidden)
        group.remove()
        assert process.wait(10) == -9
        wait_until(lambda: not is_running(hidden), "the one in another session, without variables", 10)
    finally:
        process.kill()
        process.communicate()
        if hidden and is_running(hidden):
            os.kill(hidden, signal.SIGKILL)
    assert not (real / "runner-abc").exists()
