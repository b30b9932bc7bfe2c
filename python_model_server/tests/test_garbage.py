"""How often the server's process looks for reference cycles."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from idunno_model_server.execution import open_model
from idunno_model_server.garbage import collect_rarely
from idunno_model_server.models import registry
from idunno_model_server.statistics import InferTimes
from idunno_model_server.training_result import train_model

ROWS = 1024


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("thresholds")
def test_two_batches_at_once_cause_no_collection(tmp_path: Path) -> None:
    model = registry()["newsgroups-linear"]
    execution = open_model(model, train_model(model, tmp_path).artefact)
    rows = [b"row %d of a text about motorcycles" % number for number in range(ROWS)]
    collections: list[int] = []

    def count(phase: str, info: dict[str, int]) -> None:
        collections.append(info["generation"])

    def answer() -> int:
        gc.collect()
        gc.callbacks.append(count)
        collections.clear()
        answers = [execution.answer([memoryview(row) for row in rows], InferTimes()) for _ in range(2)]
        gc.callbacks.remove(count)
        assert sum(map(len, answers)) == 2 * ROWS
        return len(collections)

    assert answer() > 0, "by default there are some, so this counts them"
    collect_rarely()
    assert answer() == 0
