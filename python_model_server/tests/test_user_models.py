"""Users' own models: broken files, training with progress and failures, datasets."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ModelServer, wait_until

from idunno_model_server.errors import DatasetError
from idunno_model_server.models import registry
from idunno_model_server.training_data import Dataset
from idunno_model_server.training_run import checked_metrics
from idunno_model_server.user_models import discover

HEAD = "from idunno_model_server.api import Model, Runner\n"
MODEL = """
class {kind}(Model):
    name, description, suffix = "{name}", "a model of the tests", ".txt"
    dataset = "optional"
    def train(self, dataset, run):
        {body}
        run.artefact.write_text(f"{{run.seed}} {{len(dataset or [])}}")
        return {{"examples": len(dataset or [])}}
    def load(self, artefact):
        return Answer()
    def canary(self):
        return b"x"
class Answer(Runner):
    def decode(self, content): return content
    def predict(self, content): return content
    def encode(self, content): return b"1"
"""


def source(name: str = "mine", body: str = "pass", kind: str = "Mine") -> str:
    return HEAD + MODEL.format(name=name, body=body, kind=kind)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("x = 1\nx.nothing\n", "line 2: AttributeError"),
        ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
        ("import no_such_package\n", "line 1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("x = 1\n", "it defines no subclass of Model that sets a name"),
        (HEAD + "class Mine(Model):\n    name = 'mine'\n", "class Mine: it does not define canary, load, train"),
        (source("two words"), "class Mine: name 'two words' must be"),
        (source(".."), "class Mine: name '..' must be"),
        (source("mnist-mlp"), "model name 'mnist-mlp' is already used by the predefined models"),
        (source().replace('"optional"', '"some"'), "class Mine: dataset 'some' must be one of"),
        (source().replace(".txt", "txt"), "class Mine: suffix 'txt' must be"),
        (source().replace("a model of the tests", "").replace('""', "7"), "class Mine: description must be a string"),
        (source().replace("self, dataset, run", "self, dataset"), "class Mine: train must take (self, dataset, run)"),
        (source().replace("class Answer", "    def __init__(self, x): ...\nclass Answer"), "without arguments"),
    ],
)
def test_a_broken_file_is_reported_and_affects_no_other(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "broken.py").write_text(content)
    (tmp_path / "good.py").write_text(source("good"))
    found = discover(tmp_path, registry())
    assert list(found.models) == ["good"]
    (broken,) = found.broken
    assert broken.file == tmp_path / "broken.py"
    assert says in broken.reason


def test_a_name_in_two_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(source())
    (tmp_path / "b.py").write_text(source())
    (broken,) = discover(tmp_path, {}).broken
    assert broken.file == tmp_path / "b.py"
    assert str(tmp_path / "a.py") in broken.reason


def test_packages_are_imported_and_private_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text(source("one"))
    (tmp_path / "_helper.py").write_text("raise ValueError\n")
    found = discover(tmp_path, {})
    assert (list(found.models), found.broken) == (["one"], [])
    assert discover(tmp_path / "missing", {}).models == {}


def test_world_writable_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "open.py"
    file.write_text(source())
    file.chmod(0o666)
    (broken,) = discover(tmp_path, {}).broken
    assert f"chmod o-w {file}" in str(broken)
    tmp_path.chmod(0o777)
    (broken,) = discover(tmp_path, {}).broken
    assert broken.file == tmp_path


def test_check_models_reports_broken_files(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(source("good"))
    command = [sys.executable, "-m", "idunno_model_server", "--check-models"]
    environment = {**os.environ, "IDUNNO_MODELS_DIR": str(tmp_path)}
    good = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert good.stdout == f"good: a model of the tests\n{tmp_path}: 1 models, 0 broken files\n"
    (tmp_path / "bad.py").write_text("1 / 0\n")
    bad = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert bad.returncode == 1
    assert bad.stderr == f"{tmp_path}/bad.py: line 1: ZeroDivisionError: division by zero\n"


@pytest.fixture(scope="module")
def users(start_server: Callable[..., ModelServer], tmp_path_factory: pytest.TempPathFactory) -> ModelServer:
    """A server with users' models and a broken file."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "plain.py").write_text(source("plain", "print('not for the server')"))
    gate = "run.report(1, 4, loss=0.5)\n        while not (dataset and __import__('os').path.exists('{}')): pass"
    (folder / "slow.py").write_text(source("slow", gate.format(folder / "gate")))
    (folder / "failing.py").write_text(source("failing", "raise KeyError('no such word')"))
    (folder / "deep.py").write_text(source("deep", "__import__('json').loads('{')"))
    (folder / "dying.py").write_text(source("dying", "__import__('os')._exit(9)"))
    (folder / "silent.py").write_text(source("silent", "return {}"))
    (folder / "nan.py").write_text(source("nan", "run.report(1, 2, loss=float('nan'))"))
    (folder / "needy.py").write_text(source("needy").replace('"optional"', '"required"'))
    (folder / "wrong.py").write_text("1 / 0\n")
    return start_server("--models-dir", str(folder))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "examples.jsonl"
    path.write_text('{"input": "a", "label": 1}\n\n{"input": "b"}\n')
    return path


def test_users_models_and_broken_files_are_listed(users: ModelServer) -> None:
    answer = users.client.get("/idunno/models").json()
    assert {"plain", "mnist-mlp"} <= {row["name"] for row in answer["models"]}
    (broken,) = answer["broken"]
    assert broken["file"].endswith("wrong.py")
    assert broken["reason"] == "line 1: ZeroDivisionError: division by zero"


def test_progress_can_be_polled(users: ModelServer, examples: Path) -> None:
    body = {"seed": 3, "dataset": str(examples)}
    task = users.client.post("/idunno/models/slow/train", json=body).json()["task"]

    def reported() -> dict[str, Any] | None:
        value: dict[str, Any] = users.client.get(f"/idunno/tasks/{task}").json()
        assert value["state"] == "running", value
        return value if value["progress"]["step"] else None

    value = wait_until(reported, "progress")
    assert value["progress"] == {"fraction": 0.25, "step": 1, "steps": 4, "metrics": {"loss": 0.5}}
    assert (value["seed"], value["dataset"]) == (3, str(examples))
    assert users.client.get(f"/idunno/tasks/{task}/metrics").status_code == 409
    other = users.client.post("/idunno/models/slow/train", json={"seed": 3})
    assert (other.status_code, str(examples) in other.json()["error"]) == (409, True)
    gate = Path(users.client.get("/idunno/models").json()["broken"][0]["file"]).parent / "gate"
    gate.touch()
    value = users.wait_for_task(task)
    gate.unlink()
    assert (value["state"], value["progress"]["fraction"], value["metrics"]) == ("done", 1.0, {"examples": 2})
    document = users.client.get(f"/idunno/tasks/{task}/metrics").json()
    assert document["metrics"] == {"examples": 2}
    assert document["dataset"] == {"examples": 2, "sha256": Dataset.open(examples).digest()}


def test_a_training_can_be_cancelled(users: ModelServer) -> None:
    """Both the running one and the one that waits for it."""
    running = users.client.post("/idunno/models/slow/train").json()["task"]
    waiting = users.client.post("/idunno/models/plain/train").json()["task"]
    for task in (waiting, running):
        value = users.client.delete(f"/idunno/tasks/{task}").json()
        assert (value["state"], value["reason"]) == ("failed", "cancelled")
    assert users.train("plain") == b"0 0"
    assert users.client.delete("/idunno/tasks/none").status_code == 404


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("failing", "KeyError: 'no such word' (failing.py, line 7)"),
        ("deep", "line 1 column 2 (char 1) (deep.py, line 7)"),
        ("dying", "the training process exited with code 9"),
        ("silent", "did not write run.artefact"),
        ("nan", "metric 'loss' is nan"),
    ],
)
def test_a_failed_training_has_a_reason(users: ModelServer, model: str, says: str) -> None:
    task = users.client.post(f"/idunno/models/{model}/train").json()["task"]
    value = users.wait_for_task(task)
    assert value["state"] == "failed"
    assert says in value["reason"]


def test_a_model_file_that_was_removed_is_reported(users: ModelServer) -> None:
    folder = Path(users.client.get("/idunno/models").json()["broken"][0]["file"]).parent
    hidden = (folder / "plain.py").rename(folder / "_plain.py")
    task = users.client.post("/idunno/models/plain/train").json()["task"]
    reason = users.wait_for_task(task)["reason"]
    hidden.rename(folder / "plain.py")
    assert reason == "model 'plain' no longer exists: was its file changed?"


def test_a_dataset_that_the_model_cannot_use_is_refused(users: ModelServer, examples: Path) -> None:
    for model, body, says in [
        ("needy", {}, "needs a dataset"),
        ("mnist-mlp", {"dataset": str(examples)}, "takes no dataset"),
        ("plain", {"dataset": "examples.jsonl"}, "absolute path"),
        ("plain", {"dataset": str(examples) + "x"}, "absolute path"),
        ("plain", {"dataset": 7}, "path of a folder or file"),
    ]:
        answer = users.client.post(f"/idunno/models/{model}/train", json=body)
        assert answer.status_code == 400
        assert says in answer.json()["error"]


def test_a_dataset_is_read_as_the_job_is_told_to_read_it(users: ModelServer, tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("text;stars\na;1\nb;2\n")
    reading = {"input_column": "text", "label_column": "stars"}
    assert users.train("plain", dataset=str(path), reading=reading) == b"0 2"
    task = users.client.post("/idunno/models/plain/train", json={"dataset": str(path)}).json()["task"]
    assert "no column 'input'" in users.wait_for_task(task)["reason"]
    for wrong in (7, {"input": "text"}, {"delimiter": ";;"}, {"quote": "`"}, {"input_column": 1}):
        refused = users.client.post("/idunno/models/plain/train", json={"dataset": str(path), "reading": wrong})
        assert (refused.status_code, "reading" in refused.json()["error"]) == (400, True), wrong


def test_datasets_are_read_in_all_forms(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "b.txt").write_text("two")
    (folder / "a.txt").write_text("one")
    unlabelled = Dataset.open(folder)
    assert [(row.content, row.label) for row in unlabelled] == [(b"one", None), (b"two", None)]
    with pytest.raises(DatasetError, match=r"labels\.csv"):
        unlabelled.labels()
    (folder / "labels.csv").write_text("file,label\nb.txt,y\na.txt,x\n")
    (tmp_path / "set.csv").write_text('input,label\ntwo,y\n"one",x\n')
    (tmp_path / "set.jsonl").write_text(
        "".join(json.dumps({"input": text, "label": label}) + "\n" for text, label in [("two", "y"), ("one", "x")])
    )
    sets = [Dataset.open(tmp_path / name) for name in ("files", "set.csv", "set.jsonl")]
    assert len({dataset.digest() for dataset in sets}) == 1
    assert sets[0].labels() == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("set.txt", "", "must be a folder, or a file that ends in .jsonl"),
        ("set.jsonl", "", "is empty"),
        ("set.jsonl", '{"input": "a"}\nnonsense\n', "set.jsonl, line 2 is not JSON"),
        ("set.jsonl", '{"input": NaN}\n', "line 1 is not JSON"),
        ("set.jsonl", '{"input": "\\ud800"}\n', "line 1 is not JSON"),
        ("set.csv", "text,label\na,b\n", "no column 'input'"),
        ("set.csv", "label,input\na\n", "line 2 has 1 columns, the input is column 2"),
        ("labels.csv", "file,label\n../x,b\n", "entry 1: no file '../x' in the folder"),
        ("labels.csv", "file,label\nx,b\n", "entry 1: no file 'x' in the folder"),
        ("labels.csv", "file,label\n,b\n", "line 2 names no file"),
    ],
)
def test_bad_datasets_are_reported_with_the_line(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DatasetError) as error:
        Dataset.open(tmp_path if name == "labels.csv" else tmp_path / name)
    assert says in str(error.value)


def test_a_split_keeps_equal_contents_together(tmp_path: Path) -> None:
    lines = [json.dumps({"input": str(number % 500), "label": "x"}) + "\n" for number in range(1000)]
    (tmp_path / "set.jsonl").write_text("".join(lines))
    dataset = Dataset.open(tmp_path / "set.jsonl")
    training, held_out = dataset.split(0.2, seed=1)
    assert len(training) + len(held_out) == 1000
    assert len(held_out) == 200
    assert not {row.content for row in training} & {row.content for row in held_out}
    assert list(dataset.split(0.2, seed=2)[1]) != list(held_out)


def test_metrics_are_plain_finite_numbers() -> None:
    import numpy as np

    checked = checked_metrics({"n": np.int64(3), "loss": np.float32(0.5)})
    assert json.dumps(checked) == '{"n": 3, "loss": 0.5}'
    for bad in ({"x": "a"}, {"x": float("inf")}, {1: 2}, [1]):
        with pytest.raises(ValueError, match="metric"):
            checked_metrics(bad)  # type: ignore[arg-type]


def test_a_conversion_reports_no_dataset(server: ModelServer, artefacts: dict[str, bytes]) -> None:
    task = server.client.post("/idunno/models/squeezenet1.1/train").json()["task"]
    assert server.wait_for_task(task)["progress"]["fraction"] == 1.0
    document = server.client.get(f"/idunno/tasks/{task}/metrics")
    assert document.json() == {"model": "squeezenet1.1", "seed": 0, "dataset": None, "metrics": {}}
    artefact = server.client.get(f"/idunno/tasks/{task}/artefact").content
    assert hashlib.sha256(artefact).digest() == hashlib.sha256(artefacts["squeezenet1.1"]).digest()
