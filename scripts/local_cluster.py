"""The command line of a local cluster, for the demo and the benchmark: everything goes through `idunno` itself."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """What was to be done was not, and why."""


class CommandFailed(Failed):
    """A command ended with a failure: which, how, and what it said."""

    def __init__(self, words, status, stderr):
        super().__init__(f"`{' '.join(['idunno', *words])}` ended with {status}: {message_of(stderr)}")
        self.status = status


def message_of(stderr):
    """The message of an error in JSON; all that was said, if it is none."""
    try:
        return json.loads(stderr)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return stderr.strip()


def say(text):
    """Tells what happens as it happens."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def without_settings(environment):
    """An environment in which no variable names another cluster, or sets something of its daemons'."""
    return {name: value for name, value in environment.items() if not name.startswith("IDUNNO_")}


class LocalCluster:
    """A cluster in one directory, driven by the `idunno` program."""

    def __init__(self, programs, python, folder):
        self.idunno = str(Path(programs, "idunno").absolute())
        # Not resolved: the interpreter of a virtual environment is a link.
        self.python = str(Path(python).absolute())
        self.folder = Path(folder).absolute()
        # A folder of models for its model servers, in place of the user's.
        self.models = None

    def run(self, *arguments, timeout_s=600):
        """Runs a command; its JSON answer, or nothing if it printed none."""
        words = list(map(str, arguments))
        command = [self.idunno, "--dir", str(self.folder), "--output", "json", *words]
        environment = without_settings(os.environ)
        if self.models:
            environment["IDUNNO_MODELS_DIR"] = str(self.models)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment
            )
        except subprocess.TimeoutExpired:
            raise CommandFailed(words, "no end", f"it was given up after {timeout_s} s") from None
        if done.returncode != 0:
            raise CommandFailed(words, done.returncode, done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def exists(self):
        """Whether there is one in the folder, running or not."""
        return (self.folder / "cluster.json").exists()

    def clear(self):
        """Deletes an old cluster's data; one that runs is somebody's."""
        if not self.exists():
            return
        running = [process["name"] for process in self.run("local", "status")["items"] if process["running"]]
        if running:
            down = f"'idunno --dir {self.folder} local down --purge' stops it"
            raise Failed(f"a cluster runs in {self.folder} already ({', '.join(running)}): {down}")
        self.down()

    def up(self, members, threads=None, model_servers=True, insecure=False):
        """Starts the cluster; returns the seconds until it was ready. Whatever comes of it, `down` ends it."""
        started = time.monotonic()
        options = ["--model-server-python", self.python] if model_servers else []
        options += ["--threads", threads] if threads else []
        options += ["--insecure"] if insecure else []
        self.run("local", "up", "--members", members, *options)
        return time.monotonic() - started

    def down(self, purge=True):
        """Stops the cluster, if there is one; with `purge`, deletes its data."""
        if self.exists():
            self.run("local", "down", *(["--purge"] if purge else []))

    def jobs(self):
        """All jobs' figures, by job."""
        return {view["job"]: view for view in self.run("get-job-stats")["items"]}


def read_rows(results_file):
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


def run_program(program):
    """Runs a program's `main`. What it could not do is told in one line; a request to end still stops its cluster."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended: told to"))
    try:
        program()
    except KeyboardInterrupt:
        sys.exit("ended: interrupted")
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip()
        sys.exit(f"failed: `{' '.join(map(str, error.cmd))}` ended with {error.returncode}: {said}")
    except (Failed, OSError) as error:
        sys.exit(f"failed: {error}")
