"""Jobs: what they run over, and what comes back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import idunno
import models
import pytest

# What other tools break: a line separator of Unicode, a quote, a backslash, the largest integer that the model server
# writes. (Ids are not the model's, and may have any size.)
VALUES: list[dict[str, Any]] = [
    {},
    {"text": "grüße\u2028\n\"'\\\t\x7f"},
    {"big": 2**63 - 1, "float": 0.1, "small": 5e-324, "no": None, "yes": True},
    {"nested": [[[{"a": [1, [2, [3]]]}]]], "empty": ""},
    {"emoji": "🦀", "zero": -0.0},
]


@pytest.fixture(scope="module", autouse=True)
def _shipped(cluster: idunno.LocalCluster) -> None:
    client = cluster.connect()
    for model in (models.echo, models.hexadecimal, models.slow, models.even):
        client.add_model(model)


def answers(job: idunno.Job) -> list[Any]:
    """The outputs in the order of the inputs, each query once."""
    rows = sorted(job.results(), key=lambda row: row["query"])
    assert [row["query"] for row in rows] == list(range(len(rows)))
    return [row.get("output", row.get("error")) for row in rows]


def test_values_come_back_exactly(client: idunno.Client) -> None:
    job = client.run(models.echo, VALUES)
    assert answers(job) == VALUES
    assert job.stats["done"] == len(VALUES)
    assert job.wait(timeout=10)["state"] == "done"


def test_ids_and_labels_come_back_exactly(client: idunno.Client) -> None:
    records = [{"input": {"n": 1}, "id": 123456789012345678901234567890, "label": 1.25}, {"input": {}, "id": "\u2028"}]
    rows = sorted(client.run("echo", records).results(), key=lambda row: row["query"])
    assert [(row["id"], row.get("label"), row["output"]) for row in rows] == [
        (123456789012345678901234567890, 1.25, {"n": 1}),
        ("\u2028", None, {}),
    ]


def test_bytes_come_back_exactly(client: idunno.Client) -> None:
    inputs = [bytes(range(256)), b"", b"\n\r\n", b"\xff\xfe"]
    assert answers(client.run("hexadecimal", inputs)) == [content.hex() for content in inputs]


def test_texts_get_a_newsgroup(client: idunno.Client) -> None:
    texts = ["the goalie saved the puck in overtime", "the orbit of the shuttle and the moon"]
    job = client.run("newsgroups-linear", iter(texts), params={"labels": 1})
    labels = [output["top5"][0]["label"] for output in answers(job)]
    assert labels == ["rec.sport.hockey", "sci.space"]


def test_photos_are_paths_bytes_or_a_folder(client: idunno.Client, digits: Path) -> None:
    paths = sorted(digits.glob("*/*.png")) or sorted(digits.glob("*.png"))
    by_path = answers(client.run("mnist-mlp", paths))
    by_bytes = answers(client.run("mnist-mlp", [path.read_bytes() for path in paths], batch_size=7))
    assert len(by_path) == len(paths) == 60
    assert by_path == by_bytes
    folder = client.run("mnist-mlp", digits, name="digits-in-a-folder")
    assert folder.wait()["labelled"] == 60
    assert len(answers(folder)) == 60


def test_a_stored_data_set_is_named_by_a_text(client: idunno.Client, tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("text,city\nthe puck,Bern\nthe orbit,Kiel\n")
    job = client.run("newsgroups-linear", path, dataset="kept/reviews", input_column="text", keep=["city"])
    assert [row["fields"] for row in job.results()] == [{"city": "Bern"}, {"city": "Kiel"}]
    again = client.run("newsgroups-linear", "kept/reviews.csv", input_column="text", limit=1)
    assert len(answers(again)) == 1
    assert [file["name"] for file in client.ls("kept/")] == ["kept/reviews.csv"]


def test_inputs_are_kept_no_longer_than_the_job_needs_them(client: idunno.Client) -> None:
    before = client.ls("inputs/")
    job = client.run("even", [1, 2, 3, 4])
    assert client.ls("inputs/") == before
    assert answers(job) == ["ValueError: 1 is odd", 1, "ValueError: 3 is odd", 2]
    # The inputs of failed queries are still there: they can be run again.
    assert job.retry(0) == 1
    assert job.wait(timeout=60)["dead_letters"] == 2
    letters = job.dead_letters()
    assert [(letter["query"], letter["error"]) for letter in letters] == [
        (0, "ValueError: 1 is odd"),
        (2, "ValueError: 3 is odd"),
    ]
    assert [row["query"] for row in job.results(failed=True)] == [0, 2]


def test_rows_come_before_the_job_has_ended(client: idunno.Client) -> None:
    texts = [f"text {number}" for number in range(120)]
    job = client.run("slow", texts, batch_size=4)
    rows = job.results()
    first = next(rows)
    state = job.stats
    assert state["state"] == "running"
    assert state["done"] < len(texts)
    found = [first, *rows]
    assert sorted(row["query"] for row in found) == list(range(len(texts)))
    assert all(row["output"] == texts[row["query"]] for row in found)


def test_a_job_is_steered_and_attached_to(client: idunno.Client) -> None:
    job = client.run("slow", [str(number) for number in range(400)], batch_size=4, name="steered")
    assert client.job("steered").id == job.id
    assert client.job(job.id).name == "steered"
    with pytest.raises(idunno.TimeoutError, match=rf"of 400 queries of {job.id} are done, and it goes on"):
        job.wait(timeout=0.5)
    job.stop()
    with pytest.raises(idunno.PartialError, match="is stopped"):
        job.wait()
    assert "stopped" in job.explain()["summary"]
    job.start()
    assert job.stats["state"] == "running"
    job.cancel()
    with pytest.raises(idunno.PartialError, match="is cancelled"):
        list(job.results())
    assert job.id in [stats["job"] for stats in client.jobs()]
    job.delete()
    with pytest.raises(idunno.NotFoundError):
        client.job("steered")


def test_what_is_no_data_is_refused_before_anything_is_added(client: idunno.Client) -> None:
    jobs = len(client.jobs())
    for wrong, kind, words in [
        ({"a": 1}, TypeError, "cannot run a job over a dict"),
        (b"bytes", TypeError, "cannot run a job over a bytes"),
        ([], ValueError, "there are no inputs"),
        ([{"a": object()}], TypeError, "input 0 is no JSON"),
        ([1, float("nan")], ValueError, "input 1 is no JSON"),
        ([b"a", "b"], TypeError, "input 1 is a str"),
    ]:
        with pytest.raises(kind, match=words):
            client.run("echo", wrong)
    with pytest.raises(idunno.NotFoundError, match="no-such-model") as raised:
        client.run("no-such-model", ["a"])
    assert raised.value.code == 3
    assert len(client.jobs()) == jobs
    assert client.ls("inputs/") == []


def test_a_submitter_runs_jobs_below_its_own_folder(cluster: idunno.LocalCluster, tmp_path: Path) -> None:
    assert cluster.dir is not None
    identity = tmp_path / "anna.pem"
    words = ["identity", "create", "anna", "--role", "submitter", "--secret", str(cluster.dir / "secret.pem")]
    subprocess.run([sys.executable, "-m", "idunno", *words, "--out", str(identity)], check=True, capture_output=True)
    client = idunno.connect(dir=cluster.dir, identity=identity)
    job = client.run("even", [2, 4], dataset="users/anna/kept")
    assert answers(job) == [1, 2]
    assert job.stats["owner"] == "anna"
    assert answers(client.run("even", [6])) == [3]
    assert [file["name"] for file in client.ls("users/anna/")] == ["users/anna/kept.jsonl"]
    with pytest.raises(idunno.RefusedError, match="users/anna"):
        client.put(b"", "elsewhere")
