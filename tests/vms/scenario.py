"""What is done to the machines, and what must hold meanwhile.

Each trial but the first runs under load: one job after another, over the same photos, for as long as the machines are
being broken. Each job must end by itself, with exactly one row for each query, equal to that of the first, quiet job.
Machines are spoken to by systemctl, journalctl and dpkg, the cluster by `idunno` from the bridge.
"""

import json
import threading
import time

from machines import Failed, clear, say, wait_for

MEMBER, INTRODUCER = "idunno-member.service", "idunno-introducer.service"
FROZEN_S = 20
# The unit's WatchdogSec, and what systemd takes to end it.
WATCHDOG_S = 150
OFF_S = 10


class Scenario:
    """The machines, what runs on them, and what was measured."""

    def __init__(self, lab, introducer, members, cluster, photos, model, packages):
        self.lab, self.introducer, self.members, self.cluster = lab, introducer, members, cluster
        self.photos, self.model, self.packages = photos, model, packages
        self.queries = len(list(photos.glob("*.jpg")))
        self.expected = None
        self.jobs = 0
        self.package = packages[0]
        self.figures = {}

    def trials(self):
        return {
            "poweroff": self.power_off,
            "cut": self.cut_power,
            "reboot": self.reboot,
            "freeze": self.freeze,
            "kill": self.kill_daemon,
            "stick": self.stick,
            "upgrade": self.upgrade,
            "introducer": self.introducer_forgets,
            "replace": self.replace,
            "grow": self.grow,
            "shrink": self.shrink,
            "move": self.move_introducer,
        }

    def run(self, only=None):
        """Everything, or the trials named."""
        self.boot()
        self.install()
        self.first_job()
        for name, trial in self.trials().items():
            if only is None or name in only:
                self.under_load(name, trial)
        for name, trial in {"majority": self.lose_majority, "remove": self.remove}.items():
            if only is None or name in only:
                say(f"--- {name}")
                trial()
        say("every job ended with one row for each query, equal to those of the quiet one")

    def report(self, place):
        """Prints what was measured, and writes it to a file if one is named."""
        print(json.dumps(self.figures, indent=2))
        if place:
            place.write_text(json.dumps(self.figures, indent=2) + "\n")

    def note(self, name, since):
        self.figures[name] = round(time.monotonic() - since, 2)
        say(f"{name.replace('_', ' ')}: {self.figures[name]}")

    # The way from nothing to the first answers.

    def boot(self):
        self.started = time.monotonic()
        for machine in [self.introducer, *self.members]:
            machine.power_on()
        for machine in [self.introducer, *self.members]:
            machine.wait_up()
        self.note("boot_s", self.started)

    def install(self):
        """The package on every machine, its settings, and its daemon enabled."""
        since = time.monotonic()
        for machine in [self.introducer, *self.members]:
            self.install_on(machine)
        self.note("install_s", since)
        self.cluster.wait_all_up()
        self.note("boot_to_cluster_ready_s", self.started)
        units = [MEMBER, INTRODUCER, "idunno-model-server.service"]
        self.members[0].command("systemd-analyze", "verify", *units)
        for line in self.members[0].command("systemd-analyze", "security", "--no-pager").splitlines():
            if line.startswith("idunno-"):
                unit, exposure = line.split()[:2]
                self.figures[f"exposure_{unit.removesuffix('.service')}"] = float(exposure)
                if float(exposure) > 2.0:
                    raise Failed(f"the exposure of {unit} is {exposure}")

    def install_on(self, machine, server_unit=False):
        """The package, the settings and the daemon; with `server_unit` the model server is a unit of its own."""
        machine.command("dpkg", "--install", f"/packages/{self.package}")
        self.set_up(machine, "introducer" if machine is self.introducer else "member", server_unit)

    def set_up(self, machine, role, server_unit=False):
        """Writes what a machine's settings must say, and enables the daemon."""
        settings = {"advertise": machine.address}
        if role == "member":
            settings["introducer"] = f"{self.introducer.address}:7400"
        lines = [f's|^# {key} = .*|{key} = "{value}"|' for key, value in settings.items()]
        if server_unit:
            lines.append('s|^model_server_python = .*|model_server_url = "http://127.0.0.1:8080"|')
            machine.command("systemctl", "enable", "--quiet", "--now", "idunno-model-server.service")
        machine.command("sed", "-i", ";".join(lines), f"/etc/idunno/{role}.toml")
        secret = self.cluster.secret.read_text()
        machine.shell(f"umask 077; printf '%s' '{secret}' > /etc/idunno/secret.pem")
        machine.command("systemctl", "enable", "--quiet", "--now", f"idunno-{role}.service")

    def first_job(self):
        since = time.monotonic()
        stored = self.cluster.idunno("populate-test-data", self.photos)
        say(f"stored {stored['files']} files")
        self.cluster.idunno("train-start", self.model, "--wait", timeout_s=600)
        job = self.start_job()
        wait_for("the first answer", lambda: self.cluster.job(job)["done"] > 0, 120)
        self.note("boot_to_first_answers_s", self.started)
        total_s = self.figures["prepared_s"] + self.figures["boot_to_first_answers_s"]
        self.figures["nothing_to_first_answers_min"] = round(total_s / 60, 2)
        self.cluster.wait_done(job)
        self.expected = self.cluster.answers(job, self.queries)
        self.note("first_job_with_files_and_training_s", since)

    # Load.

    def start_job(self):
        job = self.cluster.idunno("add-job", self.model, "--batch-size", 8)["job"]
        self.cluster.idunno("start-job", job)
        self.jobs += 1
        return job

    def finish_job(self, job):
        """Waits for its end, and holds its rows against those of the quiet job."""
        self.cluster.wait_done(job)
        answers = self.cluster.answers(job, self.queries)
        differing = [query for query in answers if answers[query] != self.expected[query]]
        if differing:
            query = differing[0]
            raise Failed(f"{job}: {len(differing)} rows differ: {answers[query]} for {self.expected[query]}")

    def under_load(self, name, trial):
        """Runs a trial while jobs run, from the middle of the first to the end of the last."""
        say(f"--- {name}")
        before, wrong = self.jobs, []

        def tried():
            try:
                trial()
            except (Failed, OSError, LookupError, ValueError) as reason:
                wrong.append(reason)

        job = self.start_job()
        wait_for("the job's first answer", lambda: self.cluster.job(job)["done"] > 0, 120)
        breaking = threading.Thread(target=tried, daemon=True)
        breaking.start()
        while True:
            self.finish_job(job)
            if not breaking.is_alive():
                break
            job = self.start_job()
        if wrong:
            raise Failed(f"{name}: {wrong[0]}")
        self.figures[f"{name}_jobs"] = self.jobs - before
        say(f"{name}: {self.jobs - before} jobs meanwhile, {self.queries} rows each, none lost, repeated or different")

    def other(self):
        """A machine that does not coordinate."""
        coordinator = self.cluster.coordinator()
        return next(machine for machine in self.members if machine is not coordinator)

    def new_coordinator(self, old):
        """Waits for a coordinator that is not the old one; the seconds it took."""
        since = time.monotonic()
        wait_for("another coordinator", lambda: self.cluster.coordinator() is not old, 60, 0.1)
        return round(time.monotonic() - since, 2)

    # Trials.

    def power_off(self):
        """In good order: the member drains and leaves before its machine is off."""
        machine = self.other()
        say(f"{machine.name}: systemctl poweroff")
        since = time.monotonic()
        machine.command("systemctl", "poweroff", check=False)
        machine.wait_off()
        self.note("poweroff_s", since)
        self.cluster.wait_state(machine, ["left"], 15)
        time.sleep(OFF_S)
        machine.power_on()
        self.cluster.wait_state(machine, ["up"])
        said = machine.command("journalctl", "--no-pager", "-b", "-1", "-u", MEMBER, "-o", "cat")
        if "Stopped idunno-member" not in said or "timed out" in said:
            raise Failed(f"{machine.name} did not stop in good order: {said[-600:]}")

    def cut_power(self):
        """Without any order, and it coordinates."""
        machine = self.cluster.coordinator()
        say(f"{machine.name}, the coordinator, loses its power")
        machine.cut_power()
        self.figures["cut_new_coordinator_s"] = self.new_coordinator(machine)
        time.sleep(OFF_S)
        machine.power_on()
        self.cluster.wait_state(machine, ["up"])

    def reboot(self):
        machine = self.other()
        say(f"{machine.name}: systemctl reboot")
        since, boot = time.monotonic(), machine.boot_id()
        machine.command("systemctl", "reboot", check=False)
        wait_for(f"{machine.name} boots anew", lambda: machine.boot_id() != boot, 120)
        self.cluster.wait_state(machine, ["up"])
        self.note("reboot_to_working_s", since)

    def freeze(self):
        """A paused VM: it is declared dead, another one coordinates, and when it goes on it must not decide."""
        machine = self.cluster.coordinator()
        say(f"{machine.name}, the coordinator, is frozen for {FROZEN_S} s")
        machine.freeze(True)
        self.figures["freeze_new_coordinator_s"] = self.new_coordinator(machine)
        time.sleep(FROZEN_S)
        machine.freeze(False)
        self.cluster.wait_state(machine, ["up"])
        if machine.unit(MEMBER, "NRestarts") != "0":
            raise Failed(f"the daemon on {machine.name} was restarted")

    def kill_daemon(self):
        """systemd starts a daemon that died."""
        machine = self.other()
        before = int(machine.unit(MEMBER, "NRestarts"))
        machine.command("systemctl", "kill", "--kill-whom=main", "--signal=KILL", MEMBER)
        since = time.monotonic()
        wait_for("systemd starts it again", lambda: int(machine.unit(MEMBER, "NRestarts")) > before, 30)
        wait_for("it runs", lambda: machine.unit(MEMBER, "ActiveState") == "active", 30)
        self.note("killed_to_running_s", since)
        self.cluster.wait_state(machine, ["up"])

    def stick(self):
        """systemd's watchdog ends a daemon that stands still, and starts it anew."""
        machine = self.other()
        before = int(machine.unit(MEMBER, "NRestarts"))
        machine.command("systemctl", "kill", "--kill-whom=main", "--signal=STOP", MEMBER)
        since = time.monotonic()
        wait_for("the watchdog restarts it", lambda: int(machine.unit(MEMBER, "NRestarts")) > before, WATCHDOG_S)
        wait_for("it runs", lambda: machine.unit(MEMBER, "ActiveState") == "active", 30)
        self.note("stuck_to_running_s", since)
        if "watchdog" not in machine.command("journalctl", "--unit", MEMBER, "--output", "cat").lower():
            raise Failed(f"the journal of {machine.name} says nothing of the watchdog")
        self.cluster.wait_state(machine, ["up"])

    def upgrade(self):
        """A rolling upgrade: one machine at a time, the next when the last works again."""
        since = time.monotonic()
        for machine in [self.introducer, *self.members]:
            main = machine.unit(INTRODUCER if machine is self.introducer else MEMBER, "MainPID")
            machine.command("dpkg", "--install", f"/packages/{self.packages[1]}", timeout_s=180)
            unit = INTRODUCER if machine is self.introducer else MEMBER
            version = machine.command("dpkg-query", "--show", "--showformat=${Version}", "idunno")
            if "+next" not in version or machine.unit(unit, "MainPID") == main:
                raise Failed(f"{machine.name} was not upgraded: {version}")
            if machine.unit(unit, "ActiveState") != "active":
                raise Failed(f"{unit} on {machine.name} is {machine.unit(unit, 'ActiveState')}")
            if machine is not self.introducer:
                self.cluster.wait_state(machine, ["up"])
            say(f"{machine.name} has {version}")
        self.package = self.packages[1]
        self.note("upgrade_s", since)

    def introducer_forgets(self):
        """The introducer loses its file: members ask it again now and then, and so tell it of their cluster."""
        place = "/var/lib/idunno-introducer/introducer.json"
        founder = json.loads(self.introducer.command("cat", place))["founder"]
        self.introducer.shell(f"systemctl stop {INTRODUCER}; rm {place}; systemctl start {INTRODUCER}")
        since = time.monotonic()
        known = wait_for("it learns", lambda: json.loads(self.introducer.command("cat", place)), 60)
        self.note("introducer_learns_s", since)
        if known["founder"] != founder:
            raise Failed(f"the introducer took {known['founder']} for the founder, which is {founder}")

    def move_introducer(self):
        """To the first member's machine, without its file; then the members are told, one at a time."""
        machine = self.members[0]
        self.introducer.command("systemctl", "disable", "--quiet", "--now", INTRODUCER)
        old, self.introducer = self.introducer, machine
        self.set_up(machine, "introducer")
        line = f's|^introducer = .*|introducer = "{machine.address}:7400"|'
        for member in self.members:
            member.command("sed", "-i", line, "/etc/idunno/member.toml")
            member.command("systemctl", "restart", MEMBER)
            self.cluster.wait_state(member, ["up"])
        old.command("systemctl", "poweroff", check=False)
        old.wait_off()
        place = "/var/lib/idunno-introducer/introducer.json"
        known = wait_for("it knows all", lambda: json.loads(machine.command("cat", place)), 60)
        ours = json.loads(machine.command("cat", "/var/lib/idunno/cluster.json"))
        if known["founder"] != ours:
            raise Failed(f"the introducer took {known['founder']} for the founder, which is {ours}")

    def replace(self):
        """A machine is lost for ever, with its disk; an empty one takes its name and address."""
        machine = self.other()
        say(f"{machine.name} is lost with its disk")
        machine.cut_power()
        self.cluster.wait_state(machine, ["dead"], 30)
        since = time.monotonic()
        machine.empty_disk()
        machine.power_on()
        machine.wait_up()
        self.install_on(machine)
        self.cluster.wait_state(machine, ["up"])
        self.note("replaced_and_working_s", since)
        time.sleep(3)
        self.cluster.wait_copies()
        self.note("replaced_and_all_copies_s", since)

    def shrink(self):
        """A machine goes for good, in good order; what it held is copied."""
        machine = self.other()
        machine.command("systemctl", "disable", "--quiet", "--now", MEMBER)
        self.cluster.wait_state(machine, ["left"], 15)
        since, lacking = time.monotonic(), 0
        # The count follows within a moment: a nought that is seen at once is no proof.
        while time.monotonic() < since + 3:
            lacking = max(lacking, self.cluster.status()["store"]["under_replicated"])
        self.figures["shrunk_lacked_copies"] = lacking
        self.cluster.wait_copies()
        self.note("shrunk_and_all_copies_s", since)
        machine.command("systemctl", "poweroff", check=False)
        machine.wait_off()
        self.members.remove(machine)

    def grow(self):
        """One more machine, while a job runs; its model server is a unit of its own."""
        since = time.monotonic()
        number = len(self.lab.machines)
        machine = self.lab.machine(f"vm{number}", 10 + number)
        machine.power_on()
        machine.wait_up()
        self.install_on(machine, server_unit=True)
        self.members.append(machine)
        self.cluster.wait_state(machine, ["up"])
        self.note("power_on_to_new_member_working_s", since)

    def lose_majority(self):
        """More machines lose their power than the log can lose: changes are refused, and then it goes on."""
        job = self.start_job()
        wait_for("the job's first answer", lambda: self.cluster.job(job)["done"] > 0, 120)
        down = self.members[: len(self.members) // 2 + 1]
        say(f"{', '.join(machine.name for machine in down)} lose their power at once")
        for machine in down:
            machine.cut_power()
        time.sleep(5)
        code, said = self.cluster.idunno("--timeout", 5, "delete", "nothing", check=False)
        say(f"a change is answered with {code}: {said.strip()}")
        if code not in (4, 5):
            raise Failed(f"without a majority a change ended with {code}, not 4 or 5")
        for machine in down:
            machine.power_on()
        self.cluster.wait_all_up()
        self.finish_job(job)

    def remove(self):
        """Removing the package keeps data and settings, purging takes them, and the cluster goes on without."""
        coordinator = self.cluster.coordinator()
        machine = next(machine for machine in self.members if machine not in (coordinator, self.introducer))
        identity = machine.command("cat", "/var/lib/idunno/identity.json")
        settings = machine.command("cat", "/etc/idunno/member.toml")
        machine.command("dpkg", "--remove", "idunno")
        self.cluster.wait_state(machine, ["left"], 15)
        for place in ("/usr/bin/idunnod", "/opt/idunno"):
            if machine.command("test", "-e", place, check=False).returncode == 0:
                raise Failed(f"{place} is there after the package was removed")
        if machine.command("cat", "/etc/idunno/member.toml") != settings:
            raise Failed("removing the package changed the settings")
        # It comes back as who it was, without a model server: its environment went with the package.
        machine.command("dpkg", "--install", f"/packages/{self.package}")
        machine.command("idunno-setup-python", "--wheels", "/wheels", timeout_s=600)
        machine.command("systemctl", "start", MEMBER)
        self.cluster.wait_state(machine, ["up"])
        if json.loads(identity)["id"] != json.loads(machine.command("cat", "/var/lib/idunno/identity.json"))["id"]:
            raise Failed("the member came back as somebody else")
        machine.command("dpkg", "--purge", "idunno")
        for word in ("test -e /var/lib/idunno", "test -e /etc/idunno", "id idunno", f"systemctl cat {MEMBER}"):
            if machine.command(*word.split(), check=False).returncode == 0:
                raise Failed(f"after the purge `{word}` still succeeds")
        self.members.remove(machine)
        time.sleep(3)
        self.cluster.wait_copies()
        self.finish_job(self.start_job())
