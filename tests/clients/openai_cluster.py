"""What the tests with the openai package share: a cluster with model servers, models, files and batches."""

import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from gateway import wait_until

HERE = Path(__file__).resolve().parent
CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
BATCH_S = 300
VECTORS = """
from idunno_model_server.api import BatchModel

class Vectors(BatchModel):
    name, description = "vectors", "the length of a text, and how many spaces it has"
    def predict(self, inputs):
        return [[float(len(row.decode())), float(row.count(b" "))] for row in inputs]
    def canary(self):
        return b"a text"
"""


def start_server():
    """Starts a server that repeats what it is told; answers process and port."""
    process = subprocess.Popen([sys.executable, HERE / "openai_server.py"], stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def start_llama(python):
    """Starts llama.cpp's own server with a small language model; answers process and port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [python, HERE.parent / "servers" / "llama_server.py", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def is_ready():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return True
        except OSError:
            return False

    wait_until(is_ready, 120, "llama.cpp is ready")
    return process, port


def add_server(cluster, directory, name, port, **settings):
    """Adds a model that stands for a server."""
    package = directory / name
    package.mkdir()
    settings = {"url": f"http://127.0.0.1:{port}/v1", "model": f"{name}-1", "max_tokens": 64, **settings}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (package / "model.toml").write_text("[openai]\n" + "\n".join(lines) + "\n")
    cluster.idunno("model", "add", str(package))


def add_vectors(cluster, directory):
    """Adds a model of the cluster's own that answers numbers."""
    path = directory / "vectors.py"
    path.write_text(VECTORS)
    cluster.idunno("model", "add", str(path))


def line(custom_id, url=CHAT, **body):
    """A line of a batch's file."""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "echo", **body}}


def told(custom_id, text, **more):
    """A line that tells the model something."""
    return line(custom_id, messages=[{"role": "user", "content": text}], **more)


def jsonl(lines):
    """Lines as the bytes of a file."""
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def upload(client, lines, **more):
    return client.files.create(file=("lines.jsonl", jsonl(lines)), purpose="batch", **more)


def start(client, lines, url=CHAT, **more):
    """Uploads lines and creates a batch of them."""
    file = upload(client, lines)
    return client.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h", **more)


def finished(client, batch, timeout_s=BATCH_S):
    """The batch once it is over."""
    found = []

    def is_over():
        found[:] = [client.batches.retrieve(batch.id)]
        return found[0].status in ("completed", "failed", "cancelled", "expired")

    wait_until(is_over, timeout_s, f"{batch.id} is over: {found}")
    return found[0]


def rows(client, file_id):
    """The lines of a file of results by custom_id: each once."""
    if file_id is None:
        return {}
    lines = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    by_id = {line["custom_id"]: line for line in lines}
    assert len(by_id) == len(lines)
    return by_id
