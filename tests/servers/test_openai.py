"""A package for a server that speaks OpenAI's API, unchanged: llama.cpp's, with a language model that can answer."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cluster import LocalCluster, Process, until
from ports import free_port

HERE = Path(__file__).resolve().parent
ROWS = 40
JOB_S = 900
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["good", "bad"]}},
    "required": ["label"],
    "additionalProperties": False,
}


class Llama:
    """The server, on a port that stays the same over restarts."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.start()

    def start(self):
        words = [os.environ["IDUNNO_LLAMA_PYTHON"], HERE / "llama_server.py", self.port]
        self.process = Process(words, self.folder)
        until("llama.cpp is ready", self.is_ready, 120)

    def is_ready(self):
        assert self.process.is_alive(), self.process.log.read_text()[-2_000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def kill(self):
        self.process.kill()


@pytest.fixture
def llama(tmp_path):
    llama = Llama(tmp_path / "llama")
    yield llama
    llama.kill()


@pytest.fixture
def cluster(tmp_path):
    cluster = LocalCluster(tmp_path / "cluster", members=2)
    yield cluster
    cluster.stop()


def added(cluster, folder, name, settings, files=()):
    """Adds a package."""
    package = folder / name
    package.mkdir()
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    (package / "model.toml").write_text(f"[openai]\n{table}\n")
    for file, content in files:
        (package / file).write_text(content)
    cluster.run("model", "add", package)


def test_reviews_are_labelled_although_the_server_is_killed(llama, cluster, tmp_path):
    """A JSON schema is kept, a prompt that is too long fails its row alone, and no row is lost with the server."""
    settings = {
        "url": llama.url,
        "model": "smollm2",
        "prompt": "Is this review good or bad? {text}",
        "max_tokens": 32,
        "schema": "answer.json",
        "in_flight": 4,
        "canary": json.dumps({"text": "lovely"}),
    }
    added(cluster, tmp_path, "labels", settings, [("answer.json", json.dumps(SCHEMA))])
    reviews = [{"id": number, "text": f"I {'love' if number % 2 else 'hate'} film {number}"} for number in range(ROWS)]
    reviews[7]["text"] = "word " * 2_000
    del reviews[8]["text"]
    path = tmp_path / "reviews.jsonl"
    path.write_text("".join(json.dumps(review) + "\n" for review in reviews))
    cluster.run("put", path, path.name)
    job = cluster.run("add-job", "labels", "--dataset", path.name, "--batch-size", 4)["job"]
    cluster.run("start-job", job)
    until("some are answered", lambda: cluster.stats(job)["done"] >= 4, JOB_S)
    llama.kill()
    llama.start()
    until("the job is done", lambda: cluster.stats(job)["state"] == "done", JOB_S)
    rows, errors = cluster.rows(job)
    assert set(errors) == {7, 8}
    assert "context" in errors[7]
    assert errors[8] == "the row has no field 'text'; it has id"
    assert set(rows) == set(range(ROWS)) - {7, 8}
    assert all(row["json"]["label"] in ("good", "bad") and row["usage"]["total_tokens"] > 0 for row in rows.values())


def test_it_answers_what_it_knows(llama, cluster, tmp_path):
    settings = {"url": llama.url, "model": "smollm2", "system": "Answer in one word.", "max_tokens": 16}
    added(cluster, tmp_path, "capitals", settings)
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps("What is the capital of France?") + "\n")
    cluster.run("put", path, path.name)
    job = cluster.run("add-job", "capitals", "--dataset", path.name)["job"]
    cluster.run("start-job", job, "--wait", timeout_s=JOB_S)
    rows, errors = cluster.rows(job)
    assert not errors
    assert "Paris" in rows[0]["text"]
    assert rows[0]["finish_reason"] == "stop"
