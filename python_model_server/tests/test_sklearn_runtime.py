"""The runtime sklearn: pipelines that scikit-learn fitted and skops wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from test_packages import answers, write_package

from idunno_model_server.errors import ModelFailure, PackageError
from idunno_model_server.packages import OpenedPackage, open_package


def opened(tmp_path: Path, estimator: Any, **settings: Any) -> OpenedPackage:
    version = write_package(tmp_path, {"model.skops": ""}, "model.skops", **settings)
    file = tmp_path / version / "files" / "model.skops"
    if isinstance(estimator, bytes):
        file.write_bytes(estimator)
    else:
        skops.io.dump(estimator, file)
    manifest = tmp_path / version / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"python"', '"sklearn"'))
    return open_package(tmp_path / version, "mine")


def rows(values: Any) -> list[bytes]:
    return [json.dumps(row).encode() for row in values]


@pytest.fixture(scope="module")
def iris() -> Any:
    return load_iris()


def test_a_classifiers_label_and_its_probability(tmp_path: Path, iris: Any) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(iris.data, iris.target)
    package = opened(tmp_path, pipeline, canary="[5.1, 3.5, 1.4, 0.2]")
    assert package.model.canary() == b"[5.1, 3.5, 1.4, 0.2]"
    found = answers(package, rows(iris.data[::10].tolist()))
    probabilities = pipeline.predict_proba(iris.data[::10])
    assert [row["label"] for row in found] == pipeline.predict(iris.data[::10]).tolist()
    assert [row["probability"] for row in found] == pytest.approx(probabilities.max(axis=1).tolist(), abs=1e-6)


def test_a_row_that_the_pipeline_refuses_fails_alone(tmp_path: Path, iris: Any) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(iris.data, iris.target)
    bad = [[5.1, 3.5, None, 0.2], [1, 2], ["a", 1, 2, 3], {"x": 1}, 7]
    good, *failed = answers(opened(tmp_path, pipeline), [*rows([[5.1, 3.5, 1.4, 0.2], *bad]), b"{"])
    assert good["label"] == 0
    assert "NaN" in failed[0]
    assert failed[1] == "the row must be a list of 4 values, not 2 values"
    assert failed[2].startswith("ValueError: could not convert string to float")
    assert failed[3] == "the pipeline was fitted without names of features: the row must be a list"
    assert failed[4] == "the row must be a list of 4 values, not int"
    assert failed[5].startswith("the row is not JSON")


def test_a_pipeline_that_begins_with_a_vectorizer_takes_texts(tmp_path: Path) -> None:
    texts = ["a warm and clever film", "clever and moving", "a dull story", "long and dull"]
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, ["good", "good", "bad", "bad"])
    found = answers(opened(tmp_path, pipeline), [b"clever and warm", b'"dull, dull"', b"\xff"])
    assert [found[0]["label"], found[1]["label"], found[2]] == ["good", "bad", "not UTF-8 text: byte 0"]


def test_a_regression_answers_numbers(tmp_path: Path) -> None:
    numbers = np.arange(8.0).reshape(4, 2)
    one = LinearRegression().fit(numbers, numbers.sum(axis=1))
    assert answers(opened(tmp_path / "one", one), rows([[1, 2], [10, 20]])) == pytest.approx([3, 30])
    two = LinearRegression().fit(numbers, numbers * 2)
    assert answers(opened(tmp_path / "two", two), rows([[1, 2]]))[0] == pytest.approx([2, 4], abs=1e-5)


class NotTrusted(StandardScaler):  # type: ignore[misc]
    """A class that no one knows."""


def test_types_that_are_not_trusted_are_named_and_nothing_is_run(tmp_path: Path, iris: Any) -> None:
    called = FunctionTransformer(os.system)
    with pytest.raises(PackageError, match=r"model\.skops: it has types that are not trusted: (posix|os)\.system"):
        opened(tmp_path / "function", make_pipeline(called, LinearRegression()))
    pipeline = make_pipeline(NotTrusted(), LogisticRegression(max_iter=500)).fit(iris.data, iris.target)
    name = f"{NotTrusted.__module__}.NotTrusted"
    with pytest.raises(PackageError, match=rf"not trusted: {name}\. Rebuild it without"):
        opened(tmp_path / "class", pipeline)
    trusted = opened(tmp_path / "trusted", pipeline, trusted=[name])
    assert answers(trusted, rows([[5.1, 3.5, 1.4, 0.2]]))[0]["label"] == 0


def test_what_is_no_pipeline_is_refused(tmp_path: Path, iris: Any) -> None:
    with pytest.raises(PackageError, match="it is not a file of skops"):
        opened(tmp_path / "text", b"no archive")
    with pytest.raises(ModelFailure, match="PCA has no predict"):
        answers(opened(tmp_path / "pca", PCA(2).fit(iris.data)), rows([[1, 2, 3, 4]]))
