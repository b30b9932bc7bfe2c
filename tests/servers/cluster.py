"""Clusters on this machine: of daemons whose members use a model server that somebody else runs, and of `idunno local`,
with model servers of ours."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

READY_S = 60


def until(what, condition, timeout_s=READY_S):
    """Waits until a condition holds; returns what it returned."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s} s: {what}")
        time.sleep(0.1)


class Process:
    """A process in a session of its own, which ends with all that it started."""

    def __init__(self, words, folder, **options):
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "output.log"
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                list(map(str, words)), stdout=log, stderr=log, start_new_session=True, **options
            )

    def kill(self):
        """Ends it at once, with its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def is_alive(self):
        return self.child.poll() is None


class Commands:
    """Commands to a cluster."""

    def __init__(self, folder, words):
        self.folder, self.words = folder, list(map(str, words))

    def run(self, *words, timeout_s=600):
        """Runs a command; returns its JSON answer."""
        command = [*self.words, "--output", "json", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"idunno {' '.join(map(str, words))} ended with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def stats(self, job):
        (found,) = self.run("get-job-stats", job)["items"]
        return found

    def rows(self, job):
        """The answers and the reasons of the failed rows, by query: every query once."""
        path = self.folder / "results.jsonl"
        path.unlink(missing_ok=True)
        self.run("get-job-results", job, path)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert sorted(row["query"] for row in rows) == list(range(len(rows)))
        return (
            {row["query"]: row["output"] for row in rows if "error" not in row},
            {row["query"]: row["error"] for row in rows if "error" in row},
        )


class LocalCluster(Commands):
    """A cluster of `idunno local up`, each member with a model server of ours."""

    def __init__(self, folder, members):
        super().__init__(folder, [Path(os.environ["IDUNNO_PROGRAMS"], "idunno"), "--dir", folder])
        self.run("local", "up", "--members", members, "--model-server-python", os.environ["IDUNNO_TEST_PYTHON"])

    def stop(self):
        self.run("local", "down", "--purge", "--yes")


class Cluster(Commands):
    """An introducer and members without security."""

    def __init__(self, programs, folder, members, server_url):
        daemon = Path(programs, "idunnod")
        self.processes = []
        self.folder = folder
        introducer = self.start([daemon, "introducer"], "introducer")
        addresses = [
            self.start(
                [daemon, "member", "--name", name, "--introducer", introducer, "--model-server-url", server_url], name
            )
            for name in (f"m{number}" for number in range(1, members + 1))
        ]
        super().__init__(folder, [Path(programs, "idunno"), "--cluster", addresses[0]])

    def start(self, words, name):
        """Starts a daemon; returns its address."""
        data_dir = self.folder / name
        words = [*words, "--listen", "127.0.0.1:0", "--data-dir", data_dir, "--insecure"]
        self.processes.append(Process(words, data_dir))
        announced = data_dir / "runtime.json"
        until(f"{name} listens", announced.exists)
        return until(f"{name} says where", lambda: json.loads(announced.read_text() or "{}").get("address"))

    def stop(self):
        for process in self.processes:
            process.kill()
