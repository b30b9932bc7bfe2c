"""The runtime `sklearn`: a fitted pipeline of scikit-learn in a file of skops, which unlike a pickle runs no code.

skops names the types in a file. What is not of scikit-learn, numpy or Python itself is refused by name, unless
`trusted` lists it.

A row is JSON: a list of the features, or an object with a value for each of their names. A pipeline that begins with a
vectorizer takes a text. A classifier answers {"label", "probability"}, anything else what its `predict` returns.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelFileError, RowError
from ..json_codec import JSONDecodeError, loads
from ..models.batch_model import BatchModel, SetupContext
from .base import MadeModel, packaged

DIGITS = 6
"""Decimal digits of numbers: the last ones depend on the batch."""


class SklearnFile(BatchModel):
    """A fitted estimator in a package's folder."""

    description = "a pipeline of scikit-learn"
    platform = "sklearn"
    batch_max = 256
    entry: str
    trusted: tuple[str, ...] = ()
    canary_text: str | None = None

    def setup(self, context: SetupContext) -> None:
        from skops.io import load

        self.estimator = load(context.folder / self.entry, trusted=list(self.trusted))
        if not hasattr(self.estimator, "predict"):
            raise ValueError(f"{type(self.estimator).__name__} has no predict")
        self.width = getattr(self.estimator, "n_features_in_", None)
        names = getattr(self.estimator, "feature_names_in_", None)
        self.names = None if names is None else [str(name) for name in names]

    def decode(self, content: bytes | memoryview) -> Any:
        row = bytes(content)
        if self.width is None:
            return _text(row)
        try:
            value = loads(row)
        except JSONDecodeError as error:
            raise RowError(f"the row is not JSON: {error}") from None
        if isinstance(value, dict):
            value = self._in_order(value)
        if not isinstance(value, list) or len(value) != self.width:
            found = f"{len(value)} values" if isinstance(value, list) else type(value).__name__
            raise RowError(f"the row must be a list of {self.width} values, not {found}")
        return value

    def _in_order(self, row: Mapping[str, Any]) -> list[Any]:
        if self.names is None:
            raise RowError("the pipeline was fitted without names of features: the row must be a list")
        for name in self.names:
            if name not in row:
                raise RowError(f"the row has no value for {name!r}")
        return [row[name] for name in self.names]

    def predict(self, inputs: list[Any]) -> list[Any]:
        try:
            return self._answers(inputs)
        except (ValueError, TypeError, OverflowError) as error:
            if len(inputs) == 1:
                return [RowError(f"{type(error).__name__}: {error}")]
        # One row that cannot be a number, say, fails alone.
        return [answer for row in inputs for answer in self.predict([row])]

    def _answers(self, rows: list[Any]) -> list[Any]:
        import numpy as np

        table = self._table(rows)
        probable = getattr(self.estimator, "predict_proba", None)
        classes = getattr(self.estimator, "classes_", None)
        if probable is None or not isinstance(classes, np.ndarray):
            return _rounded(self.estimator.predict(table))
        probabilities = probable(table)
        best = probabilities.argmax(axis=1)
        return [
            {"label": classes[index].item(), "probability": round(float(row[index]), DIGITS)}
            for index, row in zip(best, probabilities, strict=True)
        ]

    def _table(self, rows: list[Any]) -> Any:
        """What the estimator was fitted with: texts, a table with names, or numbers."""
        import numpy as np

        if self.width is None:
            return rows
        if self.names is not None:
            import pandas

            return pandas.DataFrame(rows, columns=self.names)
        return np.array(rows, "f8")

    def canary(self) -> bytes | None:
        return None if self.canary_text is None else self.canary_text.encode()


def _text(row: bytes) -> str:
    """A text, or a JSON string."""
    try:
        text = row.decode()
    except UnicodeDecodeError as error:
        raise RowError(f"not UTF-8 text: byte {error.start}") from None
    if text.startswith('"'):
        try:
            return str(loads(text))
        except JSONDecodeError:
            return text
    return text


def _rounded(values: Any) -> list[Any]:
    rounded = values.round(DIGITS) if values.dtype.kind == "f" else values
    answers: list[Any] = rounded.tolist()
    return answers


def sklearn_model(name: str, files: Path, entry: str, settings: Mapping[str, Any]) -> MadeModel:
    for module in ("skops", "sklearn"):
        if importlib.util.find_spec(module) is None:
            raise ModelFileError(
                f"{module} is not installed in the model's environment: name skops and scikit-learn in requirements.txt"
            )
    trusted = tuple(map(str, settings.get("trusted", ())))
    _refuse_untrusted(files / entry, trusted)
    attributes = {
        "__module__": __name__,
        "entry": entry,
        "trusted": trusted,
        "canary_text": settings.get("canary"),
    }
    return MadeModel(packaged(type("SklearnFile", (SklearnFile,), attributes), name, files, settings))


def _refuse_untrusted(path: Path, trusted: tuple[str, ...]) -> None:
    """Raises ModelFileError with the types that are not trusted. Makes nothing of the file."""
    from skops.io import get_untrusted_types

    try:
        untrusted = sorted(set(get_untrusted_types(file=path)) - set(trusted))
    except Exception as error:
        raise ModelFileError(f"it is not a file of skops: {type(error).__name__}: {error}") from error
    if untrusted:
        raise ModelFileError(
            f"it has types that are not trusted: {', '.join(untrusted)}. Rebuild it without them, or write a model.py"
        )
