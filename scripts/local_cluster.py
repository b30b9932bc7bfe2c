"""The command line of a local cluster, for the demo and the benchmark: everything goes through `idunno` itself."""

import json
import subprocess
import sys
import time
from pathlib import Path


class CommandFailed(Exception):
    """A command ended with a failure: which, how, and what it said."""

    def __init__(self, command, status, stderr):
        super().__init__(f"`{' '.join(command)}` ended with {status}: {stderr.strip()}")
        self.status = status


def say(text):
    """Tells what happens as it happens."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


class LocalCluster:
    """A cluster in one directory, driven by the `idunno` program."""

    def __init__(self, programs, python, folder):
        self.idunno = str(Path(programs, "idunno").absolute())
        # Not resolved: the interpreter of a virtual environment is a link.
        self.python = str(Path(python).absolute())
        self.folder = Path(folder).absolute()

    def run(self, *arguments, timeout_s=600):
        """Runs a command; its JSON answer, or what it printed if that is no JSON."""
        command = [self.idunno, "--dir", str(self.folder), "--output", "json", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode != 0:
            raise CommandFailed(command, done.returncode, done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def up(self, members, threads=None, model_servers=True):
        """Starts a fresh cluster; returns the seconds until it was ready."""
        self.down()
        started = time.monotonic()
        options = ["--model-server-python", self.python] if model_servers else []
        options += ["--threads", threads] if threads else []
        self.run("local", "up", "--members", members, *options)
        return time.monotonic() - started

    def down(self, purge=True):
        """Stops the cluster, if there is one; with `purge`, deletes its data."""
        if (self.folder / "cluster.json").exists():
            self.run("local", "down", *(["--purge"] if purge else []))

    def jobs(self):
        """All jobs' figures, by job."""
        return {view["job"]: view for view in self.run("get-job-stats")}


def top_labels(results_file):
    """The first label of every answered row, by file name; the rows' queries; and how many rows have an error."""
    labels, queries, errors = {}, [], 0
    with open(results_file, encoding="utf-8") as rows:
        for line in rows:
            row = json.loads(line)
            queries.append(row["query"])
            if "error" in row:
                errors += 1
            else:
                labels[Path(row["name"]).name] = row["output"]["top5"][0]["index"]
    return labels, queries, errors


def fail(text):
    """Ends the program with a reason."""
    print(f"failed: {text}", file=sys.stderr)
    sys.exit(1)
