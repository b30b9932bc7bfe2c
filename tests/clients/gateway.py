"""A local cluster with a gateway: started, killed and started again by the tests."""

import json
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

START_S = 60


@dataclass
class Key:
    """An access key."""

    id: str
    secret: str

    @property
    def bearer(self) -> str:
        """What clients of OpenAI's API send."""
        return f"{self.id}:{self.secret}"

    @property
    def environment(self) -> dict[str, str]:
        """What the AWS SDKs read."""
        return {
            "AWS_ACCESS_KEY_ID": self.id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


@dataclass
class Cluster:
    """A local cluster and its gateway."""

    programs: Path
    directory: Path
    members: int = 5
    # With it the members have model servers.
    model_server_python: Path | None = None
    port: int = 0
    process: subprocess.Popen | None = field(default=None, repr=False)

    @property
    def secret(self) -> Path:
        return self.directory / "secret.pem"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def idunno(self, *arguments: str, check: bool = True) -> str:
        """Runs a command of the command line, and answers what it prints."""
        command = [self.programs / "idunno", "--dir", self.directory, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if check and done.returncode != 0:
            raise AssertionError(f"idunno {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self) -> None:
        """Starts the members, then the gateway."""
        python = ["--model-server-python", str(self.model_server_python)] if self.model_server_python else []
        self.idunno("local", "up", "--members", str(self.members), *python)
        self.start_gateway()

    def start_gateway(self) -> None:
        """Starts the gateway, at the same port as before."""
        self.process, self.port = self.run_gateway("--listen", f"127.0.0.1:{self.port}")

    def run_gateway(self, *arguments: str) -> tuple[subprocess.Popen, int]:
        """Starts a gateway, and answers its port."""
        record = json.loads((self.directory / "cluster.json").read_text())
        addresses = [process["address"] for process in record["processes"] if process["name"] != "introducer"]
        log = (self.directory / "gateway.log").open("a")
        process = subprocess.Popen(
            [
                self.programs / "idunno-gateway",
                *("--cluster", ",".join(addresses), "--secret", self.secret, *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        ready, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline() if ready else ""
        if not line.startswith("S3 at http"):
            process.kill()
            raise AssertionError(f"the gateway did not start: {(self.directory / 'gateway.log').read_text()[-2000:]}")
        return process, int(line.rsplit(":", 1)[1])

    def kill_gateway(self) -> None:
        """Kills the gateway without a warning."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)

    def kill_worker(self) -> str:
        """Kills a member that does not coordinate, with its model server, and answers its name."""
        status = json.loads(self.idunno("--output", "json", "local", "status"))["items"]
        workers = [one["name"] for one in status if one["role"] not in ("introducer", "coordinator") and one["running"]]
        self.idunno("local", "kill", workers[0])
        return workers[0]

    def kill_coordinator(self) -> None:
        """Kills the member that coordinates without a warning."""
        self.idunno("local", "kill", "--coordinator")

    def stop(self) -> None:
        """Stops all, and deletes the data."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=40)
        self.idunno("local", "down", "--purge", "--yes", check=False)

    def key(self, name: str, role: str = "operator", *more: str) -> Key:
        """Makes an access key; further arguments are those of `idunno key create`."""
        arguments = ("--name", name, "--role", role, "--secret", str(self.secret), *more)
        made = json.loads(self.idunno("--output", "json", "key", "create", *arguments))
        return Key(made["access_key_id"], made["secret_access_key"])

    def files(self, prefix: str = "") -> list[str]:
        """The names of files as a native client sees them."""
        listed = json.loads(self.idunno("--output", "json", "ls", "--all", *([prefix] if prefix else [])))
        return [file["name"] for file in listed["items"]]


def wait_until(holds, timeout_s: float, what: str) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.05)
