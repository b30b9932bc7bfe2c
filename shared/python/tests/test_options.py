"""The options of a job: as a type that functions pass on, and a URL that is told how the job ends."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue
from typing import Any, Unpack, get_type_hints

import idunno
import models
import pytest
from idunno._core import JobOptions

WITHIN_S = 60


@pytest.fixture(scope="module", autouse=True)
def _shipped(cluster: idunno.LocalCluster) -> None:
    cluster.connect().add_model(models.slow)


@pytest.fixture
def told() -> Iterator[tuple[str, Queue[dict[str, Any]]]]:
    """The URL of a server, and what it is told."""
    bodies: Queue[dict[str, Any]] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["webhook-signature"].startswith("v1,")
            bodies.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: the tests say what came."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/ended", bodies
        server.shutdown()
        thread.join()


def run_slowly(client: idunno.Client, texts: list[str], **options: Unpack[idunno.RunOptions]) -> idunno.Job:
    """A function of a program that passes options on."""
    return client.run("slow", texts, **options)


def test_a_url_is_told_how_a_job_ends(client: idunno.Client, told: tuple[str, Queue[dict[str, Any]]]) -> None:
    url, bodies = told
    job = run_slowly(client, ["a", "b", "c"], name="told-of-its-end", on_end=url)
    event = bodies.get(timeout=WITHIN_S)
    assert event["type"] == "job.done"
    assert (event["data"]["job"], event["data"]["name"]) == (job.id, "told-of-its-end")
    assert (event["data"]["queries"], event["data"]["done"], event["data"]["dead"]) == (3, 3, 0)
    webhook = job.stats["webhook"]
    assert webhook is not None
    assert webhook["url"] == url

    cancelled = run_slowly(client, ["text"] * 2000, batch_size=4, on_end=url)
    cancelled.cancel()
    event = bodies.get(timeout=WITHIN_S)
    assert (event["type"], event["data"]["job"]) == ("job.cancelled", cancelled.id)


def test_a_job_without_a_url_has_no_webhook(client: idunno.Client) -> None:
    job = run_slowly(client, ["a"])
    assert job.wait(timeout=WITHIN_S)["webhook"] is None


def test_options_are_passed_on_and_none_is_as_if_left_out(client: idunno.Client) -> None:
    given: idunno.RunOptions = {
        "name": "passed-on",
        "batch_size": 2,
        "weight": 3,
        "limit": 4,
        "on_end": None,
        "after": None,
        "keep": None,
    }
    job = run_slowly(client, ["a", "b", "c", "d", "e"], **given)
    stats = job.wait(timeout=WITHIN_S)
    assert (stats["name"], stats["batch_size"], stats["weight"], stats["done"]) == ("passed-on", 2, 3, 4)
    after = run_slowly(client, ["a"], after=job)
    assert after.wait(timeout=WITHIN_S)["done"] == 1


def test_an_option_that_does_not_exist_is_refused_before_anything_is_stored(client: idunno.Client) -> None:
    jobs = len(client.jobs())
    with pytest.raises(TypeError, match="unexpected keyword argument 'patience'"):
        run_slowly(client, ["a"], patience=2)  # type: ignore[call-arg]
    with pytest.raises(idunno.UsageError):
        run_slowly(client, ["a"], on_end="ftp://127.0.0.1/")
    assert len(client.jobs()) == jobs
    assert client.ls("inputs/") == []


def test_the_type_has_the_options_that_are_passed_on() -> None:
    assert set(get_type_hints(idunno.RunOptions)) == {field.name for field in dataclasses.fields(JobOptions)}
