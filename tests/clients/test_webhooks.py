"""The reference library of the Standard Webhooks specification verifies what a cluster sends when a job ends."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from gateway import wait_until
from standardwebhooks import Webhook, WebhookVerificationError


@pytest.fixture
def receiver():
    """A server that keeps the headers and bodies of requests."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            requests.append((dict(self.headers), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, requests
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_end_of_a_job_is_told_and_its_signature_verified(openai_cluster, receiver, tmp_path):
    port, requests = receiver
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"input": text}) + "\n" for text in ["a", "b c"]))
    openai_cluster.idunno("put", str(path), "texts.jsonl")
    openai_cluster.idunno("add-job", "vectors", "--dataset", "texts.jsonl", "--name", "told")
    url = f"http://127.0.0.1:{port}/ended"
    openai_cluster.idunno("start-job", "told", "--on-end", url, "--wait")
    wait_until(lambda: requests, 60, "the end is told")

    headers, body = requests[0]
    # The library looks for names in small letters.
    headers = {name.lower(): value for name, value in headers.items()}
    secret = ["--secret", str(openai_cluster.secret)]
    (key,) = openai_cluster.idunno("key", "webhook", *secret).split()
    event = Webhook(key).verify(body, headers)
    assert event["type"] == "job.done"
    assert (event["data"]["name"], event["data"]["done"]) == ("told", 2)
    changed = body.replace(b'"done":2', b'"done":3')
    assert changed != body
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(key).verify(changed, headers)
    other = "whsec_" + "A" * 43 + "="
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(other).verify(body, headers)

    def is_over():
        (job,) = json.loads(openai_cluster.idunno("get-job-stats", "told", "-o", "json"))["items"]
        return not job["webhook"]["due"]

    wait_until(is_over, 60, "the cluster knows that it was told")
    assert len({sent["webhook-id"] for sent, _ in requests}) == 1
