"""docs/models.md: its example runs as it is written, and its limits are those of the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ModelServer
from test_packages import load, write_package
from wire import binary_response, outputs

from idunno_model_server import failures, user_code
from idunno_model_server.api import BatchModel
from idunno_model_server.execution import RECOVERY_BATCHES
from idunno_model_server.runtimes import RUNTIMES
from idunno_model_server.user_models import LIMITS

EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGE = Path(__file__).parent.parent.parent / "docs/models.md"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text()


def test_the_example_of_a_batch_model_works(
    page: str, tmp_path: Path, start_server: Callable[..., ModelServer]
) -> None:
    _, source = EXAMPLE.findall(page)
    (tmp_path / "backwards.py").write_text(source)
    server = start_server("--models-dir", str(tmp_path))
    server.deploy("backwards", server.train("backwards"))
    _, tensors = binary_response(server.infer("backwards", [b"abc", b"x" * 1001, "öd".encode()]))
    assert [json.loads(row) if row else None for row in tensors["output"]] == ["cba", None, "dö"]
    assert tensors["error"] == [b"", b"too long", b""]


def test_the_example_of_a_training_works(page: str, tmp_path: Path, start_server: Callable[..., ModelServer]) -> None:
    source, _ = EXAMPLE.findall(page)
    (tmp_path / "reviews.jsonl").write_text(
        '{"input": "a warm film", "label": "good"}\n{"input": "long and dull", "label": "bad"}\n'
    )
    packages = tmp_path / "packages"
    server = start_server("--packages-dir", str(packages))
    version = write_package(packages, {"model.py": source})
    artefact = server.train("votes", package=version, dataset=str(tmp_path / "reviews.jsonl")).decode()
    trained = write_package(
        packages, {"model.py": source, ".trained/votes.json": artefact}, artefact=".trained/votes.json"
    )
    assert load(server, "votes", trained).status_code == 200
    assert outputs(server.infer("votes", [b"a dull evening", b"warm"])) == [b'"bad"', b'"good"']


def test_the_example_can_be_tried_without_a_server(page: str, tmp_path: Path) -> None:
    _, source = EXAMPLE.findall(page)
    (tmp_path / "backwards.py").write_text(source)
    (tmp_path / "broken.py").write_text(source.replace("texts = ", "1 / 0; texts = ").replace("backwards", "broken"))
    (tmp_path / "question.txt").write_text("abc")
    words = [sys.executable, "-m", "idunno_model_server.try_model", "--models-dir", "."]
    tried = subprocess.run(
        [*words, "backwards", "question.txt"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert tried.stdout.endswith('canary: "olleh"\nquestion.txt: "cba"\n')
    failed = subprocess.run(
        [*words, "broken", "question.txt"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith("Traceback (most recent call last):")
    assert failed.stderr.endswith("ZeroDivisionError: division by zero (broken.py, line 9)\n")


def test_each_runtime_is_described(page: str) -> None:
    for runtime in RUNTIMES:
        assert f"| `{runtime}` |" in page
        assert f"**`{runtime}`**" in page or runtime in ("python", "openai"), "its ten lines"


def test_the_limits_are_those_of_the_code(page: str) -> None:
    for name in ("batch_max", "concurrency", "device", "memory_mib", "row_timeout_s", "dataset"):
        default = getattr(BatchModel, name)
        shown = "none" if default is None else f'`"{default}"`' if isinstance(default, str) else str(default)
        assert f"| `{name}` | {shown} |" in page
    for name in ("batch_max", "concurrency", "row_timeout_s"):
        low, high = LIMITS[name]
        assert re.search(rf"\| `{name}` \|.*{low} to {high:,}", page)
    words = " ".join(page.split())
    assert f"doubled again after {RECOVERY_BATCHES} batches" in words
    assert f"lists the {failures.FAILURES_KEPT} newest failures" in words
    assert f"last {user_code.FRAMES_MAX} frames and {user_code.TRACEBACK_CHARACTERS_MAX:,} characters" in words
    assert f"a message to {user_code.MESSAGE_CHARACTERS_MAX} characters" in words
    assert f"a row's reason to {user_code.ROW_REASON_CHARACTERS_MAX};" in words
