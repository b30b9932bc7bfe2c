"""The command-line tools: make_dataset and bench_bare."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from idunno_model_server.errors import MakeDatasetError
from idunno_model_server.make_dataset import make_dataset


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


def test_bare_processes_share_the_files(tmp_path: Path) -> None:
    make_dataset("digits", tmp_path, 100)
    command = [sys.executable, "-m", "idunno_model_server.bench_bare", "squeezenet1.1", str(tmp_path), "--json"]
    run = subprocess.run([*command, "--batch-size", "8"], capture_output=True, text=True, check=True, timeout=60)
    result = json.loads(run.stdout)
    assert result["files"] == 100
    assert result["qps"] > 0
