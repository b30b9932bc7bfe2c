"""A cluster of real processes on this machine, for tests and first steps."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from ._client import Client, PathText, connect
from ._errors import Error, NotFoundError, error_of


class LocalCluster:
    """An introducer and members, each with a model server, in a folder that is deleted at the end.

        with idunno.LocalCluster(members=3) as cluster:
            client = cluster.connect()

    `dir` names a folder that is kept instead. `python` is a Python that has the package `idunno-model-server`: by
    default the one that `IDUNNO_MODEL_SERVER_PYTHON` names, otherwise this one. `model_servers=False` starts none:
    such a cluster stores files. `gateway=True` starts a gateway for S3 and OpenAI's batch API, whose URL is `gateway`
    then. The programs are those that came with this package, otherwise those of the folder that `IDUNNO_PROGRAMS`
    names, otherwise the first on the `PATH`.
    """

    def __init__(
        self,
        members: int = 3,
        *,
        dir: PathText | None = None,
        python: PathText | None = None,
        model_servers: bool = True,
        gateway: bool = False,
        threads: int | None = None,
        timeout: float = 120,
    ) -> None:
        self.members = members
        self._kept = Path(dir).absolute() if dir is not None else None
        self._python, self._model_servers = python, model_servers
        self._threads, self._timeout = threads, timeout
        self._with_gateway = gateway
        self.gateway: str | None = None
        self.dir: Path | None = self._kept

    def __enter__(self) -> LocalCluster:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Starts the processes, and waits until they are a cluster and all model servers are ready."""
        words = ["local", "up", "--members", str(self.members), "--idunnod", str(daemon_program())]
        if self._model_servers:
            words += ["--model-server-python", str(self._python or _model_server_python())]
        if self._threads is not None:
            words += ["--threads", str(self._threads)]
        if self._with_gateway:
            words += ["--gateway"]
        self.dir = self._kept or Path(tempfile.mkdtemp(prefix="idunno-cluster-"))
        try:
            self.gateway = self._run(*words, timeout=self._timeout)["gateway"]
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Stops the processes; a folder that was made for them is deleted."""
        if self.dir is None:
            return
        if (self.dir / "cluster.json").exists():
            self._run("local", "down", *(["--purge", "--yes"] if self._kept is None else []))
        if self._kept is None:
            shutil.rmtree(self.dir, ignore_errors=True)
            self.dir = None

    def connect(self, *, timeout: float | None = None) -> Client:
        """A client of this cluster."""
        return connect(dir=self._running(), timeout=timeout)

    def kill(self, *names: str, coordinator: bool = False, random: int = 0) -> list[str]:
        """Kills members with SIGKILL, all at the same moment: those named, the coordinator, others at random."""
        words = ["local", "kill", *names]
        words += ["--coordinator"] if coordinator else []
        words += ["--random", str(random)] if random else []
        return [str(member["name"]) for member in self._run(*words)["killed"]]

    def start(self, *names: str) -> None:
        """Starts members again that were killed: those named, or all."""
        self._run("local", "start", *names)

    def status(self) -> list[dict[str, Any]]:
        """The processes with their state and role."""
        items: list[dict[str, Any]] = self._run("local", "status")["items"]
        return items

    def _running(self) -> Path:
        if self.dir is None:
            raise Error("the cluster is not running: use it in a with statement, or call up()")
        return self.dir

    def _run(self, *words: str, timeout: float | None = None) -> Any:
        options = ["--timeout", str(max(1, round(timeout)))] if timeout is not None else []
        program = [sys.executable, "-m", "idunno", "--dir", str(self._running()), "--output", "json"]
        # Settings of other clusters, and of daemons, are none of this one's.
        kept = ("IDUNNO_MODELS_DIR", "IDUNNO_MODEL_DATA", "IDUNNO_CONFIG_DIR", "IDUNNO_PROGRAMS")
        environment = {name: value for name, value in os.environ.items() if name[:7] != "IDUNNO_" or name in kept}
        done = subprocess.run(
            [*program, *options, *words], capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode != 0:
            raise error_of(done.returncode, _message(done.stderr))
        return json.loads(done.stdout)


def daemon_program() -> Path:
    """The daemon's program. Raises NotFoundError if there is none."""
    found = bundled("idunnod")
    programs = os.environ.get("IDUNNO_PROGRAMS")
    if found is None and programs:
        found = Path(programs, "idunnod")
    if found is None or not found.is_file():
        on_path = shutil.which("idunnod")
        found = Path(on_path) if on_path else None
    if found is None:
        raise NotFoundError(
            "there is no program idunnod: this build of the package brings none, IDUNNO_PROGRAMS names no folder with "
            "one, and there is none on the PATH"
        )
    return found.absolute()


def bundled(name: str) -> Path | None:
    """A program that was installed with this package, if it brought one."""
    from importlib.metadata import PackageNotFoundError, files

    try:
        installed = files("idunno") or []
    except PackageNotFoundError:
        return None
    for file in installed:
        path = Path(os.fspath(file.locate()))
        if file.name == name and path.is_file():
            return path.resolve()
    return None


def _model_server_python() -> str:
    python = os.environ.get("IDUNNO_MODEL_SERVER_PYTHON")
    if python:
        return python
    if importlib.util.find_spec("idunno_model_server") is None:
        raise NotFoundError(
            "there is no model server: pip install 'idunno-model-server[train]', or pass python=PATH of a Python that "
            "has it; model_servers=False starts a cluster without any"
        )
    return sys.executable


def _message(text: str) -> str:
    try:
        message: str = json.loads(text.strip().splitlines()[-1])["error"]["message"]
    except (ValueError, KeyError, TypeError, IndexError):
        return text.strip()
    return message
