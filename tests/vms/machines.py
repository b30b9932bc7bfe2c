"""Machines booted by systemd-nspawn: each with its own systemd, disk, address and process ids.

The lab is a mount, network and process namespace of its own (`enter_lab`): its bridge, its addresses and its mounts are
nobody else's, and with its first process all machines end. Machines live in cgroups, by which they lose their power
and freeze. Only the unified hierarchy is used; where the system has the old one too, it is out of sight in the lab.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

BRIDGE = "br0"
NETWORK = "10.77.0"
CGROUPS = Path("/sys/fs/cgroup")
IN_LAB = "IDUNNO_VMS_LAB"
# In the machine's cgroup. systemd-nspawn ends with 133 when the machine wants to reboot.
SUPERVISE = 'echo 0 >"$0"; while "$@"; code=$?; [ "$code" = 133 ]; do :; done; exit "$code"'


class Failed(Exception):
    """Something did not happen; the message says what was seen instead."""


class Hopeless(Failed):
    """Something happened that must never happen, so waiting longer is pointless."""


def say(text):
    """Prints a line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def wait_for(what, condition, deadline_s, pause_s=0.2):
    """Waits until the condition returns something true, and returns it; an exception counts as "not yet"."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            if answer := condition():
                return answer
            last = answer
        except Hopeless:
            raise
        except (Failed, OSError, ValueError, LookupError) as reason:
            last = reason
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {deadline_s} s (last: {last})")
        time.sleep(pause_s)


def run(*words, timeout_s=120, check=True, **options):
    """Runs a program; returns its output."""
    words = list(map(str, words))
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace"} | options
    try:
        done = subprocess.run(words, timeout=timeout_s, check=False, **options)
    except subprocess.TimeoutExpired:
        raise Failed(f"`{' '.join(words)}` had not ended after {timeout_s} s") from None
    if check and done.returncode != 0:
        said = ((done.stderr or "") + (done.stdout or "")).strip()
        raise Failed(f"`{' '.join(words)}` ended with {done.returncode}: {said}")
    return done.stdout if check else done


def overlay(disk, layers, upper, work):
    """Mounts a disk over layers, the uppermost first; what is written goes to `upper`."""
    places = f"lowerdir={':'.join(map(str, layers))},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "overlay", "-o", places, disk)


def enter_lab(command):
    """Runs the given command as the first process of a lab, and ends as it does."""
    words = ["unshare", "--mount", "--propagation=private", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    lab = subprocess.Popen(words + command, env=os.environ | {IN_LAB: str(os.getpid())})

    def hand_on(number, _):
        # unshare itself ignores it.
        for process in Path(f"/proc/{lab.pid}/task/{lab.pid}/children").read_text().split():
            os.kill(int(process), number)

    signal.signal(signal.SIGTERM, hand_on)
    # Ctrl-C reaches the lab directly.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(lab.wait())


def furnish_lab():
    """Gives the lab its bridge, its view of the cgroups, and a /run of its own."""
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    run("umount", "--lazy", CGROUPS)
    run("mount", "-t", "cgroup2", "cgroup2", CGROUPS)
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")


class Lab:
    """Machines on one bridge, all from the same disk layers."""

    def __init__(self, folder, layers, shares):
        self.folder, self.layers, self.shares = Path(folder), layers, shares
        self.machines = {}
        # The lab has process ids of its own, so the name must differ from that of another lab on the same host.
        self.cgroup = CGROUPS / f"idunno-vms-{os.getpid()}-{time.time_ns() % 10**9}"
        self.cgroup.mkdir()

    def machine(self, name, host):
        """A new machine, with an empty disk over the layers."""
        self.machines[name] = Machine(self, name, f"{NETWORK}.{host}")
        return self.machines[name]

    def end(self):
        """Cuts the power of all machines. Only their disks remain."""
        (self.cgroup / "cgroup.kill").write_text("1")
        wait_for("the end of all machines", lambda: "populated 0" in (self.cgroup / "cgroup.events").read_text(), 30)
        for folder, _, _ in os.walk(self.cgroup, topdown=False):
            Path(folder).rmdir()


class Machine:
    """A machine of the lab."""

    def __init__(self, lab, name, address):
        self.lab, self.name, self.address = lab, name, address
        self.folder = lab.folder / name
        self.disk = self.folder / "disk"
        self.cgroup = lab.cgroup / name
        self.console = self.folder / "console.log"
        self.supervisor = None
        self.cgroup.mkdir()
        self.empty_disk()

    def empty_disk(self):
        """Gives it a new disk: the layers, its name and its address."""
        if self.disk.exists():
            run("umount", self.disk)
            clear(self.folder)
        for folder in ("upper", "work", "disk"):
            (self.folder / folder).mkdir(parents=True)
        overlay(self.disk, self.lab.layers, self.folder / "upper", self.folder / "work")
        self.write("/etc/hostname", f"{self.name}\n")
        self.write(
            "/etc/systemd/network/10-lab.network",
            (
                f"[Match]\nName=host0\n[Network]\nAddress={self.address}/24\nGateway={NETWORK}.1\n"
                "LinkLocalAddressing=no\n"
            ),
        )

    def write(self, path, text):
        """Writes a file on its disk."""
        place = Path(f"{self.disk}{path}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def identity(self):
        """The id of its member, read from the disk."""
        return f"{json.loads(Path(f'{self.disk}/var/lib/idunno/identity.json').read_text())['id']:016x}"

    def power_on(self):
        """Starts it; returns before it is up."""
        # The kernel needs a while to remove the link of a machine that lost its power.
        link = f"vb-{self.name}"
        run("ip", "link", "delete", link, check=False)
        wait_for(f"{link} is gone", lambda: run("ip", "link", "show", link, check=False).returncode != 0, 30)
        words = ["systemd-nspawn", "--boot", "--quiet", "--register=no", "--keep-unit", "--link-journal=no"]
        words += ["--resolv-conf=off", "--timezone=off", "--console=pipe", f"--network-bridge={BRIDGE}"]
        words += [f"--machine={self.name}", f"--directory={self.disk}"]
        words += [f"--bind-ro={folder}:{place}" for place, folder in self.lab.shares.items()]
        with self.console.open("ab") as console:
            self.supervisor = subprocess.Popen(
                ["sh", "-c", SUPERVISE, str(self.cgroup / "cgroup.procs"), *words],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )

    def leader(self):
        """The process that is the machine's systemd, as the lab counts processes."""
        for processes in self.cgroup.rglob("cgroup.procs"):
            for process in processes.read_text().split():
                status = Path("/proc", process, "status").read_text()
                ids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
                if len(ids) > 1 and ids[-1] == "1" and Path("/proc", process, "comm").read_text().strip() == "systemd":
                    return process
        raise Failed(f"{self.name} is not running: {self.console.read_text()[-300:].strip() or 'no reason given'}")

    def command(self, *words, **options):
        """Runs a program as root on the machine; returns its output."""
        enter = ["nsenter", f"--target={self.leader()}", "--all", "--root", "--wd", "--"]
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        return run(*enter, *words, env=environment | {"DEBIAN_FRONTEND": "noninteractive"}, **options)

    def shell(self, script, **options):
        """Runs a shell script as root on the machine; returns its output."""
        return self.command("sh", "-euc", script, **options)

    def unit(self, unit, state):
        """A unit's property, as systemctl shows it."""
        return self.command("systemctl", "show", "--value", "-p", state, unit).strip()

    def boot_id(self):
        """A value that differs from boot to boot: the start time of the machine's systemd."""
        return self.leader(), Path("/proc", self.leader(), "stat").read_text().rsplit(")", 1)[1].split()[19]

    def wait_up(self, deadline_s=180):
        """Waits until its systemd has started everything."""

        def is_up():
            state = self.command("systemctl", "is-system-running", check=False).stdout.strip()
            if state == "degraded":
                raise Failed(self.command("systemctl", "--failed", "--no-legend", "--plain").strip())
            return state == "running"

        wait_for(f"{self.name} is up", is_up, deadline_s)

    def wait_off(self, deadline_s=120):
        """Waits until it has switched itself off."""
        wait_for(f"{self.name} is off", lambda: self.supervisor.poll() is not None, deadline_s)

    def cut_power(self):
        """Cuts its power: every process on it ends at once."""
        (self.cgroup / "cgroup.kill").write_text("1")
        self.supervisor.wait(30)

    def freeze(self, frozen):
        """Pauses it as a hypervisor does, or resumes it."""
        (self.cgroup / "cgroup.freeze").write_text(str(int(frozen)))
        wanted = f"frozen {int(frozen)}"
        wait_for(f"{self.name}: {wanted}", lambda: wanted in (self.cgroup / "cgroup.events").read_text(), 10)


def clear(folder):
    """Deletes a folder, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def end_with_a_word(*_):
    """Ends the program at SIGTERM, with cleanup. Not an Exception, which a wait would take for "not yet"."""
    raise SystemExit("ended: told to")


signal.signal(signal.SIGTERM, end_with_a_word)
