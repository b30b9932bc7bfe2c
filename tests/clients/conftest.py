"""One cluster for all tests, and the table of what each client can do."""

import importlib
import json
import os
import random
import shutil
from collections import defaultdict
from pathlib import Path

import boto3
import openai_cluster as openai_tests
import pytest
from botocore.config import Config
from gateway import Cluster

OPERATIONS = ["put", "get", "list", "range", "multipart", "copy", "delete", "sync twice", "conditional", "metadata"]
_table: dict[str, dict[str, str]] = defaultdict(dict)
_calls: dict[str, str] = {}


def pytest_configure(config):
    config.addinivalue_line("markers", "does(client, *operations): which operations of a client a test shows")
    config.addinivalue_line("markers", "calls(*names): which calls of the openai package a test exercises")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.when != "call" and report.passed:
        return
    for calls in item.iter_markers("calls"):
        for call in calls.args:
            outcome = "FAILED" if report.failed else "skipped" if report.skipped else "ok"
            _calls[call] = outcome if outcome == "FAILED" or call not in _calls else _calls[call]
    marker = item.get_closest_marker("does")
    if marker is None:
        return
    client, *operations = marker.args
    for operation in operations:
        if report.skipped:
            _table[client].setdefault(operation, "skipped")
        elif report.failed or _table[client].get(operation) == "FAILED":
            _table[client][operation] = "FAILED"
        else:
            _table[client][operation] = "ok"


def pytest_terminal_summary(terminalreporter):
    if _calls:
        terminalreporter.section("calls of the openai package")
        width = max(map(len, _calls))
        for call in sorted(_calls):
            terminalreporter.write_line(f"{call:{width}} {_calls[call]}")
    # The rows of another environment's run come before.
    kept = Path(os.environ.get("IDUNNO_CLIENTS_TABLE") or os.devnull)
    text = kept.read_text() if kept.is_file() else ""
    table = {**(json.loads(text) if text else {}), **_table}
    if kept.is_file():
        kept.write_text(json.dumps(table))
    clients = sorted(table)
    if not clients:
        return
    operations = OPERATIONS + sorted({name for row in table.values() for name in row} - set(OPERATIONS))
    width = max(len(operation) for operation in operations)
    columns = [max(len(client), 7) for client in clients]
    terminalreporter.section("operation by client")
    heading = " ".join(client.ljust(column) for client, column in zip(clients, columns, strict=True))
    terminalreporter.write_line(f"{'':{width}} {heading}")
    for operation in operations:
        cells = (
            table[client].get(operation, "-").ljust(column) for client, column in zip(clients, columns, strict=True)
        )
        terminalreporter.write_line(f"{operation:{width}} {' '.join(cells)}")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A cluster of five members with a gateway."""
    directory = tmp_path_factory.mktemp("cluster")
    directory.chmod(0o700)
    running = Cluster(Path(os.environ["IDUNNO_PROGRAMS"]), directory)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def openai_cluster(tmp_path_factory):
    """A cluster with model servers and a gateway. `echo` is a server of OpenAI's API, `vectors` a model of ours."""
    directory = tmp_path_factory.mktemp("openai")
    directory.chmod(0o700)
    python = Path(os.environ["IDUNNO_TEST_PYTHON"])
    running = Cluster(Path(os.environ["IDUNNO_PROGRAMS"]), directory / "cluster", model_server_python=python)
    running.directory.mkdir(mode=0o700)
    server, port = openai_tests.start_server()
    try:
        running.start()
        openai_tests.add_server(running, directory, "echo", port)
        openai_tests.add_vectors(running, directory)
        yield running
    finally:
        running.stop()
        server.kill()
        server.wait(timeout=30)


@pytest.fixture(scope="session")
def key_of_openai(openai_cluster):
    """An operator's key."""
    return openai_cluster.key("tester")


@pytest.fixture(scope="session")
def client_of_openai(openai_cluster):
    """Makes clients of the openai package, given a bearer."""
    # Not in the environment of s3fs.
    openai = importlib.import_module("openai")
    return lambda bearer: openai.OpenAI(base_url=f"{openai_cluster.endpoint}/v1", api_key=bearer)


@pytest.fixture(scope="session")
def client(client_of_openai, key_of_openai):
    """A client of the openai package, with an operator's key."""
    return client_of_openai(key_of_openai.bearer)


@pytest.fixture(scope="session")
def key(cluster):
    """An operator's key."""
    return cluster.key("tester")


@pytest.fixture(scope="session")
def environment(cluster, key):
    """The environment of programs: of the caller only what finds programs."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, **key.environment, "AWS_ENDPOINT_URL": cluster.endpoint}


def client_of(cluster, key, **more):
    """A client of boto3."""
    return client_at(cluster.endpoint, key, **more)


def client_at(endpoint, key, **more):
    """The same, of a server with this URL."""
    more.setdefault("retries", {"mode": "standard", "max_attempts": 8})
    config = Config(s3={"addressing_style": "path"}, **more)
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=key.id,
        aws_secret_access_key=key.secret,
        region_name="us-east-1",
        config=config,
    )


@pytest.fixture(scope="session")
def s3(cluster, key):
    """A client of boto3, with an operator's key."""
    return client_of(cluster, key)


@pytest.fixture
def bucket(s3, request):
    """A new bucket."""
    name = request.node.name.lower().replace("_", "-").replace("[", "-").replace("]", "")[:50].strip("-")
    name = f"{name}-{random.randrange(1 << 32):08x}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def tree(tmp_path):
    """A local folder of small files and one of 20 MB."""
    root = tmp_path / "tree"
    content = random.Random(7)
    names = ["a.txt", "b/c.bin", "b/d/e.txt", "b/ümläut.txt", "with space.txt", "plus+and&.txt", "empty"]
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty" else content.randbytes(1_000 * (number + 1)))
    (root / "large.bin").write_bytes(content.randbytes(20_000_000))
    yield root
    shutil.rmtree(root, ignore_errors=True)


def contents(root: Path) -> dict[str, bytes]:
    """The files of a folder by their names."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
