"""The cluster as people at another machine see it: through `idunno`, and through the files that it writes."""

import json
import os
import threading
import time
from collections import Counter

from machines import Failed, run, say, wait_for


class Cluster:
    """A cluster, by the addresses of its members."""

    def __init__(self, program, members, folder):
        self.program, self.members, self.folder = program, members, folder
        self.addresses = ",".join(f"{member.address}:7401" for member in members)

    def idunno(self, *words, timeout_s=300):
        """Runs a command; its answer."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("IDUNNO_")}
        command = [self.program, "--cluster", self.addresses, "--output", "json", *words]
        said = run(*command, timeout_s=timeout_s, env=environment)
        return json.loads(said) if said.strip() else None

    def status(self):
        return self.idunno("--timeout", 5, "status")

    def states(self):
        """The state of each member, by name."""
        return {member["name"]: member["state"] for member in self.idunno("--timeout", 5, "status")["members"]}

    def coordinator(self):
        """The machine whose member coordinates."""
        name = self.status()["coordinator"]["name"]
        return next(machine for machine in self.members if machine.name == name)

    def job(self, job):
        return next(view for view in self.idunno("get-job-stats") if view["job"] == job)

    def rows(self, job):
        """A job's committed rows: what each query was answered, and how many rows there are too many."""
        place = self.folder / f"{job}.jsonl"
        self.idunno("get-job-results", job, place, "--raw")
        rows = [json.loads(line) for line in place.read_text().splitlines()]
        count = Counter(row["query"] for row in rows)
        answers = {row["query"]: (row["name"], json.dumps(row.get("output")), row.get("error")) for row in rows}
        return answers, sum(count.values()) - len(count)
