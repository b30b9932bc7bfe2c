"""Tries a package without a cluster, for `idunno model test`: makes its environment and starts its runner as a member
would, and has that answer inputs.

    python -m idunno_model_server.try_package [--no-environment] FOLDER NAME [INPUT...]

Standard output gets one line of JSON, `Tried`; or {"failed", "traceback"} and exit code 1. What the model's own code
prints goes to standard error.

Environments are kept in the user's cache, as many as a member keeps of those that nothing uses. Two tries at once do
not share it: the second makes an environment of its own, and deletes it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .bytes_tensor import join_rows, split_rows
from .environments import FOLDER, Environments
from .errors import MemoryShortageError, ModelFailure, ModelLoadError, PackageError, RunnerError
from .json_codec import dumps, loads
from .lock_environment import LockError, lock_environment
from .os_process import become_subreaper, one_thread_per_library
from .packages import FILES, REQUIREMENTS, PackageSettings, require_requirements
from .runners.host import RunnerHost
from .runners.process_family import Families
from .runners.runner_process import RunnerLimits, RunnerProcess
from .statistics import COMPUTE

DIGITS = 3


@dataclass(frozen=True)
class TriedEnvironment:
    """What the requirements became."""

    packages: int
    bytes: int
    lock_s: float
    """To lock them, and fetch the wheels."""
    build_s: float
    """To make the environment; next to nothing if it was there."""


@dataclass(frozen=True)
class TriedInput:
    """An input, with its answer or why it was refused."""

    input: str
    answer: Any
    error: str | None
    ms: float
    """All that it took; the rest of it is the way to the runner and back."""
    decode_ms: float
    predict_ms: float
    encode_ms: float


@dataclass(frozen=True)
class Tried:
    """What a try found. Where time goes: the environment, the start (Python, and what the code imports), `setup` or
    `load`, the canary, and each input.
    """

    environment: TriedEnvironment | None
    """None if the model runs beside the model server."""
    start_s: float
    load_s: float
    canary_s: float
    """To answer the canary, alone and twice in one batch."""
    answers: list[TriedInput]


async def try_package(folder: Path, name: str, files: list[Path], *, in_environment: bool = True) -> Tried:
    """Raises PackageError, LockError, ModelLoadError, MemoryShortageError, ModelFailure, RunnerError, and OSError."""
    inputs = [(str(path), path.read_bytes()) for path in files]
    families = Families()
    with tempfile.TemporaryDirectory(prefix="idunno-model-test-") as scratch, _environments_folder() as root:
        host = RunnerHost(RunnerLimits(threads=1), families, Path(scratch, "processes"))
        environment, python = None, Path(sys.executable)
        if in_environment and (folder / FILES / REQUIREMENTS).is_file():
            environment, python = await _environment(folder, Path(scratch), Environments(root, families))
        if environment is None:
            require_requirements(folder, f"To try the model here, install this for {sys.executable}")
        try:
            return await _tried(host, folder, name, environment, python, inputs)
        finally:
            await host.close()


async def _environment(folder: Path, scratch: Path, environments: Environments) -> tuple[TriedEnvironment | None, Path]:
    """None if the requirements are only comments."""
    start_s = time.perf_counter()
    locked = await asyncio.to_thread(lock_environment, folder / FILES / REQUIREMENTS, scratch / FOLDER)
    locked_s = time.perf_counter()
    key = environments.key(scratch) if locked["packages"] else None
    if key is None:
        return None, Path(sys.executable)
    python = await environments.python(key, scratch, ())
    times = (round(locked_s - start_s, DIGITS), round(time.perf_counter() - locked_s, DIGITS))
    return TriedEnvironment(locked["packages"], locked["bytes"], *times), python


async def _tried(
    host: RunnerHost,
    folder: Path,
    name: str,
    environment: TriedEnvironment | None,
    python: Path,
    inputs: list[tuple[str, bytes]],
) -> Tried:
    begin_s = time.perf_counter()
    needs = PackageSettings.read(folder).needs(folder)
    needs = replace(needs, read=(*needs.read, *_linked(folder / FILES)))
    process = await host.start("", python, needs)
    await process.open({"name": name, "package": str(folder), "load": True})
    opened_s = time.perf_counter() - begin_s
    opening = process.opening
    if opening.canary is not None:
        inputs = [("canary", opening.canary), *inputs]
    answers = [await _answer(process, title, row) for title, row in inputs]
    start_s = opened_s - opening.load_s - opening.canary_s
    start_s, load_s, canary_s = (round(value, DIGITS) for value in (start_s, opening.load_s, opening.canary_s))
    return Tried(environment, start_s, load_s, canary_s, answers)


def _linked(files: Path) -> list[Path]:
    """Where links lead: on a member that is a part of the package, and here the model needs the right to read it."""
    if files.is_symlink():
        files = files.resolve()
        return [files, *_linked(files)]
    below = (Path(folder, name) for folder, folders, names in os.walk(files) for name in (*folders, *names))
    return [path.resolve() for path in below if path.is_symlink()]


async def _answer(process: RunnerProcess, title: str, row: bytes) -> TriedInput:
    start = time.perf_counter_ns()
    answer = await process.infer(join_rows([row]), 1, None)
    took = time.perf_counter_ns() - start
    ms = [round(ns / 1e6, DIGITS) for ns in (took, *(answer.times.compute_ns[name] for name in COMPUTE))]
    (output,), (error,) = (split_rows(memoryview(join_rows(rows))) for rows in answer.tensors.values())
    if error:
        return TriedInput(title, None, bytes(error).decode(), *ms)
    return TriedInput(title, loads(output), None, *ms)


@contextlib.contextmanager
def _environments_folder() -> Iterator[Path]:
    """Where environments are kept; a temporary folder if another try is using that."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "idunno"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "environments.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with tempfile.TemporaryDirectory(prefix="idunno-environments-") as folder:
                yield Path(folder)
        else:
            yield cache / "environments"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m idunno_model_server.try_package", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with manifest.json and files/")
    parser.add_argument("name", help="the model's name")
    parser.add_argument("inputs", type=Path, nargs="*", help="files, each of which is an input")
    parser.add_argument("--no-environment", action="store_true", help="run it in this Python's environment")
    arguments = parser.parse_args()
    one_thread_per_library()
    sys.set_int_max_str_digits(0)  # answers have integers of any size
    if sys.platform == "linux":
        become_subreaper()  # of what the model's processes leave behind
    in_environment = not arguments.no_environment
    failed: dict[str, Any]
    try:
        tried = asyncio.run(
            try_package(arguments.folder.absolute(), arguments.name, arguments.inputs, in_environment=in_environment)
        )
    except ModelFailure as failure:
        failed = {"failed": failure.message, "traceback": failure.traceback}
    except LockError as error:
        failed = {"failed": f"{REQUIREMENTS} cannot be locked: {error}", "traceback": ""}
    except RunnerError as error:
        failed = {"failed": f"the model's process ended: {error}", "traceback": ""}
    except (PackageError, ModelLoadError, MemoryShortageError, OSError) as error:
        failed = {"failed": str(error), "traceback": ""}
    else:
        print(dumps(asdict(tried)).decode(), flush=True)
        return 0
    print(json.dumps(failed), flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
