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
    """The machines, what runs on them, and the measurements."""

    def __init__(self, lab, introducer, members, cluster, photos, model, packages):
        self.lab, self.introducer, self.members, self.cluster = lab, introducer, members, cluster
        self.photos, self.model, self.packages = photos, model, packages
        self.queries = len(list(photos.glob("*.jpg")))
        self.expected = None
        self.jobs = 0
        self.package = packages[0]
        self.figures = {}

    def run(self, under_load, alone):
        """Runs everything, with these trials: functions by name."""
        self.boot()
        self.install()
        self.first_job()
        for name, trial in under_load.items():
            self.under_load(name, lambda trial=trial: trial(self))
        for name, trial in alone.items():
            say(f"--- {name}")
            trial(self)
        say("every job ended with one row for each query, equal to those of the undisturbed job")

    def report(self, place):
        """Prints the figures, and writes them to a file if one is named."""
        print(json.dumps(self.figures, indent=2))
        if place:
            place.write_text(json.dumps(self.figures, indent=2) + "\n")

    def note(self, name, since):
        self.figures[name] = round(time.monotonic() - since, 2)
        say(f"{name.replace('_', ' ')}: {self.figures[name]}")

    # From nothing to the first answers.

    def boot(self):
        self.started = time.monotonic()
        for machine in [self.introducer, *self.members]:
            machine.power_on()
        for machine in [self.introducer, *self.members]:
            machine.wait_up()
        self.note("boot_s", self.started)

    def install(self):
        """Installs the package and the settings on every machine, and enables its daemon."""
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

    def install_on(self, machine, starts_server=False):
        """Installs package, settings and daemon; with `starts_server` the member starts its model server itself."""
        machine.command("dpkg", "--install", f"/packages/{self.package}")
        self.must_want_secret(machine)
        self.set_up(machine, "introducer" if machine is self.introducer else "member", starts_server)

    def must_want_secret(self, machine):
        """Fails unless the daemon refuses to start without the secret, and systemd says what is missing."""
        unit = self.unit_of(machine)
        started = machine.command("systemctl", "enable", "--now", unit, check=False)
        said = machine.command("systemctl", "status", unit, check=False).stdout
        if started.returncode == 0 or "/etc/idunno/secret.pem was not met" not in said:
            raise Failed(f"{unit} on {machine.name} without a secret: {said}")

    def set_up(self, machine, role, starts_server=False):
        """Writes a machine's settings, and enables the daemon."""
        settings = {"advertise": machine.address}
        if role == "member":
            settings["introducer"] = f"{self.introducer.address}:7400"
        lines = [f's|^# {key} = .*|{key} = "{value}"|' for key, value in settings.items()]
        if starts_server:
            lines.append('s|^model_server_url = .*|model_server_python = "/opt/idunno/venv/bin/python"|')
            lines.append("/^model_files_dir/d")
            machine.command("systemctl", "mask", "--quiet", "--now", "idunno-model-server.service")
        machine.command("sed", "-i", ";".join(lines), f"/etc/idunno/{role}.toml")
        self.hand_secret(machine)
        machine.command("systemctl", "enable", "--quiet", "--now", f"idunno-{role}.service")

    def hand_secret(self, machine):
        """Puts the cluster's secret in its place atomically, so that nothing reads half of it."""
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
        """Waits for its end, and compares its rows with those of the undisturbed job."""
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
            raise Failed(f"{name}: no answer for {pace.longest_s:.0f} s")
        say(
            f"{name}: {self.jobs - before} jobs meanwhile, {self.queries} rows each, none lost, repeated or different; "
            f"no standstill above {pace.longest_s:.1f} s"
        )

    def unit_of(self, machine):
        """The main unit of a machine."""
        return INTRODUCER if machine is self.introducer else MEMBER

    def wait_working(self, machine):
        """Waits until a member works again; an introducer works as soon as systemd reports it active."""
        if machine is not self.introducer:
            self.cluster.wait_state(machine, ["up"])

    def other(self):
        """A machine whose member does not coordinate."""
        coordinator = self.cluster.coordinator()
        return next(machine for machine in self.members if machine is not coordinator)

    def new_coordinator(self, old):
        """Waits for another coordinator; returns the seconds that it took."""
        since = time.monotonic()
        wait_for("another coordinator", lambda: self.cluster.coordinator() is not old, 60, 0.1)
        return round(time.monotonic() - since, 2)


class Pace:
    """The longest time without a new answer of any job, from poll to poll."""

    def __init__(self):
        self.longest_s, self.since, self.last = 0.0, time.monotonic(), None

    def saw(self, job, done):
        """Records a poll of a job."""
        now = time.monotonic()
        self.longest_s = max(self.longest_s, now - self.since)
        if done and self.last != (job, done):
            self.last, self.since = (job, done), now
