"""What the server costs beside the model, by batch size: `python -m idunno_model_server.bench_batches`.

Answers short texts with newsgroups-linear: in this process, by the code that the server calls, and through a server
with one thread, over one connection with binary tensors, as a member does. It counts processor time, so that other
work on the machine changes little: rows per second of one core, of the bare model and of the server, and their ratio.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .bytes_tensor import join_rows
from .errors import MissingPackageError
from .execution import open_model
from .models import registry
from .open_inference import HEADER_LENGTH, INPUT
from .os_process import one_thread_per_library
from .package_data import NEWSGROUPS_TEST, newsgroups_posts
from .statistics import InferTimes
from .training_result import train_model

MODEL = "newsgroups-linear"
VERSION = "0" * 8
SIZES = (1, 4, 16, 32, 64, 128, 256, 512, 1024)
TEXTS = 20_480
WORDS = 12
START_S_MAX = 60

Answer = Callable[[list[bytes]], None]


@dataclass(frozen=True)
class Rates:
    """Rows per second of processor time."""

    batch_size: int
    bare_rows_s: float
    server_rows_s: float

    def as_json(self) -> dict[str, float]:
        ratio = round(self.server_rows_s / self.bare_rows_s, 3)
        bare_rows_s, server_rows_s = round(self.bare_rows_s), round(self.server_rows_s)
        return {
            "batch_size": self.batch_size,
            "bare_rows_s": bare_rows_s,
            "server_rows_s": server_rows_s,
            "ratio": ratio,
        }


def short_texts(count: int) -> list[bytes]:
    """Runs of WORDS words from posts that the model was not trained on."""
    words = [word for post in newsgroups_posts(NEWSGROUPS_TEST) for word in post.content.split()]
    return [b" ".join(words[start : start + WORDS]) for start in range(0, count * WORDS, WORDS)]


def rows_s(answer: Answer, texts: list[bytes], size: int, cpu_s: Callable[[], float], seconds: float) -> float:
    """Answers batches until they have taken `seconds`, as `cpu_s` counts them."""
    batches = itertools.cycle([texts[start : start + size] for start in range(0, len(texts), size)])
    answer(next(batches))
    rows = 0
    start_s = cpu_s()
    while (used_s := cpu_s() - start_s) < seconds:
        answer(next(batches))
        rows += size
    return rows / used_s


class ServerClient:
    """A server process and one connection to it."""

    def __init__(self, pid: int, port: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S_MAX)

    def cpu_s(self) -> float:
        """The processor time of the server so far."""
        fields = self._stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def call(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {content.decode(errors='replace')}")
        return content

    def answer(self, texts: list[bytes]) -> None:
        data = join_rows(texts)
        tensor: dict[str, object] = {"name": INPUT, "datatype": "BYTES", "shape": [len(texts)]}
        tensor["parameters"] = {"binary_data_size": len(data)}
        header = json.dumps({"parameters": {"binary_data_output": True}, "inputs": [tensor]}).encode()
        self.call("POST", f"/v2/models/{MODEL}/infer", header + data, {HEADER_LENGTH: str(len(header))})


@contextmanager
def running_server(folder: Path, artefact: Path) -> Iterator[ServerClient]:
    """A server with one thread and the model loaded."""
    port_file = folder / "port"
    command = [sys.executable, "-m", "idunno_model_server", "--port", "0", "--port-file", str(port_file)]
    command += ["--work-dir", str(folder / "work"), "--models-dir", str(folder / "models"), "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - this package's own program
    try:
        end_s = time.monotonic() + START_S_MAX
        while not port_file.exists():
            if process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError("the server did not start")
            time.sleep(0.01)
        client = ServerClient(process.pid, int(port_file.read_text()))
        client.call("PUT", f"/idunno/models/{MODEL}/artefacts/{VERSION}", artefact.read_bytes(), {})
        client.call("POST", f"/v2/repository/models/{MODEL}/load", b"{}", {})
        yield client
    finally:
        process.terminate()
        process.wait()


def measure(sizes: tuple[int, ...], seconds: float) -> Iterator[Rates]:
    model = registry()[MODEL]
    texts = short_texts(TEXTS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artefact = train_model(model, folder).artefact
        execution = open_model(model, artefact)

        def answer(rows: list[bytes]) -> None:
            execution.answer(rows, InferTimes())

        with running_server(folder, artefact) as client:
            for size in sizes:
                bare = rows_s(answer, texts, size, time.process_time, seconds)
                yield Rates(size, bare, rows_s(client.answer, texts, size, client.cpu_s, seconds))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m idunno_model_server.bench_batches", description="Measure the server beside the bare model."
    )
    parser.add_argument("--batch-size", type=int, choices=SIZES, help="measure this one only")
    parser.add_argument("--seconds", type=float, default=2.0, help="processor time for each figure")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    one_thread_per_library()
    sizes = SIZES if arguments.batch_size is None else (arguments.batch_size,)
    found = []
    try:
        for rates in measure(sizes, arguments.seconds):
            found.append(rates.as_json())
            if not arguments.json:
                line = (
                    "{batch_size:5} rows: bare {bare_rows_s:6} rows/s, server {server_rows_s:6} rows/s, ratio {ratio}"
                )
                print(line.format(**found[-1]))
    except MissingPackageError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({"model": MODEL, "rates": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
