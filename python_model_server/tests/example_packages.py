"""Puts the examples down as packages, as `idunno model add` and a member do."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from idunno_model_server.environments import FOLDER
from idunno_model_server.lock_environment import lock_environment

EXAMPLES = Path(__file__).parent.parent / "examples"
KEYS_OF_PEOPLE = ("name", "runtime", "entry")
"""What a manifest does not repeat in its settings."""


def recognised(folder: Path, settings: dict[str, Any]) -> tuple[str, str]:
    """The runtime of a folder and its entry: as tui/src/package/settings.rs recognises them."""
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    signs = {
        "openai": ["model.toml"] if "openai" in settings else [],
        "python": [name for name in files if name == "model.py"],
        "sentence-transformers": [name for name in files if name == "modules.json"],
        "sklearn": [name for name in files if name.endswith(".skops")],
        "onnx": [name for name in files if name.endswith(".onnx")],
        "transformers": [name for name in files if name == "config.json"] if "tokenizer.json" in files else [],
        "command": [name for name in files if name == "run"],
    }
    found = [(runtime, entries[0]) for runtime, entries in signs.items() if entries]
    wanted = settings.get("runtime", found[0][0])
    return next(each for each in found if each[0] == wanted)


def add_example(packages: Path, folder: Path, *, environment: bool) -> str:
    """Copies an example, whose weights are there, and returns its version. Locks and fetches what it requires."""
    staged = packages / f"staged-{folder.name}"
    files = staged / "files"
    shutil.copytree(folder, files)
    toml = files / "model.toml"
    settings = tomllib.loads(toml.read_text()) if toml.is_file() else {}
    runtime, entry = recognised(files, settings)
    kept = {key: value for key, value in settings.items() if key not in KEYS_OF_PEOPLE}
    manifest = json.dumps({"format": 1, "runtime": runtime, "entry": entry, "settings": kept, "files": []})
    (staged / "manifest.json").write_text(manifest)
    if environment and (files / "requirements.txt").is_file():
        lock_environment(files / "requirements.txt", files / FOLDER)
    version = hashlib.sha256(f"{folder.name} {manifest}".encode()).hexdigest()
    staged.rename(packages / version)
    return version


def fetch_locked(lock: Path, folder: Path) -> None:
    """What a lock of data files names, with the command that the examples' page has."""
    command = [sys.executable, "-m", "idunno_model_server.fetch_data", "--quiet", "--lock", str(lock), str(folder)]
    subprocess.run(command, check=True)


def copied(name: str, to: Path) -> Path:
    """An example in a folder of its own, so that nothing is written beside the sources, with its weights."""
    folder = to / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
    lock = folder / "weights.toml"
    if lock.is_file():
        fetch_locked(lock, folder)
    return folder


def clean_environment() -> dict[str, str]:
    """Of this process, without what leads Python to other packages."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
