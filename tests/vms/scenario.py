"""The machines with IDunno on them, the jobs that they run, and what must hold while they are broken.

Each trial (breaks.py, tasks.py) but the last two runs under load: one job after another, over the same photos, for as
long as the machines are being broken. Each job must end by itself, with exactly one row for each query, equal to that
of the first, quiet job, and its answers must keep coming.
Machines are spoken to by systemctl, journalctl and dpkg, the cluster by `idunno` from the bridge.
"""

import json
import threading
import time

from machines import Failed, say, wait_for

MEMBER, INTRODUCER = "idunno-member.service", "idunno-introducer.service"
# What explains that no answer comes, on two busy cores: a failover, or a batch that is given to another worker. Between
# two jobs rows are fetched, too.
STANDSTILL_S = 15


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

    def run(self, under_load, alone):
        """Everything, with these trials: functions by their names."""
        self.boot()
        self.install()
        self.first_job()
        for name, trial in under_load.items():
            self.under_load(name, lambda trial=trial: trial(self))
        for name, trial in alone.items():
            say(f"--- {name}")
            trial(self)
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
        verified = self.members[0].command("systemd-analyze", "verify", *units, check=False)
        if verified.returncode or "idunno" in verified.stderr:
            raise Failed(f"systemd-analyze verify: {verified.stderr.strip()}")
        for line in self.members[0].command("systemd-analyze", "security", "--no-pager").splitlines():
            if line.startswith("idunno-"):
                unit, exposure = line.split()[:2]
                self.figures[f"exposure_{unit.removesuffix('.service')}"] = float(exposure)
                if float(exposure) > 2.0:
                    raise Failed(f"the exposure of {unit} is {exposure}")

    def install_on(self, machine, server_unit=False):
        """The package, the settings and the daemon; with `server_unit` the model server is a unit of its own."""
        machine.command("dpkg", "--install", f"/packages/{self.package}")
        self.must_want_secret(machine)
        self.set_up(machine, "introducer" if machine is self.introducer else "member", server_unit)

    def must_want_secret(self, machine):
        """Fails unless the daemon does not start without the secret, and systemd tells what is missing."""
        unit = self.unit_of(machine)
        started = machine.command("systemctl", "enable", "--now", unit, check=False)
        said = machine.command("systemctl", "status", unit, check=False).stdout
        if started.returncode == 0 or "/etc/idunno/secret.pem was not met" not in said:
            raise Failed(f"{unit} on {machine.name} without a secret: {said}")

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
        self.hand_secret(machine)
        machine.command("systemctl", "enable", "--quiet", "--now", f"idunno-{role}.service")

    def hand_secret(self, machine):
        """Puts the cluster's secret in its place, whole: nobody ever reads half of it."""
        secret = self.cluster.secret.read_text()
        place = "/etc/idunno/secret.pem"
        machine.shell(f"umask 077; printf '%s' '{secret}' > {place}.new; mv {place}.new {place}")

    def new_machine(self):
        """One more machine, up and empty."""
        number = len(self.lab.machines)
        machine = self.lab.machine(f"vm{number}", 10 + number)
        machine.power_on()
        machine.wait_up()
        return machine

    def first_job(self):
        since = time.monotonic()
        stored = self.cluster.idunno("populate-test-data", self.photos)
        say(f"stored {stored['files']} files")
        self.cluster.idunno("train-start", self.model, "--wait", timeout_s=600)
        job = self.begin_job()
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

    def begin_job(self):
        """Starts a job, and waits for its first answer."""
        job = self.start_job()
        wait_for(f"the first answer of {job}", lambda: self.cluster.job(job)["done"] > 0, 120)
        return job

    def finish_job(self, job, pace=None):
        """Waits for its end, and holds its rows against those of the quiet job."""
        self.cluster.wait_done(job, pace)
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

        job = self.begin_job()
        pace = Pace()
        breaking = threading.Thread(target=tried, daemon=True)
        breaking.start()
        while True:
            self.finish_job(job, pace)
            if not breaking.is_alive():
                break
            job = self.start_job()
        if wrong:
            raise Failed(f"{name}: {wrong[0]}")
        self.figures[f"{name}_jobs"] = self.jobs - before
        self.figures[f"{name}_longest_standstill_s"] = round(pace.longest_s, 1)
        if pace.longest_s > STANDSTILL_S:
            raise Failed(f"{name}: for {pace.longest_s:.0f} s no answer came")
        say(f"{name}: {self.jobs - before} jobs meanwhile, {self.queries} rows each, none lost, repeated or different; "
            f"no standstill above {pace.longest_s:.1f} s")

    def unit_of(self, machine):
        """The unit that its machine is there for."""
        return INTRODUCER if machine is self.introducer else MEMBER

    def wait_working(self, machine):
        """Waits until a member works again; an introducer does as soon as systemd says that it runs."""
        if machine is not self.introducer:
            self.cluster.wait_state(machine, ["up"])

    def other(self):
        """A machine that does not coordinate."""
        coordinator = self.cluster.coordinator()
        return next(machine for machine in self.members if machine is not coordinator)

    def new_coordinator(self, old):
        """Waits for a coordinator that is not the old one; the seconds it took."""
        since = time.monotonic()
        wait_for("another coordinator", lambda: self.cluster.coordinator() is not old, 60, 0.1)
        return round(time.monotonic() - since, 2)


class Pace:
    """For how long at most no new answer was seen, from one look to the next, whichever job it was of."""

    def __init__(self):
        self.longest_s, self.since, self.last = 0.0, time.monotonic(), None

    def saw(self, job, done):
        """A look at a job."""
        now = time.monotonic()
        self.longest_s = max(self.longest_s, now - self.since)
        if done and self.last != (job, done):
            self.last, self.since = (job, done), now
