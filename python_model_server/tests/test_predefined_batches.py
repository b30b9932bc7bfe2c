"""The predefined models that answer whole batches: each row has the same answer in every batch, to the byte."""

from __future__ import annotations

import random

import numpy as np
import pytest

from idunno_model_server.errors import RowError
from idunno_model_server.execution import Execution, open_model
from idunno_model_server.models import newsgroups, registry
from idunno_model_server.package_data import NEWSGROUPS_TEST, newsgroups_posts
from idunno_model_server.statistics import InferTimes
from idunno_model_server.training_result import train_model


@pytest.fixture(scope="module", params=["newsgroups-linear", "mnist-mlp", "squeezenet1.1"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Execution:
    model = registry()[request.param]
    return open_model(model, train_model(model, tmp_path_factory.mktemp("artefact")).artefact)


@pytest.fixture
def rows(opened: Execution, digits: list[bytes], photos: list[bytes]) -> list[bytes]:
    """Some that can be answered, of all lengths, and some that cannot."""
    kind = type(opened.runner).__name__
    if kind != "LinearRunner":
        return [*(digits if kind == "_MlpRunner" else photos[:8]), b"", b"not an image"]
    posts = [post.content for post in newsgroups_posts(NEWSGROUPS_TEST)[:300]]
    words = b" ".join(posts).split()
    rng = random.Random(0)  # noqa: S311 - repeatable, not secret
    snippets = [b" ".join(rng.sample(words, rng.randint(1, 40))) for _ in range(300)]
    return [*posts, *snippets, b"one", b"", b"7 7", b"\xff"]


def answers(opened: Execution, rows: list[bytes]) -> list[bytes | str]:
    found = opened.answer(rows, InferTimes())
    return [f"error: {answer}" if isinstance(answer, RowError) else answer for answer in found]


def test_a_rows_answer_does_not_depend_on_its_batch(opened: Execution, rows: list[bytes]) -> None:
    alone = {row: answers(opened, [row])[0] for row in rows}
    for seed, size in enumerate((2, 3, 7, 32, 64, 256, 1024)):
        shuffled = random.Random(seed).sample(rows, len(rows))  # noqa: S311
        found = [answer for i in range(0, len(rows), size) for answer in answers(opened, shuffled[i : i + size])]
        assert dict(zip(shuffled, found, strict=True)) == alone
    assert 2 <= sum(isinstance(answer, str) for answer in alone.values()) <= 5


def test_the_sizes_of_batches(opened: Execution) -> None:
    """Photos run one at a time, which is faster."""
    wanted = {"LinearRunner": 1024, "_MlpRunner": 64, "OnnxRunner": 1}
    assert opened.batch.rows == wanted[type(opened.runner).__name__]


@pytest.mark.parametrize("opened", ["newsgroups-linear"], indirect=True)
def test_long_texts_are_answered_in_parts(
    opened: Execution, rows: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a batch of them does not need memory for all products at once."""
    whole = answers(opened, rows)
    parts: list[list[list[int]]] = []
    probabilities = newsgroups.LinearRunner._probabilities
    monkeypatch.setattr(newsgroups, "PRODUCTS_MAX", 20 * 100)

    def counted(self: newsgroups.LinearRunner, texts: list[list[int]]) -> np.ndarray:
        parts.append(texts)
        return probabilities(self, texts)

    monkeypatch.setattr(newsgroups.LinearRunner, "_probabilities", counted)
    assert answers(opened, rows) == whole
    assert max(sum(map(len, part)) for part in parts if len(part) > 1) <= 100
    assert len(parts) > 300


def test_remembered_words_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = newsgroups._WordColumns()
    monkeypatch.setattr(newsgroups, "WORDS_KEPT_MAX", 2)
    long = "x" * (newsgroups.WORD_CHARACTERS_MAX + 1)
    first = [columns[word] for word in ("one", long, "two", "three")]
    assert set(columns) == {"one", "two"}
    assert [columns[word] for word in ("one", long, "two", "three")] == first
