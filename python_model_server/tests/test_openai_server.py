"""The runtime `openai`: prompts, requests, replies, whose fault a failure is, and the pace of calls."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from idunno_model_server.errors import ModelFileError, RowError
from idunno_model_server.models.batch_model import SetupContext
from idunno_model_server.runtimes.openai_server import OpenAiServer, made_endpoint, openai_model
from idunno_model_server.runtimes.openai_server.client import Server, ServerDownError, ServerSettingsError, read_headers
from idunno_model_server.runtimes.openai_server.pace import Pace
from idunno_model_server.runtimes.openai_server.template import Row, Template

Answer = Callable[[str, dict[str, Any], int], tuple[int, Any, dict[str, str]]]
"""Takes the path, the body and the number of the call; returns status, reply and headers."""


class FakeServer:
    """Injects faults. That replies are read right is shown with llama.cpp's own server, in tests/servers."""

    def __init__(self, answer: Answer) -> None:
        fake = self
        self.calls: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.active = self.most_active = 0
        self.lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                is_json = self.headers["Content-Type"] == "application/json"
                body = json.loads(content) if is_json else {"bytes": content}
                with fake.lock:
                    fake.calls.append((self.path, body, dict(self.headers)))
                    number = len(fake.calls)
                    fake.active += 1
                    fake.most_active = max(fake.most_active, fake.active)
                try:
                    status, reply, headers = answer(self.path, body, number)
                finally:
                    with fake.lock:
                        fake.active -= 1
                content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], FakeServer]]:
    started: list[FakeServer] = []

    def start(answer: Answer) -> FakeServer:
        started.append(FakeServer(answer))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def said(text: str | None, finish: str = "stop") -> dict[str, Any]:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    return {"model": "m-1", "choices": [{"message": {"content": text}, "finish_reason": finish}], "usage": usage}


def echo(_: str, body: dict[str, Any], __: int) -> tuple[int, Any, dict[str, str]]:
    return 200, said(body["messages"][-1]["content"].upper()), {}


def model(server: FakeServer, folder: Path, row_timeout_s: float = 5.0, **settings: Any) -> OpenAiServer:
    own = {"url": server.url, "model": "m", "max_tokens": 5, **settings}
    made = openai_model("mine", folder, "model.toml", {"openai": own, "row_timeout_s": row_timeout_s})
    instance = made.model
    assert isinstance(instance, OpenAiServer)
    instance.setup(SetupContext(folder, folder, "cpu"))
    return instance


def texts(answers: list[Any]) -> list[Any]:
    return [str(answer) if isinstance(answer, RowError) else answer.get("text", answer) for answer in answers]


def test_prompts_have_places_for_fields_and_are_filled_once() -> None:
    row = Row(b'{"name": "{other}", "stars": 5, "input": "x"}')
    assert Template("{{a}} {name}: {stars} {input}").fill(row) == "{a} {other}: 5 x"
    assert Template("<{input}>").fill(Row("é {x}".encode())) == "<é {x}>"
    assert Template("{input}").fill(Row(b'{"a": 1}')) == '{"a": 1}'
    with pytest.raises(RowError, match="no field 'city'; it has name, stars, input"):
        Template("{city}").fill(row)
    with pytest.raises(RowError, match="it is no JSON object"):
        Template("{city}").fill(Row(b"text"))
    with pytest.raises(RowError, match="byte 0 is not UTF-8"):
        Row(b"\xff")
    for wrong in ("{", "{}", "{a.b}", "{a!r}", "{a:5}", "{a[0]}"):
        with pytest.raises(ModelFileError):
            Template(wrong)


def test_rows_are_answered_many_at_a_time_and_in_order(serve: Any, tmp_path: Path) -> None:
    gate = threading.Barrier(4, timeout=5)

    def answer(path: str, body: dict[str, Any], number: int) -> tuple[int, Any, dict[str, str]]:
        gate.wait()
        return echo(path, body, number)

    server = serve(answer)
    answers = model(server, tmp_path, system="Be short.", prompt="Say {input}", extra={"seed": 7}).predict(
        [b"a", b"b", b"c", b"d"]
    )
    assert texts(answers) == ["SAY A", "SAY B", "SAY C", "SAY D"]
    assert answers[0]["usage"]["total_tokens"] == 4
    assert (answers[0]["finish_reason"], answers[0]["model"]) == ("stop", "m-1")
    path, body, _ = server.calls[0]
    assert path == "/v1/chat/completions"
    assert body["messages"][0] == {"role": "system", "content": "Be short."}
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("m", 5, 0, 7)


def test_a_row_that_is_a_body_is_passed_on(serve: Any, tmp_path: Path) -> None:
    server = serve(lambda *_: (200, said("yes"), {}))
    row = {"messages": [{"role": "user", "content": "hi"}], "top_p": 0.5}
    assert texts(model(server, tmp_path).predict([json.dumps(row).encode()])) == ["yes"]
    assert server.calls[0][1] == {"model": "m", **row}


def test_a_line_of_a_batch_says_what_it_is_sent_to_and_gets_the_whole_reply(serve: Any, tmp_path: Path) -> None:
    reply = {"object": "list", "data": [], "model": "m-1"}
    server = serve(lambda path, *_: (200, reply if path == "/v1/embeddings" else said(None), {}))
    made = model(server, tmp_path, extra={"seed": 7}, prompt="Say {input}")

    def line(url: str, **body: Any) -> bytes:
        return json.dumps({"custom_id": "a", "method": "POST", "url": url, "body": body}).encode()

    embed = line("/v1/embeddings", model="mine", input=["x", "y"]).replace(b"custom_id", b"custom\\u005fid")
    chat = line("/v1/chat/completions", model="mine", messages=[], n=2)
    other = line("/v1/files", model="mine")
    answers = made.predict([embed, chat, other])
    # A reply without a text is no failure: it may have tools to call.
    assert answers[:2] == [reply, said(None)]
    assert str(answers[2]) == "the answer is empty (finish_reason 'stop')"
    # An endpoint that takes many rows a call gets them one by one.
    assert model(server, tmp_path, endpoint="embeddings", max_tokens=None).predict([embed, embed]) == [reply, reply]
    sent = {path: body for path, body, _ in server.calls if "Say" not in str(body)}
    assert sent["/v1/embeddings"] == {"model": "m", "input": ["x", "y"]}
    assert sent["/v1/chat/completions"] == {"model": "m", "messages": [], "n": 2, "seed": 7}


def test_an_image_is_a_data_url(serve: Any, tmp_path: Path) -> None:
    server = serve(lambda *_: (200, said("a cat"), {}))
    image = b"\xff\xd8\xff\xe0rest"
    assert texts(model(server, tmp_path, prompt="What is it? {input}").predict([image])) == ["a cat"]
    text, url = server.calls[0][1]["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is it? "}
    assert url["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")


def test_a_row_at_fault_fails_alone_with_the_servers_words(serve: Any, tmp_path: Path) -> None:
    def answer(path: str, body: dict[str, Any], number: int) -> tuple[int, Any, dict[str, str]]:
        if body["messages"][-1]["content"] == "long":
            return 400, {"error": {"code": 400, "message": "the request exceeds the\ncontext size"}}, {}
        return echo(path, body, number)

    answers = model(serve(answer), tmp_path).predict([b"a", b"long", b"b", b"\xff"])
    assert texts(answers)[0::2] == ["A", "B"]
    assert texts(answers)[1] == "the server answered 400: the request exceeds the context size"
    assert "not UTF-8" in texts(answers)[3]


def test_with_a_schema_an_answer_is_json_and_whole(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "answer.json").write_text('{"type": "object"}')
    replies = {
        "good": said('{"label": "good"}'),
        "cut": said('{"lab', "length"),
        "none": said("good!"),
        "no": said(None),
    }

    def answer(_: str, body: dict[str, Any], __: int) -> tuple[int, Any, dict[str, str]]:
        return 200, replies[body["messages"][-1]["content"]], {}

    server = serve(answer)
    answers = model(server, tmp_path, schema="answer.json").predict([b"good", b"cut", b"none", b"no"])
    assert answers[0]["json"] == {"label": "good"}
    assert texts(answers)[1] == "the answer was cut at max_tokens = 5"
    assert all("the answer is no JSON" in text for text in texts(answers)[2:])
    form = server.calls[0][1]["response_format"]
    assert form["json_schema"] == {"name": "answer", "strict": True, "schema": {"type": "object"}}
    empty = model(server, tmp_path).predict([b"no"])
    assert texts(empty) == ["the answer is empty (finish_reason 'stop')"]


def test_a_busy_server_is_asked_again_and_no_row_fails(serve: Any, tmp_path: Path) -> None:
    def answer(path: str, body: dict[str, Any], number: int) -> tuple[int, Any, dict[str, str]]:
        if number <= 3:
            return (429, 503, 500)[number - 1], {"detail": "slow down"}, {"Retry-After": "0.05"}
        return echo(path, body, number)

    server = serve(answer)
    assert texts(model(server, tmp_path, in_flight=1).predict([b"a", b"b"])) == ["A", "B"]


def test_a_server_that_breaks_off_is_asked_again(serve: Any, tmp_path: Path) -> None:
    def answer(path: str, body: dict[str, Any], number: int) -> tuple[int, Any, dict[str, str]]:
        return (200, b"<html>", {}) if number == 1 else echo(path, body, number)

    assert texts(model(serve(answer), tmp_path).predict([b"a"])) == ["A"]


@pytest.mark.parametrize(
    ("status", "reply"),
    [(401, {"error": {"message": "bad token"}}), (404, {"message": "no model"}), (302, {}), (501, {}), (424, {})],
)
def test_settings_are_blamed_at_once(serve: Any, tmp_path: Path, status: int, reply: Any) -> None:
    server = serve(lambda *_: (status, reply, {}))
    with pytest.raises(ServerSettingsError, match=f"answered {status}"):
        model(server, tmp_path).predict([b"a"])
    assert len(server.calls) == 1, "it is not repeated"


def test_a_used_up_quota_is_no_reason_to_wait(serve: Any, tmp_path: Path) -> None:
    quota = {"error": {"code": "insufficient_quota", "message": "pay first"}}
    with pytest.raises(ServerSettingsError, match="pay first"):
        model(serve(lambda *_: (429, quota, {})), tmp_path).predict([b"a"])


def test_an_error_of_the_server_is_the_rows_if_others_are_answered(serve: Any, tmp_path: Path) -> None:
    def answer(path: str, body: dict[str, Any], number: int) -> tuple[int, Any, dict[str, str]]:
        if body["messages"][-1]["content"] == "image":
            return 500, {"error": {"message": "images are not supported"}}, {"Retry-After": "0"}
        return echo(path, body, number)

    answers = model(serve(answer), tmp_path, canary="hello").predict([b"a", b"image"])
    assert texts(answers) == ["A", "the server answered 500: images are not supported"]
    down = serve(lambda *_: (500, {"error": "broken"}, {"Retry-After": "0"}))
    with pytest.raises(ServerDownError, match="the canary fails, too"):
        model(down, tmp_path, canary="hello").predict([b"a"])


def test_no_server_fails_the_batch_and_what_was_answered_is_not_asked_again(serve: Any, tmp_path: Path) -> None:
    is_down = threading.Event()
    is_down.set()

    def answer(path: str, body: dict[str, Any], number: int) -> tuple[int, Any, dict[str, str]]:
        if body["messages"][-1]["content"] == "b" and is_down.is_set():
            return 503, {"error": "loading"}, {"Retry-After": "0.05"}
        return echo(path, body, number)

    server = serve(answer)
    made = model(server, tmp_path, row_timeout_s=1.0)
    with pytest.raises(ServerDownError, match="no answer within 1 s: 503: loading"):
        made.predict([b"a", b"b"])
    is_down.clear()
    asked = len(server.calls)
    assert texts(made.predict([b"a", b"b"])) == ["A", "B"]
    assert [body["messages"][-1]["content"] for _, body, _ in server.calls[asked:]] == ["b"]


def test_embeddings_are_asked_for_together_and_ordered_by_index(serve: Any, tmp_path: Path) -> None:
    def answer(path: str, body: dict[str, Any], _: int) -> tuple[int, Any, dict[str, str]]:
        assert path == "/v1/embeddings"
        if len(body["input"]) > 1 and "long" in body["input"]:
            return 413, {"error": "too many"}, {}
        if body["input"] == ["long"]:
            return 422, {"error": "too long"}, {}
        data = [{"index": index, "embedding": [len(text)]} for index, text in enumerate(body["input"])]
        return 200, {"data": data[::-1]}, {}

    server = serve(answer)
    made = model(server, tmp_path, endpoint="embeddings")
    assert made.predict([b"a", b"bb", b"ccc"]) == [[1], [2], [3]]
    assert len(server.calls) == 1
    assert texts([made.predict([b"a", b"long", b"ccc"])[1]]) == ["the server answered 422: too long"]
    short = serve(lambda *_: (200, {"data": []}, {}))
    with pytest.raises(ServerDownError, match="not one embedding for each of 1 rows"):
        model(short, tmp_path, endpoint="embeddings").predict([b"a"])


def test_other_endpoints_have_their_own_bodies(serve: Any, tmp_path: Path) -> None:
    def answer(path: str, body: dict[str, Any], _: int) -> tuple[int, Any, dict[str, str]]:
        if path == "/v1/rerank":
            return 200, {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]}, {}
        if path == "/v1/audio/transcriptions":
            assert b'name="file"' in body["bytes"]
            assert b"RIFF\x00sound" in body["bytes"]
            return 200, {"text": "go forward"}, {}
        if path == "/v1/completions":
            return 200, {"choices": [{"text": body["prompt"] + "!", "finish_reason": "length"}]}, {}
        output = [{"content": [{"type": "output_text", "text": body["input"]}]}]
        return 200, {"status": "completed", "output": output}, {}

    server = serve(answer)
    rerank = model(server, tmp_path, endpoint="rerank")
    row = json.dumps({"query": "q", "documents": ["a", "b"]}).encode()
    assert rerank.predict([row])[0] == {"scores": [0.1, 0.9]}
    assert "is no object" in texts(rerank.predict([b"text"]))[0]
    assert texts(model(server, tmp_path, endpoint="transcriptions").predict([b"RIFF\x00sound"])) == ["go forward"]
    assert texts(model(server, tmp_path, endpoint="completions").predict([b"a"])) == ["a!"]
    assert texts(model(server, tmp_path, endpoint="responses").predict([b"a"])) == ["a"]


def test_what_cannot_be_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    good = {"url": "http://127.0.0.1:1/v1", "model": "m", "max_tokens": 5}
    made_endpoint(good, tmp_path)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"max_tokens": None}, "max_tokens is missing"),
        ({"max_tokens": 0}, "no number of tokens"),
        ({"endpoint": "images"}, "not among chat"),
        ({"extra": {"stream": True}}, "extra.stream"),
        ({"schema": "gone.json"}, "gone.json"),
        ({"token": "secret"}, "no key 'token'"),
        ({"model": None}, "model is missing"),
        ({"prompt": "{"}, "no template"),
    ]
    for change, words in changes:
        with pytest.raises(ModelFileError, match=words):
            made_endpoint({**good, **change}, tmp_path)


def test_a_token_is_read_here_and_never_sent_in_the_clear(serve: Any, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    server = serve(echo)
    model(server, tmp_path, token_file=str(token)).predict([b"a"])
    assert server.calls[0][2]["Authorization"] == "Bearer secret"
    headers = read_headers(str(token), {})
    with pytest.raises(ModelFileError, match="only to https"):
        Server("http://192.0.2.1/v1", headers)
    for url in ("ftp://a", "http://", "http://user@127.0.0.1/v1", "127.0.0.1"):
        with pytest.raises(ModelFileError, match="not one of a server"):
            Server(url, {})
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_headers(str(tmp_path / "gone"), {})


def test_the_pace_grows_while_all_goes_well_and_halves_when_the_server_is_busy() -> None:
    now = [0.0]
    pace = Pace(20, lambda: now[0])
    assert pace.limit == 16
    for _ in range(16):
        pace.went_well()
    assert pace.limit == 17
    pace.busy(0.0)
    pace.busy(0.0)
    assert pace.limit == 8, "once for a burst"
    now[0] = 2.0
    pace.busy(3.0)
    assert pace.limit == 4
    with pace.turn(now[0]) as came:
        assert not came, "it waits as long as the server said"
    now[0] = 5.0
    with pace.turn(6.0) as came:
        assert came


def test_no_more_calls_are_made_than_may_be(serve: Any, tmp_path: Path) -> None:
    def answer(path: str, body: dict[str, Any], number: int) -> tuple[int, Any, dict[str, str]]:
        time.sleep(0.01)
        return echo(path, body, number)

    server = serve(answer)
    model(server, tmp_path, in_flight=3).predict([str(number).encode() for number in range(30)])
    assert server.most_active <= 3
