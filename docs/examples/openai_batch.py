#!/usr/bin/env python3
"""Answers a file of questions as a batch: openai_batch.py MODEL QUESTIONS ANSWERS

QUESTIONS has a question a line. ANSWERS gets a JSON object a line, in the order of the questions. A program for the API
of OpenAI needs no other change than these two variables: OPENAI_BASE_URL, the address of the gateway with /v1, and
OPENAI_API_KEY, an access key of the cluster as ID:SECRET.
"""

import json
import sys
import time
from pathlib import Path

from openai import OpenAI

PERIOD_S = 1
OVER = ("completed", "failed", "cancelled", "expired")


def request(model: str, number: int, question: str) -> dict:
    """A line of the batch: its custom_id is the question's number."""
    body = {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": question}]}
    return {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}


def outcomes(client: OpenAI, file_id: str | None) -> list[dict]:
    """The lines of a file of results, if there is one."""
    return [json.loads(line) for line in client.files.content(file_id).iter_lines()] if file_id else []


def main(model: str, questions: str, answers: str) -> None:
    asked = Path(questions).read_text(encoding="utf-8").splitlines()
    lines = [json.dumps(request(model, number, question)) for number, question in enumerate(asked)]
    client = OpenAI()
    file = client.files.create(file=("questions.jsonl", "\n".join(lines).encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"source": questions}
    )
    print(f"{batch.id}: it survives the end of this program", file=sys.stderr)
    while batch.status not in OVER:
        time.sleep(PERIOD_S)
        batch = client.batches.retrieve(batch.id)
    if batch.status != "completed":
        sys.exit(f"{batch.id} is {batch.status}: {batch.errors}")

    found: dict[int, dict] = {}
    for line in outcomes(client, batch.output_file_id):
        answer = line["response"]["body"]["choices"][0]["message"]["content"]
        found[int(line["custom_id"])] = {"answer": answer}
    for line in outcomes(client, batch.error_file_id):
        found[int(line["custom_id"])] = {"error": line["error"] or line["response"]["body"]}
    with Path(answers).open("w", encoding="utf-8") as target:
        for number, question in enumerate(asked):
            target.write(json.dumps({"question": question, **found[number]}) + "\n")
    counts = batch.request_counts
    print(f"{counts.completed} of {counts.total} questions answered, {counts.failed} failed")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
