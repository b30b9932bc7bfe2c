"""The unmodified openai package against a gateway: files, batches and models by another base_url and api_key."""

import asyncio
import json

import openai
import pytest
from gateway import wait_until
from openai_cluster import CHAT, EMBEDDINGS, finished, jsonl, line, rows, start, told, upload


@pytest.mark.calls("models.list", "models.retrieve")
def test_the_models_are_the_clusters(client):
    assert {"echo", "vectors"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("echo").object == "model"
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.models.retrieve("nobody")


@pytest.mark.calls("errors")
def test_errors_have_the_shape_that_the_package_reads(client, openai_cluster, client_of_openai):
    with pytest.raises(openai.AuthenticationError) as refused:
        client_of_openai("nobody").models.list()
    assert refused.value.code == "invalid_api_key"
    assert refused.value.type == "authentication_error"
    assert refused.value.request_id.startswith("req_")
    key = openai_cluster.key("mallory", "operator")
    with pytest.raises(openai.AuthenticationError, match="secret"):
        client_of_openai(f"{key.id}:{'0' * 40}").models.list()
    viewer = client_of_openai(openai_cluster.key("viewer", "viewer").bearer)
    assert viewer.models.list().data
    with pytest.raises(openai.PermissionDeniedError):
        upload(viewer, [told("a", "x")])
    with pytest.raises(openai.NotFoundError, match="Unknown request URL"):
        client.moderations.create(input="x")
    with pytest.raises(openai.APIStatusError) as refused:
        client.models.delete("echo")
    assert refused.value.status_code == 405
    with pytest.raises(openai.NotFoundError, match="batch_nothing"):
        client.batches.retrieve("batch_nothing")


@pytest.mark.calls("files.create", "files.retrieve", "files.content", "files.delete", "files.wait_for_processing")
def test_a_file_comes_back_as_it_was_sent(client, tmp_path):
    content = jsonl([told("a", "é" * 1_000)]) * 500
    path = tmp_path / "ümläut 1.jsonl"
    path.write_bytes(content)
    expires = {"anchor": "created_at", "seconds": 7_200}
    with path.open("rb") as source:
        file = client.files.create(file=source, purpose="batch", expires_after=expires)
    assert (file.object, file.purpose, file.bytes, file.filename) == ("file", "batch", len(content), path.name)
    assert file.expires_at == file.created_at + 7_200
    assert client.files.wait_for_processing(file.id).status == "processed"
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == content
    with client.files.with_streaming_response.content(file.id) as response:
        assert b"".join(response.iter_bytes()) == content
    deleted = client.files.delete(file.id)
    assert (deleted.id, deleted.deleted) == (file.id, True)
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match=file.id):
            call(file.id)


@pytest.mark.calls("files.create")
def test_a_file_that_cannot_be_a_batch_is_refused(client):
    def refused(name="a.jsonl", content=b"{}\n", purpose="batch", **more):
        with pytest.raises(openai.BadRequestError) as wrong:
            client.files.create(file=(name, content), purpose=purpose, **more)
        return wrong.value.param

    assert refused(name="a.json") == "file"
    assert refused(content=b"") == "file"
    assert refused(purpose="fine-tune") == "purpose"
    assert refused(expires_after={"anchor": "created_at", "seconds": 60}) == "expires_after"
    with pytest.raises(openai.APIStatusError) as wrong:
        client.files.create(file=("a.jsonl", bytes((200 << 20) + 1)), purpose="batch")
    assert wrong.value.status_code == 413


@pytest.mark.calls("files.list")
def test_files_are_listed_in_pages_and_belong_to_their_key(openai_cluster, client_of_openai):
    anna, ben = (client_of_openai(openai_cluster.key(name, "submitter").bearer) for name in ("anna", "ben"))
    made = [upload(anna, [told("a", str(number))]).id for number in range(5)]
    assert [file.id for file in anna.files.list(limit=2)] == made[::-1]
    assert [file.id for file in anna.files.list(limit=2, order="asc")] == made
    first = anna.files.list(limit=3, purpose="batch")
    assert ([file.id for file in first.data], first.has_more) == (made[:1:-1], True)
    assert [file.id for file in anna.files.list(after=made[2])] == made[1::-1]
    assert list(anna.files.list(purpose="fine-tune")) == []
    assert list(ben.files.list()) == []
    with pytest.raises(openai.NotFoundError):
        ben.files.retrieve(made[0])
    stored = openai_cluster.files("users/anna/openai/")
    assert len([name for name in stored if name.startswith("users/anna/openai/files/file-")]) == 5


@pytest.mark.calls("batches.create", "batches.retrieve", "files.content", "files.retrieve", "files.delete")
def test_a_batch_is_answered_line_by_line(client):
    lines = [told(f"line {number}", f"text {number}", n=2) for number in range(40)]
    lines += [told("refused", "refuse"), told("tools", "tools")]
    batch = start(client, lines, metadata={"run": "1"})
    assert (batch.object, batch.endpoint, batch.metadata) == ("batch", CHAT, {"run": "1"})
    assert batch.status in ("validating", "in_progress", "finalizing", "completed")
    done = finished(client, batch)
    assert (done.status, done.model, done.errors) == ("completed", "echo", None)
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (42, 41, 1)
    assert done.created_at <= done.in_progress_at + 1 <= done.completed_at + 2
    answers, errors = rows(client, done.output_file_id), rows(client, done.error_file_id)
    assert set(answers) == {line["custom_id"] for line in lines} - {"refused"}
    answer = answers["line 7"]
    assert answer["error"] is None
    assert answer["response"]["status_code"] == 200
    reply = openai.types.chat.ChatCompletion.model_validate(answer["response"]["body"])
    assert [choice.message.content for choice in reply.choices] == ["TEXT 7"] * 2
    # The server's own name of the model, and what a text alone would have lost.
    assert (reply.model, reply.usage.total_tokens) == ("echo-1", 12)
    tools = answers["tools"]["response"]["body"]["choices"][0]
    assert tools["message"]["tool_calls"][0]["function"]["name"] == "look"
    refused = errors["refused"]["response"]
    assert (refused["status_code"], refused["body"]["error"]["message"]) == (400, "it is not taken")
    assert len({row["id"] for row in [*answers.values(), *errors.values()]}) == 42
    shown = client.files.retrieve(done.output_file_id)
    content = client.files.content(done.output_file_id).read()
    assert (shown.purpose, shown.bytes, shown.status) == ("batch_output", len(content), "processed")
    assert client.files.content(done.output_file_id).read() == content
    assert client.files.delete(done.output_file_id).deleted
    assert client.batches.retrieve(batch.id).output_file_id is None
    with pytest.raises(openai.NotFoundError):
        client.files.content(done.output_file_id)


@pytest.mark.calls("batches.create")
def test_a_batch_of_which_all_lines_fail_is_completed_without_an_output(client):
    done = finished(client, start(client, [told(str(number), "refuse") for number in range(3)]))
    assert (done.status, done.output_file_id, done.request_counts.failed) == ("completed", None, 3)
    assert set(rows(client, done.error_file_id)) == {"0", "1", "2"}


@pytest.mark.calls("batches.create")
def test_lines_that_are_wrong_fail_the_batch_before_it_runs(client):
    good = told("same", "x")
    lines = [good, {**good, "custom_id": "other", "url": EMBEDDINGS}, good, told("b", "x", model="vectors")]
    failed = finished(client, start(client, lines))
    assert (failed.status, failed.output_file_id) == ("failed", None)
    found = [(error.line, error.code, error.param) for error in failed.errors.data]
    assert found == [
        (2, "invalid_url", "url"),
        (3, "duplicate_custom_id", "custom_id"),
        (4, "mismatched_model", "body.model"),
    ]
    assert failed.failed_at >= failed.created_at
    many = client.files.create(file=("a.jsonl", b"{\n" * 250), purpose="batch")
    more = {"endpoint": CHAT, "completion_window": "24h"}
    errors = finished(client, client.batches.create(input_file_id=many.id, **more)).errors.data
    assert [error.line for error in errors] == list(range(1, 101))
    lines = [told(str(number), "x") for number in range(50_001)]
    (error,) = finished(client, start(client, lines)).errors.data
    assert error.code == "too_many_requests"
    (error,) = finished(client, start(client, [told("a", "x", model="vectors")])).errors.data
    assert error.code == "model_not_supported"


@pytest.mark.calls("batches.create")
def test_a_request_that_cannot_be_a_batch_is_refused(client):
    file = upload(client, [told("a", "x")]).id
    good = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}

    def refused(**more):
        with pytest.raises(openai.BadRequestError) as wrong:
            client.batches.create(**{**good, **more})
        return wrong.value.param

    assert refused(endpoint="/v1/images/generations") == "endpoint"
    assert refused(completion_window="1h") == "completion_window"
    assert refused(metadata={str(number): "" for number in range(17)}) == "metadata"
    with pytest.raises(openai.NotFoundError, match="No such File"):
        client.batches.create(**{**good, "input_file_id": file[:-1] + ("1" if file[-1] == "0" else "0")})


@pytest.mark.calls("batches.create")
def test_a_batch_that_is_created_again_is_the_first_one(client, openai_cluster, client_of_openai):
    file = upload(client, [told("a", "x")]).id
    same = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", "metadata": {"a": "b"}}
    first = client.batches.create(**same)
    process, port = openai_cluster.run_gateway("--listen", "127.0.0.1:0")
    try:
        # Another gateway, which knows nothing of it.
        other = client.with_options(base_url=f"http://127.0.0.1:{port}/v1")
        assert other.batches.create(**same).id == first.id
        assert other.batches.retrieve(first.id).metadata == {"a": "b"}
    finally:
        process.terminate()
        process.wait(timeout=40)
    assert client.batches.create(**{**same, "metadata": {"a": "c"}}).id != first.id
    finished(client, first)
    assert client.batches.create(**same).id == first.id


@pytest.mark.calls("batches.list")
def test_batches_are_listed_in_pages(openai_cluster, client_of_openai):
    client = client_of_openai(openai_cluster.key("lister", "submitter").bearer)
    made = [start(client, [told("a", str(number))]).id for number in range(5)]
    assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1]
    page = client.batches.list(limit=2, after=made[3])
    assert ([batch.id for batch in page.data], page.has_more) == ([made[2], made[1]], True)
    with pytest.raises(openai.BadRequestError):
        client.batches.list(limit=101)


@pytest.mark.calls("batches.cancel")
def test_a_cancelled_batch_keeps_what_was_answered(client):
    # More than is in flight at once, and slow enough to be met in the middle.
    batch = start(client, [told(str(number), "x", delay_s=1) for number in range(3_000)])
    wait_until(lambda: client.batches.retrieve(batch.id).request_counts.completed > 0, 120, "some are answered")
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    done = finished(client, batch)
    assert done.status == "cancelled"
    assert done.cancelled_at >= done.cancelling_at >= done.created_at
    answers = rows(client, done.output_file_id)
    assert 0 < len(answers) == done.request_counts.completed < 3_000
    with pytest.raises(openai.BadRequestError, match="over"):
        client.batches.cancel(batch.id)


@pytest.mark.calls("batches.create")
def test_embeddings_of_a_server_and_of_a_model_of_the_clusters_own(client):
    done = finished(client, start(client, [line("a", EMBEDDINGS, input=["x", "yy"])], EMBEDDINGS))
    body = rows(client, done.output_file_id)["a"]["response"]["body"]
    assert [item["embedding"] for item in body["data"]] == [[1, 0.5], [2, 0.5]]
    lines = [line(f"é{number}", EMBEDDINGS, model="vectors", input="é " * number) for number in range(1, 300)]
    done = finished(client, start(client, lines, EMBEDDINGS))
    assert (done.status, done.request_counts.completed) == ("completed", 299)
    found = rows(client, done.output_file_id)
    reply = openai.types.CreateEmbeddingResponse.model_validate(found["é7"]["response"]["body"])
    assert (reply.model, reply.data[0].embedding) == ("vectors", [14.0, 7.0])


@pytest.mark.calls("AsyncOpenAI")
def test_the_asynchronous_client_works_alike(client, key_of_openai, openai_cluster):
    async def run():
        base_url = f"{openai_cluster.endpoint}/v1"
        async with openai.AsyncOpenAI(base_url=base_url, api_key=key_of_openai.bearer) as asynchronous:
            file = await asynchronous.files.create(file=("a.jsonl", jsonl([told("a", "x")])), purpose="batch")
            batch = await asynchronous.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
            newest = await asynchronous.batches.list(limit=1)
            return batch.id, newest.data[0].id

    created, listed = asyncio.run(run())
    assert created == listed
    assert finished(client, client.batches.retrieve(created)).status == "completed"


@pytest.mark.calls("with_raw_response")
def test_a_response_has_an_id(client):
    response = client.batches.with_raw_response.list(limit=1)
    assert response.headers["x-request-id"].startswith("req_")
    assert json.loads(response.text)["object"] == "list"
