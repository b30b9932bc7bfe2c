"""A small server of OpenAI's API, for tests: it repeats what it is told, after a while, and prints its port first..

It injects what a model does not do on demand: `refuse` as a text is answered with 400, `tools` with a call and no text.
"""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DELAY_S = 0.05


def chat(body):
    text = body["messages"][-1]["content"]
    if text == "refuse":
        return 400, {"error": {"message": "it is not taken", "type": "invalid_request_error"}}
    message = {"role": "assistant", "content": text.upper()}
    if text == "tools":
        call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if text == "tools" else "stop"}
    usage = {"prompt_tokens": len(text), "completion_tokens": len(text), "total_tokens": 2 * len(text)}
    reply = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"], "usage": usage}
    return 200, {**reply, "choices": [choice] * body.get("n", 1)}


def embeddings(body):
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [{"object": "embedding", "index": at, "embedding": [len(text), 0.5]} for at, text in enumerate(texts)]
    return 200, {
        "object": "list",
        "data": data,
        "model": body["model"],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }


ANSWERS = {"/v1/chat/completions": chat, "/v1/embeddings": embeddings}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(body.get("delay_s", DELAY_S))
        status, reply = ANSWERS[self.path](body)
        content = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # Every member has its own connections, many at a time.
    request_queue_size = 1_024


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
