"""A local cluster for the demo, the benchmarks and the screens, driven through the `idunno` program."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """What could not be done, and why."""


class CommandFailed(Failed):
    """A command failed: which one, its exit code, and its message."""

    def __init__(self, words, status, stderr):
        super().__init__(f"`{' '.join(['idunno', *words])}` ended with {status}: {message_of(stderr)}")
        self.status = status


def message_of(stderr):
    """The message of a JSON error, or the whole text if it is none."""
    try:
        return json.loads(stderr)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return stderr.strip()


def say(text):
    """Prints a line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def without_settings(environment):
    """The environment without variables that name another cluster or are settings of its daemons."""
    return {name: value for name, value in environment.items() if not name.startswith("IDUNNO_")}


class LocalCluster:
    """A cluster in one directory."""

    def __init__(self, programs, python, folder):
        self.idunno = str(Path(programs, "idunno").absolute())
        # Not resolved: the interpreter of a virtual environment is a symbolic link.
        self.python = str(Path(python).absolute())
        self.folder = Path(folder).absolute()
        # A directory of models for its model servers, instead of the user's.
        self.models = None

    def run(self, *arguments, timeout_s=600):
        """Runs a command; returns its JSON answer, or None if it printed nothing."""
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
            raise CommandFailed(words, "a timeout", f"no answer within {timeout_s} s") from None
        if done.returncode != 0:
            raise CommandFailed(words, done.returncode, done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def exists(self):
        """Whether the directory has a cluster, running or not."""
        return (self.folder / "cluster.json").exists()

    def clear(self):
        """Deletes the data of an old cluster; refuses if it is running, because somebody may be using it."""
        if not self.exists():
            return
        running = [process["name"] for process in self.run("local", "status")["items"] if process["running"]]
        if running:
            down = f"'idunno --dir {self.folder} local down --purge' stops it"
            raise Failed(f"a cluster is already running in {self.folder} ({', '.join(running)}): {down}")
        self.down()

    def up(self, members, threads=None, model_servers=True, insecure=False):
        """Starts the cluster; returns the seconds until it was ready. Call `down` afterwards, also if this fails."""
        started = time.monotonic()
        options = ["--model-server-python", self.python] if model_servers else []
        options += ["--threads", threads] if threads else []
        options += ["--insecure"] if insecure else []
        self.run("local", "up", "--members", members, *options)
        return time.monotonic() - started

    def down(self, purge=True):
        """Stops the cluster, if there is one; `purge` also deletes its data."""
        if self.exists():
            self.run("local", "down", *(["--purge", "--yes"] if purge else []))

    def jobs(self):
        """All jobs' figures, by job."""
        return {view["job"]: view for view in self.run("get-job-stats")["items"]}


def make_dataset(python, kind, count, folder):
    """A labelled dataset of files (`photos`, `digits`), made once for each size; its folder."""
    made = Path(folder) / f"{kind}-{count}"
    words = [python, "-m", "idunno_model_server.make_dataset", kind, made, "--images", count]
    subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True)
    return made


def read_rows(results_file):
    """The first label of every answered row by file name, the queries of all rows, and the number of errors."""
    labels, queries, errors = {}, [], 0
    with Path(results_file).open(encoding="utf-8") as rows:
        for line in rows:
            row = json.loads(line)
            queries.append(row["query"])
            if "error" in row:
                errors += 1
            else:
                labels[Path(row["name"]).name] = row["output"]["top5"][0]["index"]
    return labels, queries, errors


def run_program(program):
    """Runs a program's `main`. A failure is one line on stderr; SIGTERM still stops the cluster."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    try:
        program()
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except subprocess.CalledProcessError as error:
        stderr = (error.stderr or "").strip()
        sys.exit(f"failed: `{' '.join(map(str, error.cmd))}` ended with {error.returncode}: {stderr}")
    except (Failed, OSError) as error:
        sys.exit(f"failed: {error}")
