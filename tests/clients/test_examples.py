"""What docs/examples shows is run as it is written, by programs that find the cluster as a user's would."""

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import nbformat
import pandas
import pytest
from conftest import client_of
from gateway import Cluster
from nbclient import NotebookClient

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


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The folder of the models' data with the weights of all-minilm-l6-v2, which are fetched unless they are there."""
    python = os.environ["IDUNNO_TEST_PYTHON"]
    program = "from idunno_model_server.data_lock import data_directory; print(data_directory())"
    found = Path(subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip())
    if (found / "all-minilm-l6-v2.safetensors").is_file():
        return found
    folder = tmp_path_factory.mktemp("data")
    words = [python, "-m", "idunno_model_server.fetch_data", folder, "--optional", "--quiet", "--from", found]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        pytest.skip(f"the weights cannot be fetched: {done.stderr}")
    return folder


@pytest.fixture(scope="module")
def python_environment(weights, tmp_path_factory):
    """A cluster with trained models, and the environment in which programs find it with the Python client."""
    if importlib.util.find_spec("idunno") is None:
        pytest.skip("the Python client's wheel is not installed")
    directory = tmp_path_factory.mktemp("python")
    directory.chmod(0o700)
    python = Path(os.environ["IDUNNO_TEST_PYTHON"])
    cluster = Cluster(Path(os.environ["IDUNNO_PROGRAMS"]), directory / "cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IDUNNO_MODEL_DATA", str(weights))
        try:
            words = ("--members", "3", "--threads", "1", "--model-server-python", str(python))
            cluster.idunno("local", "up", *words)
            cluster.idunno("train-start", "squeezenet1.1", "newsgroups-linear", "all-minilm-l6-v2", "--wait")
            record = json.loads((cluster.directory / "cluster.json").read_text())
            members = [process["address"] for process in record["processes"] if process["name"] != "introducer"]
            yield {
                "PATH": os.environ["PATH"],
                "HOME": str(directory),
                "IDUNNO_CLUSTER": ",".join(members),
                "IDUNNO_IDENTITY": str(identity_of_operator(cluster)),
            }
        finally:
            cluster.stop()


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


def test_images_of_a_folder_become_a_table_of_labels(python_environment, tmp_path):
    photos, table = tmp_path / "photos", tmp_path / "labels.parquet"
    python = os.environ["IDUNNO_TEST_PYTHON"]
    words = [python, "-m", "idunno_model_server.make_dataset", "photos", photos, "--images", "40"]
    subprocess.run(words, check=True, capture_output=True)
    (photos / "zz not an image.jpg").write_bytes(b"no image")
    done = run(python_environment, "label_images.py", "squeezenet1.1", photos, table)
    assert done.stdout == f"40 of 41 images labelled, 1 failed: {table}\n"
    # As other programs read it.
    found = duckdb.execute("SELECT file, label, probability, error FROM read_parquet(?)", [str(table)]).fetchall()
    files = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg"))
    assert [row[0] for row in found] == files
    *labelled, broken = found
    assert all(label and 0 < probability <= 1 and error is None for _, label, probability, error in labelled)
    assert len({row[1] for row in labelled}) > 5
    assert broken[:3] == ("zz not an image.jpg", None, None)
    assert broken[3]


def test_the_notebook_labels_reviews_and_shows_them(python_environment, monkeypatch):
    reviews = int(os.environ.get("IDUNNO_EXAMPLES_REVIEWS", "2000"))
    for name, value in {**python_environment, "REVIEWS": str(reviews)}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(EXAMPLES / "reviews.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "what was run elsewhere is not committed"
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()

    shown = [cell.outputs[-1].data for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    members, first, ended, labelled, table = shown
    assert all("<table" in frame["text/html"] for frame in (members, first, labelled, table))
    assert ended["text/plain"].startswith(f"'{reviews} reviews, 0 without an answer")
    # The classes that the model knows, each for what the review is about.
    (counts,) = pandas.read_html(io.StringIO(table["text/html"]), index_col=0, header=0)
    counts = counts.drop(index="about").astype(int)
    assert counts.to_numpy().sum() == reviews
    right = {
        "car": "rec.autos",
        "motorcycle": "rec.motorcycles",
        "hockey": "rec.sport.hockey",
        "space": "sci.space",
    }
    assert all(counts.loc[topic].idxmax() == label for topic, label in right.items()), counts


TEXTS = {
    "The cat sleeps on the warm sofa.": "animals",
    "A puppy chases its tail in the garden.": "animals",
    "The parliament passed the new tax law.": "politics",
    "Voters elect a president every four years.": "politics",
    "Simmer the tomatoes with garlic and basil.": "food",
    "Knead the dough, and bake the bread for an hour.": "food",
}


def test_a_corpus_becomes_vectors_in_which_questions_find_texts(python_environment, tmp_path):
    corpus, vectors = tmp_path / "corpus.parquet", tmp_path / "vectors.parquet"
    pandas.DataFrame({"text": list(TEXTS), "topic": list(TEXTS.values())}).to_parquet(corpus, index=False)
    done = run(python_environment, "embed_corpus.py", corpus, "text", vectors)
    assert done.stdout == f"6 of 6 texts embedded, 0 failed: {vectors}\n"
    found = pandas.read_parquet(vectors)
    assert found["query"].tolist() == list(range(len(TEXTS)))
    assert all(len(vector) == 384 and abs((vector**2).sum() - 1) < 1e-3 for vector in found["output"])
    for question, topic in [("a pet", "animals"), ("an election", "politics"), ("a recipe", "food")]:
        done = run(python_environment, "search_corpus.py", corpus, "text", vectors, question)
        nearest = [line.split("  ", 1)[1] for line in done.stdout.splitlines()]
        assert len(nearest) == 5
        assert [TEXTS[text] for text in nearest[:2]] == [topic, topic]


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
