"""Jobs on model servers that others wrote, unchanged: rows, bad rows, and a server that is killed in the middle."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cluster import Cluster, Process, until
from ports import free_port

HERE = Path(__file__).resolve().parent
PROGRAMS = Path(os.environ["IDUNNO_PROGRAMS"])
MEMBERS = 3
ROWS = 10_000
BAD = 20
JOB_S = 900


def triton(port):
    return [os.environ["IDUNNO_TRITON_PYTHON"], HERE / "triton_models.py", port]


def mlserver(port):
    # It is a program beside the interpreter.
    program = Path(os.environ["IDUNNO_MLSERVER_PYTHON"]).with_name("mlserver")
    return [program, "start", HERE / "mlserver_models"], {
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_GRPC_PORT": str(port + 1),
        "MLSERVER_METRICS_PORT": str(port + 2),
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_PARALLEL_WORKERS": "0",
    }


class Server:
    """A model server on a port of this machine."""

    def __init__(self, kind, folder):
        self.kind, self.folder, self.port = kind, folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self, *models):
        found = {"triton": triton, "mlserver": mlserver}[self.kind](self.port)
        words, settings = found if isinstance(found, tuple) else (found, {})
        self.process = Process(words, self.folder / self.kind, env={**os.environ, **settings})
        for model in models:
            until(f"{self.kind} serves {model}", lambda model=model: self.serves(model), 120)

    def serves(self, model):
        assert self.process.is_alive(), self.process.log.read_text()[-2_000:]
        try:
            with urllib.request.urlopen(f"{self.url}/v2/models/{model}/ready", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def kill(self):
        self.process.kill()


@pytest.fixture(params=["triton", "mlserver"])
def server(request, tmp_path):
    server = Server(request.param, tmp_path)
    server.start("upper")
    yield server
    server.kill()


@pytest.fixture
def cluster(server, tmp_path):
    cluster = Cluster(PROGRAMS, tmp_path, MEMBERS, server.url)
    yield cluster
    cluster.stop()


def put_rows(cluster, folder, rows):
    """Puts a file of records; returns its name in the store."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cluster.run("put", path, path.name)
    return path.name


def run_job(cluster, model, dataset, midway=None):
    """Trains and runs; returns the rows and the reasons of the failed ones, by query."""
    until("members with a model server", lambda: all_ready(cluster))
    cluster.run("train-start", model, "--wait")
    job = cluster.run("add-job", model, "--dataset", dataset)["job"]
    cluster.run("start-job", job)
    if midway:
        until("a tenth is done", lambda: cluster.stats(job)["done"] > ROWS / 10, JOB_S)
        midway()
    until("the job is done", lambda: cluster.stats(job)["state"] == "done", JOB_S)
    return cluster.rows(job)


def all_ready(cluster):
    servers = cluster.run("status")["model_servers"]
    return len(servers) == MEMBERS and all(server["state"] == "ready" for server in servers)


def test_texts_are_answered_although_the_server_is_killed(server, cluster, tmp_path):
    """Bad rows fail alone, and no good row fails for them or for the death of the server."""
    bad = {number * (ROWS // BAD) for number in range(BAD)}
    texts = [f"{'bad' if number in bad else 'row'} {number} é" for number in range(ROWS)]

    def restart():
        server.kill()
        server.start("upper")

    answers, errors = run_job(cluster, "upper", put_rows(cluster, tmp_path, texts), restart)
    assert answers == {number: texts[number].upper() for number in range(ROWS) if number not in bad}
    assert set(errors) == bad
    assert all(reason.startswith("the model server answered") for reason in errors.values()), errors


def test_numbers_have_the_shape_that_the_model_declares(server, cluster, tmp_path):
    """Rows of other shapes are refused before they are sent, with the reason."""
    if server.kind == "mlserver":
        pytest.skip("the model of numbers is Triton's")
    rows = [{"input": [number, number / 2, 1]} for number in range(1_000)]
    rows[7], rows[8], rows[9] = {"input": [1, 2]}, {"input": "three"}, {"input": [-1, 0, 0]}
    answers, errors = run_job(cluster, "total", put_rows(cluster, tmp_path, rows))
    assert answers == {n: n * 1.5 + 1 for n in range(1_000) if n not in (7, 8, 9)}
    assert errors[7] == "the input is of shape [2], and the model takes FP32 of shape [3]"
    assert errors[8].startswith("the input is not JSON")
    assert errors[9].startswith("the model server answered 500: ")


def test_a_part_first(server, cluster, tmp_path):
    """`explain` says what the job waits for when the server is gone."""
    dataset = put_rows(cluster, tmp_path, [f"row {number}" for number in range(100)])
    until("members with a model server", lambda: all_ready(cluster))
    cluster.run("train-start", "upper", "--wait")
    job = cluster.run("add-job", "upper", "--dataset", dataset)["job"]
    server.kill()
    until("the members know", lambda: not all_ready(cluster))
    cluster.run("start-job", job)
    until("the reason is named", lambda: "model server is down" in json.dumps(cluster.run("explain", job)))
    server.start("upper")
    until("the job is done", lambda: cluster.stats(job)["state"] == "done", JOB_S)
