"""`try_package`: a package in an environment of its own, without a cluster and without a network."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_environments import toy_wheel
from test_packages import CODE, WITHOUT_OWN_JSON, write_package

TOYS = """
import importlib.metadata, importlib.util, sys, time
import toy
from idunno_model_server.api import BatchModel, RowError

class Toys(BatchModel):
    def setup(self, context):
        time.sleep(0.2)
        print("set up")
    def predict(self, inputs):
        time.sleep(0.1)
        if inputs == [b"exit"]:
            print("a last line")
            sys.stdout.flush()
            import os
            os._exit(7)
        seen = importlib.util.find_spec("starlette") is not None
        answer = {"version": importlib.metadata.version("toy"), "word": toy.WORD, "n": 2**70, "sees_the_servers": seen}
        return [RowError("refused") if row == b"bad" else answer for row in inputs]
    def canary(self):
        return b"x"
"""


class Tries:
    """Runs the program, with a cache and a folder of wheels that are the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        self.environments = folder / "cache" / "idunno" / "environments"

    def add_wheel(self, version: str) -> None:
        (self.wheels / f"toy-{version}-py3-none-any.whl").write_bytes(toy_wheel(version))

    def run(self, version: str, *words: str) -> tuple[int, Any, str]:
        command = [sys.executable, "-m", "idunno_model_server.try_package", str(self.folder / version), "mine", *words]
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))},
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "UV_CACHE_DIR": str(self.folder / "uv"),
        }
        done = subprocess.run(
            command, cwd=self.folder, env=variables, capture_output=True, text=True, check=False, timeout=120
        )
        return done.returncode, json.loads(done.stdout or "null"), done.stderr


@pytest.fixture
def tries(tmp_path: Path) -> Tries:
    for name in ("question", "bad", "exit"):
        (tmp_path / f"{name}.txt").write_text(name)
    return Tries(tmp_path)


def test_a_package_without_requirements_runs_beside_the_model_server(tries: Tries) -> None:
    printing = {**WITHOUT_OWN_JSON, "model.py": CODE.replace("import helpers", "print('a word')\nimport helpers")}
    (tries.folder / "question.txt").write_text("abc")
    code, result, printed = tries.run(write_package(tries.folder, printing), "question.txt")
    assert code == 0, result
    answers = [(answer["input"], answer["answer"]["n"]) for answer in result["answers"]]
    assert answers == [("canary", 1115), ("question.txt", 1113)]
    assert result["environment"] is None
    assert "a word" in printed.splitlines()
    assert not tries.environments.exists()


def test_a_package_is_read_through_links(tries: Tries, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As `idunno model test` puts down a folder; and as caches of weights link their files."""
    version = write_package(tries.folder, {**WITHOUT_OWN_JSON, "data/offset.txt": "4"})
    files, elsewhere = tries.folder / version / "files", tmp_path_factory.mktemp("elsewhere")
    offset = files / "data/offset.txt"
    offset.rename(elsewhere / "blob")
    offset.symlink_to(elsewhere / "blob")
    files.rename(elsewhere / "package")
    files.symlink_to(elsewhere / "package")
    (tries.folder / "question.txt").write_text("abc")
    code, result, _ = tries.run(version, "question.txt")
    assert code == 0, result
    assert [answer["error"] for answer in result["answers"]] == [None, None]


def test_a_model_that_cannot_be_loaded_shows_its_traceback(tries: Tries) -> None:
    code, result, _ = tries.run(write_package(tries.folder, {**WITHOUT_OWN_JSON, "data/offset.txt": "no number"}))
    assert code == 1
    assert "model.py, line" in result["failed"]
    assert "ValueError" in result["traceback"]


@pytest.mark.slow
def test_a_package_with_requirements_runs_in_an_environment_of_its_own(tries: Tries) -> None:
    tries.add_wheel("1")
    version = write_package(tries.folder, {"model.py": TOYS, "requirements.txt": "toy\n"})
    code, result, printed = tries.run(version, "question.txt", "bad.txt")
    assert code == 0, (result, printed)
    canary, question, bad = result["answers"]
    expected = {"version": "1", "word": "toy 1", "n": 2**70, "sees_the_servers": False}
    assert (canary["answer"], question["answer"], bad["answer"], bad["error"]) == (expected, expected, None, "refused")
    assert printed.splitlines() == ["set up"]
    environment = result["environment"]
    assert (environment["packages"], environment["bytes"]) == (1, len(toy_wheel("1")))
    assert min(environment["lock_s"], environment["build_s"], result["start_s"]) > 0
    assert result["load_s"] >= 0.2, "what setup takes"
    assert result["canary_s"] >= 0.2, "alone, and twice in a batch"
    assert 100 <= question["predict_ms"] <= question["ms"]
    # The environment is kept for the next try, and another version of what is required makes another.
    built = {path.name: path.stat().st_ctime_ns for path in tries.environments.glob("*/pyvenv.cfg")}
    assert (tries.run(version)[0], len(built)) == (0, 1)
    assert {path.name: path.stat().st_ctime_ns for path in tries.environments.glob("*/pyvenv.cfg")} == built
    tries.add_wheel("2")
    assert tries.run(version)[1]["answers"][0]["answer"]["version"] == "2"


def test_two_tries_at_once_share_no_environment(tries: Tries) -> None:
    tries.add_wheel("1")
    tries.environments.parent.mkdir(parents=True)
    version = write_package(tries.folder, {"model.py": TOYS, "requirements.txt": "toy\n"})
    with (tries.environments.parent / "environments.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, result, _ = tries.run(version)
    assert (code, result["answers"][0]["answer"]["version"]) == (0, "1")
    assert not tries.environments.exists()


def test_what_cannot_be_had_is_named(tries: Tries) -> None:
    version = write_package(tries.folder, {"model.py": TOYS, "requirements.txt": "toy==9\n"})
    code, result, _ = tries.run(version)
    assert (code, "requirements.txt cannot be locked" in result["failed"], "toy" in result["failed"]) == (1, True, True)
    code, result, _ = tries.run(version, "--no-environment")
    assert (code, "toy is not installed" in result["failed"]) == (1, True)


def test_a_process_that_ends_is_told_with_its_last_lines(tries: Tries) -> None:
    tries.add_wheel("1")
    version = write_package(tries.folder, {"model.py": TOYS, "requirements.txt": "toy\n"})
    code, result, _ = tries.run(version, "exit.txt")
    assert code == 1
    assert result["failed"].startswith("the model's process ended: its process exited with status 7")
    assert "a last line" in result["failed"]
