"""Trials: machines that fail."""

import re
import time

from machines import Failed, say, wait_for
from scenario import INTRODUCER, MEMBER

FROZEN_S = 20
OFF_S = 10
# The unit's WatchdogSec, and the time that systemd takes to end the process.
WATCHDOG_S = 150


def power_off(scene):
    """An orderly shutdown: the member drains and leaves before its machine is off."""
    machine = scene.other()
    say(f"{machine.name}: systemctl poweroff")
    since = time.monotonic()
    machine.command("systemctl", "poweroff", check=False)
    machine.wait_off()
    scene.note("poweroff_s", since)
    scene.cluster.wait_state(machine, ["left"], 15)
    time.sleep(OFF_S)
    machine.power_on()
    scene.cluster.wait_state(machine, ["up"])
    said = machine.command("journalctl", "--no-pager", "-b", "-1", "-u", MEMBER, "-o", "cat")
    if "Stopped idunno-member" not in said or "timed out" in said:
        raise Failed(f"{machine.name} did not shut down in order: {said[-600:]}")


def cut_power(scene):
    """A power failure of the coordinator's machine."""
    machine = scene.cluster.coordinator()
    say(f"{machine.name}, the coordinator, loses its power")
    machine.cut_power()
    scene.figures["cut_new_coordinator_s"] = scene.new_coordinator(machine)
    time.sleep(OFF_S)
    machine.power_on()
    scene.cluster.wait_state(machine, ["up"])


def reboot(scene):
    machine = scene.other()
    say(f"{machine.name}: systemctl reboot")
    since, boot = time.monotonic(), machine.boot_id()
    machine.command("systemctl", "reboot", check=False)
    wait_for(f"{machine.name} boots again", lambda: machine.boot_id() != boot, 120)
    scene.cluster.wait_state(machine, ["up"])
    scene.note("reboot_to_working_s", since)


def freeze(scene):
    """A paused VM: it is declared dead, another member coordinates, and when it resumes it must not decide anything."""
    machine = scene.cluster.coordinator()
    say(f"{machine.name}, the coordinator, is frozen for {FROZEN_S} s")
    machine.freeze(True)
    scene.figures["freeze_new_coordinator_s"] = scene.new_coordinator(machine)
    time.sleep(FROZEN_S)
    machine.freeze(False)
    scene.cluster.wait_state(machine, ["up"])
    if machine.unit(MEMBER, "NRestarts") != "0":
        raise Failed(f"the daemon on {machine.name} was restarted")


def kill_daemon(scene):
    """systemd starts a daemon that died."""
    machine = scene.other()
    before = int(machine.unit(MEMBER, "NRestarts"))
    machine.command("systemctl", "kill", "--kill-whom=main", "--signal=KILL", MEMBER)
    since = time.monotonic()
    wait_for("systemd starts it again", lambda: int(machine.unit(MEMBER, "NRestarts")) > before, 30)
    wait_for("it runs", lambda: machine.unit(MEMBER, "ActiveState") == "active", 30)
    scene.note("killed_to_running_s", since)
    scene.cluster.wait_state(machine, ["up"])


def stick(scene):
    """systemd's watchdog kills a daemon that makes no progress, and restarts it."""
    machine = scene.other()
    before = int(machine.unit(MEMBER, "NRestarts"))
    machine.command("systemctl", "kill", "--kill-whom=main", "--signal=STOP", MEMBER)
    since = time.monotonic()
    wait_for("the watchdog restarts it", lambda: int(machine.unit(MEMBER, "NRestarts")) > before, WATCHDOG_S)
    wait_for("it runs", lambda: machine.unit(MEMBER, "ActiveState") == "active", 30)
    scene.note("stuck_to_running_s", since)
    if "watchdog" not in machine.command("journalctl", "--unit", MEMBER, "--output", "cat").lower():
        raise Failed(f"the journal of {machine.name} does not mention the watchdog")
    scene.cluster.wait_state(machine, ["up"])


def lose_majority(scene):
    """More machines than the log tolerates lose their power: changes are refused until they are back."""
    job = scene.begin_job()
    down = scene.members[: len(scene.members) // 2 + 1]
    say(f"{', '.join(machine.name for machine in down)} lose their power at once")
    for machine in down:
        machine.cut_power()
    time.sleep(5)
    code, said = scene.cluster.idunno("--timeout", 5, "delete", "nothing", check=False)
    say(f"a change is answered with {code}: {said.strip()}")
    if code not in (4, 5):
        raise Failed(f"without a majority a change ended with {code}, not 4 or 5")
    for machine in down:
        machine.power_on()
    scene.cluster.wait_all_up()
    scene.finish_job(job)


def recover(scene):
    """A majority is permanently lost: survivors are recovered as docs/operations.md says; then a lost voter returns."""
    # Of five members any two have a copy of every file; of more members not necessarily.
    for machine in scene.members[5:]:
        machine.command("systemctl", "disable", "--quiet", "--now", MEMBER)
        scene.cluster.wait_state(machine, ["left"], 15)
        scene.members.remove(machine)
        time.sleep(3)
        scene.cluster.wait_copies()
    scene.cluster.wait_copies()
    # The introducer may share the first one's machine.
    survivors, lost = scene.members[:2], scene.members[2:]
    say(f"{', '.join(machine.name for machine in lost)} are permanently lost")
    for machine in lost:
        machine.cut_power()
    since = time.monotonic()
    for machine in survivors:
        machine.command("systemctl", "disable", "--quiet", "--now", MEMBER)
    chosen, other = sorted(survivors, key=last_entry, reverse=True)
    run_recovery(chosen, "--yes")
    forgotten = "rm /var/lib/idunno-introducer/introducer.json"
    scene.introducer.shell(f"systemctl stop {INTRODUCER}; {forgotten}; systemctl start {INTRODUCER}")
    chosen.command("systemctl", "enable", "--quiet", "--now", MEMBER)
    scene.members[:] = [chosen]
    scene.cluster.wait_all_up()
    join_without_log(scene, other)
    scene.note("recovered_s", since)

    late, *gone = lost
    late.power_on()
    late.wait_up()
    why = "grep -rhq 'idunnod recover --forget-log' /var/log/idunno"
    wait_for("the log says why it is refused", lambda: late.shell(why, check=False).returncode == 0, 30)
    late.command("systemctl", "disable", "--quiet", "--now", MEMBER)
    join_without_log(scene, late)
    for _ in gone:
        machine = scene.new_machine()
        scene.install_on(machine)
        scene.members.append(machine)
    scene.cluster.wait_all_up()
    scene.cluster.wait_copies()
    scene.note("recovered_and_full_again_s", since)
    scene.finish_job(scene.start_job())


def run_recovery(machine, *options):
    words = ["runuser", "-u", "idunno", "--", "idunnod", "recover", "--data-dir", "/var/lib/idunno", *options]
    return machine.command(*words)


def last_entry(machine):
    """The (term, index) of the last entry of a stopped member's log."""
    said = run_recovery(machine)
    found = re.search(r"last entry \(term, index\) = \((\d+), (\d+)\)", said)
    if not found:
        raise Failed(f"`idunnod recover` on {machine.name} shows no last entry: {said}")
    return tuple(map(int, found.groups()))


def join_without_log(scene, machine):
    """A survivor of the old cluster becomes a member of the new one, with its files."""
    run_recovery(machine, "--forget-log", "--yes")
    machine.command("systemctl", "enable", "--quiet", "--now", MEMBER)
    scene.members.append(machine)
    scene.cluster.wait_state(machine, ["up"])


UNDER_LOAD = {
    "poweroff": power_off,
    "cut": cut_power,
    "reboot": reboot,
    "freeze": freeze,
    "kill": kill_daemon,
    "stick": stick,
}
ALONE = {"majority": lose_majority, "recover": recover}
