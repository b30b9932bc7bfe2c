"""The cluster as seen from another machine: through `idunno`, and through the files that it writes."""

import json
import os
from collections import Counter

from machines import Failed, Hopeless, run, wait_for

READY_DEADLINE_S = 240
JOB_DEADLINE_S = 600


class Cluster:
    """A cluster, by the addresses of its members."""

    def __init__(self, program, members, folder):
        self.program, self.members, self.folder = program, members, folder
        self.secret, self.identities = folder / "secret.pem", 0
        run(program, "cluster", "init", "--out", self.secret)
        self.identity = self.issue("operator")

    def issue(self, role, secret=None):
        """Makes an identity from the cluster's secret, unless another one is given; returns its file."""
        self.identities += 1
        place = self.folder / f"{role}-{self.identities}.pem"
        words = ("identity", "create", f"vms-{role}", "--role", role, "--secret", secret or self.secret, "--out", place)
        run(self.program, *words)
        return place

    def in_good_faith(self, identity):
        """The same certificate, in a file that trusts this cluster's members, so that they have to refuse it."""
        place = identity.with_suffix(".trusting.pem")
        place.touch(mode=0o600)
        place.write_text(identity.read_text() + self.identity.read_text().split("-----END PRIVATE KEY-----\n")[1])
        return place

    def addresses(self, members=None):
        return ",".join(f"{member.address}:7401" for member in members or self.members)

    def idunno(self, *words, identity=None, members=None, timeout_s=300, check=True):
        """Runs a command, by default as the operator at any member; returns its answer, or with `check=False` its exit
        code and output."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("IDUNNO_")}
        who = ["--identity", identity or self.identity, "--cluster", self.addresses(members)]
        command = [self.program, *who, "--output", "json", *words]
        done = run(*command, timeout_s=timeout_s, env=environment, check=False)
        if not check:
            return done.returncode, done.stderr
        if done.returncode != 0:
            raise Failed(f"`idunno {' '.join(map(str, words))}` ended with {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def status(self):
        return self.idunno("--timeout", 5, "status")

    def state(self, machine, identity=None):
        """The cluster's view of a machine's member (the one on its disk, or the one named) and of its model server."""
        status = self.status()
        # Not by name or address: another member may have taken those of a lost one.
        identity = identity or machine.identity()
        state = next((member["state"] for member in status["members"] if member["node_id"] == identity), "unknown")
        ready = any(
            server["member"] == machine.name and server["state"] == "ready" for server in status["model_servers"]
        )
        return state, ready

    def coordinator(self):
        """The machine whose member coordinates."""
        name = self.status()["coordinator"]
        return next(machine for machine in self.members if machine.name == name)

    def wait_state(self, machine, wanted, deadline_s=READY_DEADLINE_S, identity=None):
        """Waits until the cluster sees a member in one of these states; one that is up must also be ready to work."""

        def is_so():
            state, ready = self.state(machine, identity)
            if state not in wanted or (state == "up" and not ready):
                raise Failed(f"it is {state}, its model server {'ready' if ready else 'not ready'}")
            return state

        return wait_for(f"{machine.name} is {' or '.join(wanted)}", is_so, deadline_s, 0.3)

    def wait_all_up(self, deadline_s=READY_DEADLINE_S):
        for machine in self.members:
            self.wait_state(machine, ["up"], deadline_s)

    def wait_copies(self, deadline_s=READY_DEADLINE_S):
        """Waits until every blob has all its copies."""

        def are_there():
            store = self.status()["store"]
            if store["under_replicated"] or store["unavailable"]:
                raise Failed(f"{store['under_replicated']} lack copies, {store['unavailable']} are unavailable")
            return True

        wait_for("all copies are there", are_there, deadline_s, 0.5)

    def job(self, job):
        """A job's figures. Fails if the job was paused or stopped, because neither ends by itself."""
        view = next(view for view in self.idunno("--timeout", 60, "get-job-stats")["items"] if view["job"] == job)
        if view["state"] in ("paused", "stopped"):
            raise Hopeless(f"{job} is {view['state']}: {view['reason']}")
        return view

    def wait_done(self, job, pace=None, deadline_s=JOB_DEADLINE_S):
        """Waits until all its queries have an outcome; `pace` records each poll."""

        def is_done():
            view = self.job(job)
            outcomes = view["done"] + view["dead_letters"]
            if pace:
                pace.saw(job, outcomes)
            return outcomes == view["submitted"]

        wait_for(f"{job} is done", is_done, deadline_s)

    def answers(self, job, queries):
        """The answer of each query. Fails unless each query has exactly one row."""
        place = self.folder / f"{job}.jsonl"
        place.unlink(missing_ok=True)
        self.idunno("get-job-results", job, place, "--raw")
        rows = [json.loads(line) for line in place.read_text().splitlines()]
        count = Counter(row["query"] for row in rows)
        lost, repeated = queries - len(count), len(rows) - len(count)
        if lost or repeated:
            raise Failed(f"{job}: {lost} of {queries} queries have no row, {repeated} rows are repeated")
        return {row["query"]: (row["name"], json.dumps(row.get("output")), row.get("error")) for row in rows}
