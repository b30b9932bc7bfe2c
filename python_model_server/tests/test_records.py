"""Training reads the values that jobs read: `cases.json` is also a test of the workers' readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from idunno_model_server.dialect import ReadOptions
from idunno_model_server.errors import DatasetError
from idunno_model_server.records import read_labels
from idunno_model_server.training_data import Dataset

REPOSITORY = Path(__file__).parents[2]
CASES = json.loads((REPOSITORY / "daemon/worker/src/records/cases.json").read_text(encoding="utf-8"))
LONG = "x" * 200_000


def options(case: dict[str, Any]) -> ReadOptions:
    """The options of a case, as the command line has them. Columns that come back do not matter to training."""
    given = {name: value for name, value in case.get("options", {}).items() if name != "keep"}
    quotes = {"none": "none", "'": "single", '"': "double"}
    renamed = {f"{name}_column" if name in ("input", "label", "id") else name: value for name, value in given.items()}
    return ReadOptions.of_json({**renamed, **({"quote": quotes[given["quote"]]} if "quote" in given else {})})


def write(case: dict[str, Any], folder: Path) -> Path:
    path = folder / str(case["file"])
    text = case.get("text", "").replace("LONG", LONG).encode()
    path.write_bytes(bytes.fromhex(case["hex"]) if "hex" in case else text)
    return path


@pytest.mark.parametrize("case", CASES["records"], ids=lambda case: case["why"])
def test_a_model_is_trained_on_the_records_that_jobs_read(tmp_path: Path, case: dict[str, Any]) -> None:
    dataset = Dataset.open(write(case, tmp_path), options(case))
    read = [(example.content.decode(), example.label) for example in dataset]
    assert read == [(content.replace("LONG", LONG), label) for content, label in case["records"]]


@pytest.mark.parametrize("case", CASES["refused"], ids=lambda case: case["why"])
def test_what_jobs_cannot_read_is_refused_in_the_same_words(tmp_path: Path, case: dict[str, Any]) -> None:
    with pytest.raises(DatasetError) as refused:
        Dataset.open(write(case, tmp_path), options(case))
    assert case["says"] in str(refused.value)


@pytest.mark.parametrize("case", CASES["labels"], ids=lambda case: case["why"])
def test_a_label_table_means_the_same_in_training(tmp_path: Path, case: dict[str, Any]) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(case["text"].encode())
    assert read_labels(path) == case["labels"]


def test_files_are_labelled_by_the_longest_listed_suffix_of_their_path(tmp_path: Path) -> None:
    for name in ("a.txt", "x/a.txt", "x/y/a.txt", "z/b.txt", "z/c.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    unlabelled = Dataset.open(tmp_path)
    assert [example.content.decode() for example in unlabelled] == [
        "a.txt",
        "x/a.txt",
        "x/y/a.txt",
        "z/b.txt",
        "z/c.txt",
    ]
    (tmp_path / "labels.csv").write_text("file,label\nz/b.txt,b\na.txt,1\ny/a.txt,2\n")
    read = [(example.content.decode(), example.label) for example in Dataset.open(tmp_path)]
    assert read == [("z/b.txt", "b"), ("a.txt", "1"), ("x/a.txt", "1"), ("x/y/a.txt", "2")]


def test_names_are_compared_in_one_form_of_unicode(tmp_path: Path) -> None:
    (tmp_path / "cafe\u0301.txt").write_text("one")
    (tmp_path / "the\u0301.txt").write_text("two")
    (tmp_path / "labels.csv").write_text("file,label\ncaf\u00e9.txt,1\nthe\u0301.txt,2\n", encoding="utf-8")
    assert [(example.content, example.label) for example in Dataset.open(tmp_path)] == [(b"one", "1"), (b"two", "2")]


def test_bytes_that_are_no_text_reach_the_model_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_bytes(b"input,label\ncaf\xe9,caf\xe9\n")
    (example,) = Dataset.open(path)
    assert (example.content, example.label) == (b"caf\xe9", "caf\ufffd")


def test_a_record_has_as_many_levels_as_a_job_allows(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text("[" * 127 + "]" * 127 + "\n")
    assert len(list(Dataset.open(path))) == 1
    for levels in (128, 1000):
        path.write_text("7\n" + "[" * levels + "]" * levels + "\n")
        with pytest.raises(DatasetError, match="line 2 has more than 127 levels"):
            list(Dataset.open(path))
