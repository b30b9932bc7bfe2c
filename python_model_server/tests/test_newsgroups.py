"""newsgroups-linear: its accuracy on posts that it was not trained on, its row errors, training on a user's texts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from conftest import ModelServer
from wire import binary_response, outputs, top1

from idunno_model_server.errors import RowError, TrainingError
from idunno_model_server.execution import open_model
from idunno_model_server.make_dataset import make_dataset
from idunno_model_server.models import registry
from idunno_model_server.package_data import NEWSGROUPS_TEST, newsgroups_posts, newsgroups_training_posts
from idunno_model_server.training_data import Dataset
from idunno_model_server.training_result import TrainingResult, train_model
from idunno_model_server.training_run import Progress

NAME = "newsgroups-linear"


@pytest.fixture(scope="module")
def reports() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, reports: list[Progress]) -> TrainingResult:
    return train_model(registry()[NAME], tmp_path_factory.mktemp("trained"), on_progress=reports.append)


def test_training_and_held_out_posts_differ() -> None:
    training = list(newsgroups_training_posts())
    held_out = newsgroups_posts(NEWSGROUPS_TEST)
    assert (len(training), len(held_out)) == (11_293, 7_528)
    assert len({row.label for row in training}) == 20
    shared = {row.content for row in training} & {row.content for row in held_out}
    assert len(shared) == 7  # the split is by date; a few posts, such as "test test", were sent twice


def test_accuracy_is_what_the_readme_says(trained: TrainingResult, reports: list[Progress]) -> None:
    assert trained.metrics["accuracy"] >= 0.84
    assert trained.metrics["held_out"] == 7_528
    losses = [progress.metrics["loss"] for progress in reports]
    assert len(losses) == trained.metrics["epochs"]
    assert max(losses) < 0.3  # guessing gives log(20) = 3.0; the first epoch already gets most of the way


def test_the_same_seed_gives_the_same_bytes(trained: TrainingResult, tmp_path: Path) -> None:
    start = time.process_time()
    again = train_model(registry()[NAME], tmp_path)
    assert time.process_time() - start < 30
    assert again.artefact.read_bytes() == trained.artefact.read_bytes()


def test_served_accuracy_matches_the_metrics(server: ModelServer, trained: TrainingResult, tmp_path: Path) -> None:
    make_dataset("posts", tmp_path, 1000)
    labels = [line.split(",") for line in (tmp_path / "labels.csv").read_text().splitlines()[1:]]
    server.deploy(NAME, trained.artefact.read_bytes())
    rows = outputs(server.infer(NAME, [(tmp_path / name).read_bytes() for name, _ in labels]))
    correct = sum(top1(row) == int(label) for row, (_, label) in zip(rows, labels, strict=True))
    assert abs(correct / 1000 - trained.metrics["accuracy"]) < 0.04


def test_inputs_that_are_not_text_are_row_errors(server: ModelServer, trained: TrainingResult) -> None:
    server.deploy(NAME, trained.artefact.read_bytes())
    rows = [b"which goalie won the stanley cup", b"", b"\xff\xfe", b"12 3 !", "Österreich fährt".encode()]
    _, tensors = binary_response(server.infer(NAME, rows))
    wanted = [b"", b"the text has no words", b"not UTF-8 text: byte 0", b"the text has no words", b""]
    assert tensors["error"] == wanted
    assert json.loads(tensors["output"][0])["top5"][0]["label"] == "rec.sport.hockey"


def test_it_trains_on_a_users_texts(tmp_path: Path) -> None:
    data = tmp_path / "set.csv"
    data.write_text("input,label\n" + "".join(f"the cat purrs {i},cat\nthe dog barks {i},dog\n" for i in range(50)))
    trained = train_model(registry()[NAME], tmp_path, dataset=Dataset.open(data))
    assert (trained.metrics["labels"], trained.metrics["held_out"]) == (2, 20)
    assert trained.metrics["accuracy"] == 1.0
    runner = open_model(registry()[NAME], trained.artefact).runner
    assert json.loads(runner.answer(b"a cat that purrs"))["top5"][0]["label"] == "cat"
    with pytest.raises(RowError):
        runner.answer(b"7")


def test_a_single_label_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "set.csv"
    data.write_text("input,label\na cat,cat\na lion,cat\n")
    with pytest.raises(TrainingError, match="at least two labels"):
        train_model(registry()[NAME], tmp_path, dataset=Dataset.open(data))
