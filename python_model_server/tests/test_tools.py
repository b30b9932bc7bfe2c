"""The command-line tools: make_dataset and bench_bare."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from idunno_model_server.bench_bare import LineBatches
from idunno_model_server.errors import MakeDatasetError
from idunno_model_server.make_dataset import make_dataset, make_lines


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["photos", "digits", "posts"])
def test_datasets_are_exact_repeatable_and_made_once(tmp_path: Path, kind: str) -> None:
    one = tmp_path / "one"
    two = tmp_path / "two"
    assert make_dataset(kind, one, 23)
    assert make_dataset(kind, two, 7)
    assert len(contents(two)) == 7 + 1
    assert make_dataset(kind, two, 23)
    assert contents(one) == contents(two)
    lines = (one / "labels.csv").read_text().splitlines()
    assert lines[0] == "file,label"
    assert {line.split(",")[0] for line in lines[1:]} == set(contents(one)) - {"labels.csv"}
    assert not make_dataset(kind, one, 23)
    next(path for path in one.iterdir() if path.name != "labels.csv").unlink()
    assert make_dataset(kind, one, 23)
    assert contents(one) == contents(two)


def test_a_smaller_dataset_removes_the_files_of_a_larger_one(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    make_dataset("digits", tmp_path, 30)
    make_dataset("digits", tmp_path, 10)
    assert len(contents(tmp_path)) == 10 + 2


@pytest.mark.parametrize("images", [0, -1, 5001])
def test_impossible_sizes_are_refused(tmp_path: Path, images: int) -> None:
    with pytest.raises(MakeDatasetError, match="--images must be from 1 to 5000"):
        make_dataset("digits", tmp_path, images)


@pytest.mark.slow
def test_bare_processes_share_the_files(tmp_path: Path) -> None:
    make_dataset("digits", tmp_path, 100)
    command = [sys.executable, "-m", "idunno_model_server.bench_bare", "squeezenet1.1", str(tmp_path), "--json"]
    run = subprocess.run([*command, "--batch-size", "8"], capture_output=True, text=True, check=True, timeout=60)
    result = json.loads(run.stdout)
    assert result["files"] == 100
    assert result["qps"] > 0


def test_lines_are_made_once_and_have_labels(tmp_path: Path) -> None:
    assert make_lines(tmp_path, 20)
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [str(number) for number in range(20)]
    assert all(line["label"] and 0 < len(line["input"].split()) <= 12 for line in lines)
    assert not make_lines(tmp_path, 20)
    assert make_lines(tmp_path, 10)
    with pytest.raises(MakeDatasetError, match="from 1 to"):
        make_lines(tmp_path, 0)


@pytest.mark.slow
def test_bare_processes_share_the_lines(tmp_path: Path) -> None:
    make_lines(tmp_path, 100)
    file = tmp_path / "lines.jsonl"
    batches = LineBatches.of(file, 8)
    read = [batches.read(number) for number in range(14)]
    assert (batches.rows, read[13]) == (100, None)
    contents = [content.decode() for batch in read if batch for content in batch.contents]
    assert contents == [json.loads(line)["input"] for line in file.read_text().splitlines()]
    assert [batch.first for batch in read if batch] == list(range(0, 100, 8))
    command = [sys.executable, "-m", "idunno_model_server.bench_bare", "newsgroups-linear", str(file), "--json"]
    run = subprocess.run([*command, "--batch-size", "8"], capture_output=True, text=True, check=True, timeout=120)
    result = json.loads(run.stdout)
    assert result["rows"] == 100
    assert result["qps"] > 0


@pytest.mark.slow
def test_the_curve_of_batch_sizes_is_measured() -> None:
    command = [sys.executable, "-m", "idunno_model_server.bench_batches", "--json", "--seconds", "0.05"]
    run = subprocess.run([*command, "--batch-size", "64"], capture_output=True, text=True, check=True, timeout=120)
    (rates,) = json.loads(run.stdout)["rates"]
    assert rates["batch_size"] == 64
    assert 0 < rates["ratio"] == round(rates["server_rows_s"] / rates["bare_rows_s"], 3)
