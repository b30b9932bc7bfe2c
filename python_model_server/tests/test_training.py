"""Trainings: packages in environments of their own, what they print, how they end, and datasets larger than memory."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ModelServer, is_running, wait_until
from test_packages import write_package
from wire import outputs

from idunno_model_server.errors import TrainingError
from idunno_model_server.runners.output_tail import OutputTail
from idunno_model_server.runners.process_family import Families
from idunno_model_server.training_data import Dataset
from idunno_model_server.training_process import TrainingRequest, train_in_process
from idunno_model_server.training_run import Progress

VOTES = """
import json, sys
from idunno_model_server.api import BatchModel
import helpers

class Votes(BatchModel):
    dataset = "required"
    suffix = ".votes"
    def train(self, dataset, run):
        print("reading", len(dataset), "examples")
        print("to standard error", file=sys.stderr)
        votes = {}
        for example in dataset:
            votes[example.label] = votes.get(example.label, 0) + 1
        votes["weight"] = int((run.folder / "weight.txt").read_text())
        run.artefact.write_text(json.dumps(votes, sort_keys=True))
        run.report(1, 1, loss=0.5)
        return {"labels": len(votes) - 1}
    def setup(self, context):
        self.votes = json.loads(context.artefact.read_text())
    def predict(self, inputs):
        return [self.votes.get(str(row, "utf-8"), 0) * helpers.ONE for row in inputs]
    def canary(self):
        return b"a"
"""
FILES = {"model.py": VOTES, "helpers.py": "ONE = 1\n", "weight.txt": "7"}
UNTRAINED = """
from idunno_model_server.api import BatchModel
class Fixed(BatchModel):
    def predict(self, inputs): return [len(row) for row in inputs]
    def canary(self): return b"a"
"""


@pytest.fixture(scope="module")
def served(start_server: Callable[..., ModelServer], tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp("packages")
    return Served(start_server("--packages-dir", str(folder)), folder)


class Served:
    """A server, and the folder of its packages."""

    def __init__(self, server: ModelServer, packages: Path) -> None:
        self.server = server
        self.packages = packages

    def add(self, files: dict[str, str], **settings: Any) -> str:
        return write_package(self.packages, files, **settings)

    def train(self, model: str, version: str, **options: Any) -> Any:
        return self.server.client.post(f"/idunno/models/{model}/train", json={"package": version, **options})

    def load(self, model: str, version: str) -> Any:
        parameters = {"version": version, "package": True}
        return self.server.client.post(f"/v2/repository/models/{model}/load", json={"parameters": parameters})


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(json.dumps({"input": f"row {n}", "label": "ab"[n % 2]}) + "\n" for n in range(7)))
    return path


def test_a_package_is_trained_and_the_version_with_its_artefact_answers(served: Served, examples: Path) -> None:
    version = served.add(FILES)
    refused = served.load("votes", version)
    assert refused.status_code == 400
    assert "it is not trained yet: run 'idunno train-start votes'" in refused.json()["error"]

    task = served.train("votes", version, dataset=str(examples)).json()["task"]
    value = served.server.wait_for_task(task)
    assert (value["state"], value["metrics"], value["artefact"]) == ("done", {"labels": 2}, "votes.votes"), value
    assert (value["lines"], value["last_lines"]) == (2, ["reading 7 examples", "to standard error"])
    artefact = served.server.client.get(f"/idunno/tasks/{task}/artefact").text
    assert json.loads(artefact) == {"a": 4, "b": 3, "weight": 7}

    trained = served.add({**FILES, ".trained/votes.votes": artefact}, artefact=".trained/votes.votes")
    assert served.load("votes", trained).status_code == 200
    answers = outputs(served.server.infer("votes", [b"a", b"b", b"c"]))
    assert [json.loads(answer) for answer in answers] == [4, 3, 0]


def test_what_cannot_be_trained_is_refused_before_anything_runs(served: Served, examples: Path) -> None:
    check = "/idunno/models/{}/packages/{}/check"
    fixed, votes = served.add({"model.py": UNTRAINED}), served.add(FILES)
    for name, version, training, says in [
        ("fixed", fixed, {"dataset": False}, "model fixed is not trained: its class defines no train"),
        ("votes", votes, {"dataset": False}, "model votes needs a dataset"),
        ("votes", "0" * 64, {"dataset": True}, "the member fetches it before it is loaded"),
    ]:
        checked = served.server.client.post(check.format(name, version), json={"train": training})
        assert (checked.status_code, says in checked.json()["error"]) == (400, True), checked.text
        data = {"dataset": str(examples)} if training["dataset"] else {}
        started = served.train(name, version, **data)
        assert (started.status_code, started.json()["error"]) == (400, checked.json()["error"])
    allowed = served.server.client.post(check.format("votes", votes), json={"train": {"dataset": True}})
    assert allowed.status_code == 200
    assert served.server.client.post("/idunno/models/votes/train", json={"package": 7}).status_code == 400


TREE = """
import os, subprocess, sys, time
from idunno_model_server.api import BatchModel

class Tree(BatchModel):
    def train(self, dataset, run):
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        orphan = ["sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"]
        hidden = subprocess.run(orphan, start_new_session=True, capture_output=True, text=True, env={}, check=True)
        print("children", child.pid, int(hidden.stdout), flush=True)
        if (run.folder / "die.txt").read_text() == "yes":
            os._exit(9)
        time.sleep(600)
    def predict(self, inputs): return inputs
    def canary(self): return None
"""


def _children(served: Served, task: str) -> list[int]:
    def printed() -> list[int] | None:
        lines = served.server.client.get(f"/idunno/tasks/{task}").json()["last_lines"]
        return [int(word) for word in lines[0].split()[1:]] if lines else None

    found: list[int] = wait_until(printed, "the pids of the training's children")
    return found


@pytest.mark.parametrize("dies", ["no", "yes"], ids=["cancelled", "its process ends"])
def test_a_training_ends_with_everything_that_it_started(
    start_server: Callable[..., ModelServer], tmp_path: Path, dies: str
) -> None:
    served = Served(
        start_server("--packages-dir", str(tmp_path)), tmp_path
    )  # without runners, which would be looked at
    version = served.add({"model.py": TREE, "die.txt": dies})
    task = served.train("tree", version).json()["task"]
    children = _children(served, task)
    if dies == "no":
        assert all(map(is_running, children))
        value = served.server.client.delete(f"/idunno/tasks/{task}").json()
        assert (value["state"], value["reason"]) == ("failed", "cancelled")
    else:
        value = served.server.wait_for_task(task)
        assert value["reason"].startswith("the training process exited with code 9; its last lines: children")
        assert served.server.client.delete(f"/idunno/tasks/{task}").json()["state"] == "failed"
        assert served.server.client.get(f"/idunno/tasks/{task}").status_code == 404, "an ended one is forgotten"
    # Also what hides: without a parent, a session or the mark in its environment.
    wait_until(lambda: not any(map(is_running, children)), "the end of all processes", 20)


SLOW = """
import os, subprocess, time
from idunno_model_server.api import BatchModel

class Slow(BatchModel):
    def train(self, dataset, run):
        kind = (run.folder / "kind.txt").read_text()
        end = time.monotonic() + 6
        while time.monotonic() < end:
            if kind == "prints":
                print("still here", flush=True)
            elif kind == "reports":
                run.report(1, 2)
            elif kind == "computes":
                sum(range(2_000_000))
            elif kind == "reads":
                open("/dev/zero", "rb").read(1 << 20)
            elif kind == "child":
                subprocess.run(["sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"])
            time.sleep(0.2)
        run.artefact.write_text("done")
    def predict(self, inputs): return inputs
    def canary(self): return None
"""


def _train(tmp_path: Path, files: dict[str, str], idle_s_max: float, **options: Any) -> list[Progress]:
    """Trains a package in this process' family, and returns what it reported."""
    version = write_package(tmp_path / "packages", files)
    out = tmp_path / "out"
    out.mkdir()
    package = tmp_path / "packages" / version
    request = TrainingRequest("slow", 0, None, tmp_path / "models", out, package=package, **options)
    reports: list[Progress] = []
    output = OutputTail(lambda _line: None)
    asyncio.run(train_in_process(request, reports.append, Families(), output, idle_s_max=idle_s_max))
    return reports


@pytest.mark.parametrize("kind", ["prints", "reports", "computes", "reads", "child"])
def test_a_training_takes_as_long_as_it_makes_progress(tmp_path: Path, kind: str) -> None:
    _train(tmp_path, {"model.py": SLOW, "kind.txt": kind}, idle_s_max=3.0)


def test_a_training_without_progress_is_ended(tmp_path: Path) -> None:
    started_s = time.monotonic()
    with pytest.raises(TrainingError, match="it made no progress for 2 s"):
        _train(tmp_path, {"model.py": SLOW.replace("+ 6", "+ 600"), "kind.txt": "waits"}, idle_s_max=2.0)
    assert time.monotonic() - started_s < 60


DECLARES = """
import json, os, sys
from idunno_model_server.api import BatchModel

class Declares(BatchModel):
    reproducible = {reproducible}
    def train(self, dataset, run):
        names = ("OMP_NUM_THREADS", "PYTHONHASHSEED")
        run.artefact.write_text(json.dumps([os.environ.get(name) for name in names]))
    def predict(self, inputs): return inputs
    def canary(self): return None
"""


def test_what_makes_a_training_reproducible_is_there_if_the_class_declares_it(served: Served) -> None:
    for reproducible, expected in [(True, ["1", "0"]), (False, [None, None])]:
        version = served.add({"model.py": DECLARES.format(reproducible=reproducible)})
        task = served.train("declares", version).json()["task"]
        assert served.server.wait_for_task(task)["state"] == "done"
        assert served.server.client.get(f"/idunno/tasks/{task}/artefact").json() == expected


ROWS = 400_000
PEAK = """
import resource, sys
from pathlib import Path
from idunno_model_server.training_data import Dataset

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dataset = Dataset.open(Path(sys.argv[1]))
bytes_read = sum(len(example.content) for example in dataset)
training, held_out = dataset.split(0.2, 1)
count = sum(1 for _ in training)
assert count == len(training) and count + len(held_out) == len(dataset)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(dataset), bytes_read, len(held_out), after - before)
"""


@pytest.mark.slow
def test_a_data_set_is_streamed(tmp_path: Path) -> None:
    path, text = tmp_path / "large.jsonl", "x" * 200
    with path.open("w") as file:
        file.writelines(f'{{"input": "{number} {text}", "label": "{number % 7}"}}\n' for number in range(ROWS))
    run = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    rows, bytes_read, held_out, peak_kib = map(int, run.stdout.split())
    assert (rows, bytes_read) == (ROWS, sum(len(str(number)) + 201 for number in range(ROWS)))
    assert abs(held_out / ROWS - 0.2) < 0.01
    assert path.stat().st_size > 80 << 20
    assert peak_kib < 40 << 10, f"{peak_kib} KiB for a file of {path.stat().st_size >> 10} KiB"


def test_a_small_split_is_exact_and_may_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text("".join(f'{{"input": "{number}"}}\n' for number in range(10)))
    for share, expected in [(0.0, 0), (0.25, 3), (1.0, 10)]:
        training, held_out = Dataset.open(path).split(share, seed=1)
        assert (len(training), len(held_out)) == (10 - expected, expected)
        assert [len(list(held_out)), len(list(held_out))] == [expected, expected]
