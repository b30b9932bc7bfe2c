"""Locks what a package requires, and fetches the wheels: what `idunno model add` runs on the machine of who adds it.

    python -m idunno_model_server.lock_environment REQUIREMENTS OUT

writes OUT/requirements.lock, OUT/environment.json and OUT/wheels, for this Python and this platform; `environments` has
what becomes of them. Nothing of a package is run: there are wheels only. Indexes are those of pip, unless UV_...
variables name others. Standard output gets one line of JSON: {"packages", "bytes"}, or {"failed": REASON} and exit
code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from .environments import DESCRIPTION, LOCK, WHEELS, find_uv, interpreter
from .errors import FetchDataError
from .package_index import PYPI, read_pip_settings

REASON_CHARACTERS_MAX = 2000
INDEX_OPTIONS = ("-i ", "--index-url", "--extra-index-url", "-f ", "--find-links", "--no-index")


class LockError(Exception):
    """Requirements cannot be locked. The message is the tool's."""


def lock_environment(requirements: Path, out: Path) -> dict[str, Any]:
    """Raises LockError."""
    uv = find_uv()
    if uv is None:
        raise LockError(f"uv is not installed for {sys.executable}: it comes with idunno-model-server")
    out.mkdir(parents=True, exist_ok=True)
    compile_ = [uv, "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
    only_wheels = ["--only-binary", ":all:"]
    folder, out = requirements.resolve().parent, out.resolve()
    lock, wheels = out / LOCK, out / WHEELS
    words = ["--python", sys.executable, requirements.name, "--output-file", str(lock)]
    _run([*compile_, *only_wheels, *_indexes(), *words], folder)
    wheels.mkdir(exist_ok=True)
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    if lock.read_text().strip():
        words = ["--requirement", str(lock), "--dest", str(wheels)]
        _run([*download, *only_wheels, *_index_options(requirements), *words], folder)
    (out / DESCRIPTION).write_text(json.dumps(interpreter(), sort_keys=True) + "\n")
    found = list(wheels.iterdir())
    return {"packages": len(found), "bytes": sum(wheel.stat().st_size for wheel in found)}


def _indexes() -> list[str]:
    """Where pip looks, in uv's words."""
    if any(name in os.environ for name in ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_NO_INDEX")):
        return []
    try:
        sources = read_pip_settings()
    except FetchDataError as error:
        raise LockError(str(error)) from None
    words = [word for folder in sources.directories for word in ("--find-links", str(folder)) if folder.is_dir()]
    if not sources.indexes:
        return [*words, "--no-index"]
    first, *more = sources.indexes
    words += [] if first == PYPI else ["--default-index", first]
    return words + [word for index in more for word in ("--index", index)]


def _index_options(requirements: Path) -> list[str]:
    """Where the file itself says that packages are: the lock has no such lines."""
    lines = requirements.read_text(encoding="utf-8", errors="replace").splitlines()
    return [
        word for line in lines if line.strip().startswith(INDEX_OPTIONS) for word in shlex.split(line, comments=True)
    ]


def _run(command: list[str], folder: Path) -> None:
    """Runs a tool in the folder of the requirements, to which their paths are relative."""
    none = subprocess.DEVNULL
    done = subprocess.run(command, cwd=folder, stdin=none, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip())[-REASON_CHARACTERS_MAX:]
        raise LockError(reason or f"{command[0]} ended with status {done.returncode}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m idunno_model_server.lock_environment", description=__doc__)
    parser.add_argument("requirements", type=Path, help="what is required, as for pip")
    parser.add_argument("out", type=Path, help="folder for the lock and the wheels")
    arguments = parser.parse_args()
    try:
        result = lock_environment(arguments.requirements, arguments.out)
    except (LockError, OSError) as error:
        print(json.dumps({"failed": str(error)}))
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
