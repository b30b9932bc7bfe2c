"""What docs/examples shows is run as it is written, by programs that find the cluster as a user's would."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import client_of

EXAMPLES = Path(__file__).resolve().parents[2] / "docs/examples"


@pytest.fixture(scope="module")
def environment(openai_cluster, key_of_openai, tmp_path_factory):
    """The environment that the examples' documents ask for."""
    identity = tmp_path_factory.mktemp("identity") / "nightly.pem"
    openai_cluster.idunno(
        *("identity", "create", "nightly", "--role", "submitter", "--prefix", "nightly"),
        *("--secret", str(openai_cluster.secret), "--out", str(identity)),
    )
    record = json.loads((openai_cluster.directory / "cluster.json").read_text())
    members = [process["address"] for process in record["processes"] if process["name"] != "introducer"]
    return {
        "PATH": f"{openai_cluster.programs}:{os.environ['PATH']}",
        "HOME": os.environ["HOME"],
        "IDUNNO_CLUSTER": ",".join(members),
        "IDUNNO_IDENTITY": str(identity),
        "OPENAI_BASE_URL": f"{openai_cluster.endpoint}/v1",
        "OPENAI_API_KEY": key_of_openai.bearer,
        **key_of_openai.environment,
        "AWS_ENDPOINT_URL": openai_cluster.endpoint,
    }


def run(environment, name, *arguments, check=True):
    """Runs an example, and answers how it ended."""
    program = [sys.executable] if name.endswith(".py") else ["bash"]
    done = subprocess.run(
        [*program, EXAMPLES / name, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=180
    )
    if check:
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    return done


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_batch_answers_its_questions_in_their_order(environment, tmp_path):
    questions, answers = tmp_path / "questions.txt", tmp_path / "answers.jsonl"
    asked = [f"question {number}?" for number in range(40)]
    questions.write_text("\n".join(asked) + "\n")
    done = run(environment, "openai_batch.py", "echo", questions, answers)
    assert done.stdout == "40 of 40 questions answered, 0 failed\n"
    found = rows_of(answers)
    assert [row["question"] for row in found] == asked
    assert [row["answer"] for row in found] == [question.upper() for question in asked]


def test_objects_of_a_bucket_become_rows_in_it(environment, openai_cluster, key_of_openai):
    s3 = client_of(openai_cluster, key_of_openai)
    s3.create_bucket(Bucket="example-texts")
    for number in range(12):
        s3.upload_fileobj(io.BytesIO(b"a " * number), "example-texts", f"in/{number:02}.txt")
    operator = {**environment, "IDUNNO_IDENTITY": str(identity_of_operator(openai_cluster))}
    done = run(operator, "s3_in_and_out.py", "vectors", "example-texts", "in", "out/rows.jsonl")
    assert done.stdout == "12 of 12 objects answered, 0 failed: s3://example-texts/out/rows.jsonl\n"
    body = s3.get_object(Bucket="example-texts", Key="out/rows.jsonl")["Body"].read().decode()
    rows = [json.loads(line) for line in body.splitlines()]
    assert sorted(row["output"] for row in rows) == [[2.0 * number, float(number)] for number in range(12)]
    none = run(operator, "s3_in_and_out.py", "vectors", "example-texts", "nothing", "out/rows.jsonl", check=False)
    assert none.returncode == 1
    assert "there is no object nothing/" in none.stderr


def identity_of_operator(cluster):
    path = cluster.directory / "operator.pem"
    cluster.idunno(
        *("identity", "create", "ann", "--role", "operator", "--secret", str(cluster.secret)),
        *("--out", str(path)),
    )
    return path


def test_each_night_answers_what_is_new_and_loses_nothing(environment, tmp_path):
    incoming, state = tmp_path / "incoming", tmp_path / "state"
    (incoming / "deep er").mkdir(parents=True)
    texts = {"one.txt": "a", "deep er/ü two.txt": "b c", ".partial": "not yet"}
    for name, text in texts.items():
        (incoming / name).write_text(text)

    def night(model="vectors", **more):
        return run(environment, "nightly_incremental.sh", model, incoming, state, **more)

    # A run that fails marks nothing as done.
    assert night("no-such-model", check=False).returncode != 0
    assert not list((state / "rows").iterdir())
    assert "2 new files answered by job-" in night().stdout
    (first,) = (state / "rows").iterdir()
    assert sorted(row["output"] for row in rows_of(first)) == [[1.0, 0.0], [3.0, 1.0]]
    assert night().stdout == f"nothing new in {incoming}\n"
    (incoming / "three.txt").write_text("d e f")
    assert "1 new files answered by job-" in night().stdout
    (second,) = set((state / "rows").iterdir()) - {first}
    assert [row["output"] for row in rows_of(second)] == [[5.0, 2.0]]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_nights_units_are_what_systemd_accepts(tmp_path):
    for kind in ("service", "timer"):
        text = (EXAMPLES / f"idunno-nightly.{kind}").read_text()
        # It looks for the program, too, which is not installed here.
        text = text.replace("/usr/local/bin/nightly_incremental.sh", "/bin/true")
        (tmp_path / f"idunno-nightly.{kind}").write_text(text)
    units = [str(path) for path in tmp_path.iterdir()]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    # The exposure of the other units is limited likewise, by .ci/run.
    service = str(tmp_path / "idunno-nightly.service")
    security = ["systemd-analyze", "security", "--offline=true", "--threshold=20", service]
    assert subprocess.run(security, capture_output=True, timeout=60).returncode == 0
