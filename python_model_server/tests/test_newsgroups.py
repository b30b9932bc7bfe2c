"""The text model: its accuracy on posts that it was not trained on, its rows, and training on a user's texts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from conftest import ModelServer
from wire import binary_response, outputs, top1

from idunno_model_server.dataset import make_set
from idunno_model_server.errors import RowError
from idunno_model_server.models import registry
from idunno_model_server.newsgroups import HELD_OUT, posts, training_posts
from idunno_model_server.repository import load_and_check
from idunno_model_server.trainer import Trained, train_model
from idunno_model_server.training_data import Dataset
from idunno_model_server.training_run import Progress

NAME = "newsgroups-linear"


@pytest.fixture(scope="module")
def reports() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, reports: list[Progress]) -> Trained:
    return train_model(registry()[NAME], tmp_path_factory.mktemp("trained"), listener=reports.append)


def test_it_is_measured_on_other_posts_than_it_is_trained_on() -> None:
    training, held_out = list(training_posts()), posts(HELD_OUT)
    assert (len(training), len(held_out)) == (11_293, 7_528)
    assert len({row.label for row in training}) == 20
    shared = {row.content for row in training} & {row.content for row in held_out}
    assert len(shared) == 7  # the split by date is not ours: a few posts, such as "test test", were sent twice


def test_the_accuracy_is_what_the_page_says(trained: Trained, reports: list[Progress]) -> None:
    assert trained.metrics["accuracy"] >= 0.84
    assert trained.metrics["held_out"] == 7_528
    losses = [progress.metrics["loss"] for progress in reports]
    assert len(losses) == trained.metrics["epochs"]
    assert max(losses) < 0.3  # knowing nothing is log(20) = 3; the first epoch already goes most of the way


def test_the_same_seed_gives_the_same_bytes(trained: Trained, tmp_path: Path) -> None:
    start = time.process_time()
    again = train_model(registry()[NAME], tmp_path)
    assert time.process_time() - start < 30
    assert again.artefact.read_bytes() == trained.artefact.read_bytes()


def test_a_job_over_the_held_out_files_is_as_accurate(server: ModelServer, trained: Trained, tmp_path: Path) -> None:
    make_set("posts", tmp_path, 1000)
    labels = [line.split(",") for line in (tmp_path / "labels.csv").read_text().splitlines()[1:]]
    server.deploy(NAME, trained.artefact.read_bytes())
    rows = outputs(server.infer(NAME, [(tmp_path / name).read_bytes() for name, _ in labels]))
    right = sum(top1(row) == int(label) for row, (_, label) in zip(rows, labels, strict=True))
    assert abs(right / 1000 - trained.metrics["accuracy"]) < 0.04


def test_rows_that_are_no_text_say_so(server: ModelServer, trained: Trained) -> None:
    server.deploy(NAME, trained.artefact.read_bytes())
    rows = [b"which goalie won the stanley cup", b"", b"\xff\xfe", b"12 3 !", "Österreich fährt".encode()]
    _, tensors = binary_response(server.infer(NAME, rows))
    wanted = [b"", b"no words in the text", b"not a text in UTF-8: byte 0", b"no words in the text", b""]
    assert tensors["error"] == wanted
    assert json.loads(tensors["output"][0])["top5"][0]["label"] == "rec.sport.hockey"


def test_it_is_trained_on_a_users_texts_too(tmp_path: Path) -> None:
    data = tmp_path / "set.csv"
    data.write_text("input,label\n" + "".join(f"the cat purrs {i},cat\nthe dog barks {i},dog\n" for i in range(50)))
    trained = train_model(registry()[NAME], tmp_path, dataset=Dataset.open(data))
    assert (trained.metrics["labels"], trained.metrics["held_out"]) == (2, 20)
    assert trained.metrics["accuracy"] == 1.0
    runner = load_and_check(registry()[NAME], trained.artefact)
    assert json.loads(runner.answer(b"a cat that purrs"))["top5"][0]["label"] == "cat"
    with pytest.raises(RowError):
        runner.answer(b"7")


def test_one_label_is_no_task(tmp_path: Path) -> None:
    data = tmp_path / "set.csv"
    data.write_text("input,label\na cat,cat\na lion,cat\n")
    with pytest.raises(ValueError, match="at least two labels"):
        train_model(registry()[NAME], tmp_path, dataset=Dataset.open(data))
