"""`python -m idunno_model_server`: serves on one port until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import uvicorn

from .app import Limits, create_app
from .confine import raise_oom_score
from .errors import FaultPlanError
from .fault_injection import ENVIRONMENT as FAULTS_ENVIRONMENT
from .freed_memory import keep_freed_memory
from .garbage import collect_rarely
from .http_connection import BoundedConnection
from .models import registry
from .os_process import (
    become_subreaper,
    die_with_parent,
    listen,
    listen_at,
    lower_priority,
    one_thread_per_library,
    write_port_file,
)
from .user_models import default_folder, discover

MIB = 1024 * 1024
THREADS_MAX = 256
OOM_SCORE = 250
"""Of 1,000: when memory runs out, the kernel ends the server before the member, and runners before the server."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be from {low} to {high}")
        return value

    parse.__name__ = "integer"
    return parse


def _mode(text: str) -> int:
    """The permissions of a socket. Nothing but its user and its group may call."""
    mode = int(text, 8)
    if mode & ~0o660:
        raise argparse.ArgumentTypeError("must be 600 or 660")
    return mode


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m idunno_model_server",
        description="Serve predefined models and your own over the Open Inference Protocol v2.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="loopback address to listen on: there is no authentication")
    add("--port", type=_integer(0, 65535), default=8080, help="0 picks a free port")
    add("--socket", type=Path, help="Unix socket to listen on, not a port, for whoever may enter its folder; Linux")
    add(
        "--socket-mode",
        type=_mode,
        default="600",
        help="mode of that socket, octal: 660 also lets the group call that its folder belongs to",
    )
    add("--port-file", type=Path, help="file to write the port to once the server listens")
    add("--work-dir", type=Path, help="folder for artefacts, used by this process alone")
    add("--models-dir", type=Path, default=default_folder(), help="folder of your own models, see ADDING_A_MODEL.md")
    add(
        "--packages-dir",
        type=Path,
        help="folder into which the member puts packages of models; none are loaded without it",
    )
    add("--check-models", action="store_true", help="list that folder's models and exit; code 1 if a file is broken")
    add("--threads", type=_integer(1, THREADS_MAX), default=cores(), help="inputs processed at once")
    add("--nice", type=_integer(0, 19), default=10, help="added to the niceness of the process")
    add("--max-calls", type=_integer(1, 1024), default=8, help="infer requests running or waiting; more get 503")
    add("--max-body-mib", type=_integer(1, 4096), default=256, help="largest infer request; larger ones get 413")
    add("--body-timeout", type=_integer(1, 3600), default=60, help="seconds for a head or a body to arrive, else 408")
    add(
        "--die-with-parent",
        type=int,
        nargs="?",
        const=0,
        metavar="PID",
        help="exit as soon as the parent process does; with the parent's PID, also if it died during start-up",
    )
    options = parser.parse_args(arguments)
    if options.work_dir is None and not options.check_models:
        parser.error("--work-dir is required")
    return options


def check_models(folder: Path) -> int:
    """Lists what the server would offer from a folder. Returns the exit code."""
    found = discover(folder, registry())
    for model in found.models.values():
        print(f"{model.name}: {model.description}")
    for broken in found.broken:
        print(broken, file=sys.stderr)
    print(f"{folder}: {len(found.models)} models, {len(found.broken)} broken files")
    return 1 if found.broken else 0


class _Server(uvicorn.Server):
    """uvicorn that says where it listens, and exits with code 0 after SIGTERM instead of raising the signal again."""

    def __init__(self, config: uvicorn.Config, port_file: Path | None) -> None:
        super().__init__(config)
        self._port_file = port_file

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        """The first signal lets running requests finish; a second one exits at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit or not sockets:
            return
        if sockets[0].family == socket.AF_UNIX:
            print("listening on a Unix socket", flush=True)
            return
        host, port = sockets[0].getsockname()[:2]
        if self._port_file is not None:
            write_port_file(self._port_file, port)
        url_host = f"[{host}]" if ":" in host else host
        print(f"listening on http://{url_host}:{port}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    one_thread_per_library()
    keep_freed_memory()
    collect_rarely()
    if options.check_models:
        return check_models(options.models_dir)
    os.umask(0o077)  # models and training data are this user's alone
    try:
        if options.die_with_parent is not None:
            die_with_parent(options.die_with_parent)
        if sys.platform == "linux":
            become_subreaper()  # of what runners leave behind
            raise_oom_score(OOM_SCORE)
        lower_priority(options.nice)
        listener = (
            listen_at(options.socket, options.socket_mode) if options.socket else listen(options.host, options.port)
        )
    except OSError as error:
        place = options.socket or f"{options.host} port {options.port}"
        print(f"cannot listen on {place}: {error}", file=sys.stderr)
        return 1
    limits = Limits(
        threads=options.threads,
        requests_max=options.max_calls,
        body_bytes_max=options.max_body_mib * MIB,
        body_s_max=options.body_timeout,
    )
    try:
        faults = os.environ.get(FAULTS_ENVIRONMENT)
        app = create_app(options.work_dir, options.models_dir, limits, faults, options.packages_dir)
    except OSError as error:
        print(f"cannot use work folder {options.work_dir}: {error}", file=sys.stderr)
        return 1
    except FaultPlanError as error:
        print(f"cannot use {FAULTS_ENVIRONMENT}: {error}", file=sys.stderr)
        return 1
    config = uvicorn.Config(
        app,
        http=partial(BoundedConnection, head_s_max=options.body_timeout),  # type: ignore[arg-type]
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # nobody is in front of it
        ws="none",
        lifespan="on",
        timeout_keep_alive=75,
    )
    server = _Server(config, options.port_file)
    server.run(sockets=[listener])
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
