"""A linear text classifier, really trained in the training phase: on posts of twenty newsgroups, or on a user's texts.

Words are hashed to columns, counted on a logarithmic scale, weighted by how rare they are and scaled to length 1;
one logistic regression a label then weighs the columns (scikit-learn's SGDClassifier, epoch by epoch). Inference is a
sum over the text's words in numpy, so that a server that only answers never imports scikit-learn.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RowError
from ..newsgroups import HELD_OUT, posts, table, training_posts
from ..npz import write_npz
from .base import TOP_PARAMETERS, Model, Runner, encode_top

if TYPE_CHECKING:
    import numpy as np

    from ..training_data import Dataset, Example
    from ..training_run import TrainingRun

COLUMNS = 1 << 16
EPOCHS = 5
ALPHA = 1e-5
"""How much large weights cost. Chosen, like the loss, on a part of the training posts."""
HELD_OUT_SHARE = 0.2
WORD = re.compile(r"[^\W\d_]{2,}")


class NewsgroupsLinear(Model):
    """Text in UTF-8 -> one of the labels that it was trained on."""

    name = "newsgroups-linear"
    description = "linear text classifier, trained on 11,293 posts of 20 newsgroups, or on a labelled data set of texts"
    platform = "numpy"
    suffix = ".npz"
    dataset = "optional"
    parameters = TOP_PARAMETERS

    def require_sources(self) -> None:
        table(HELD_OUT)

    def train(self, dataset: Dataset | None, run: TrainingRun) -> Mapping[str, float]:
        """With a data set of the user's, a fifth of it is held out; the newsgroups have later posts for that."""
        if dataset is None:
            training, held_out = list(training_posts()), posts(HELD_OUT)
        else:
            training, held_out = dataset.split(HELD_OUT_SHARE, run.seed)
        labels = sorted({str(example.label) for example in training})
        metrics = _fit(training, labels, run)
        runner = self.load(run.artefact)
        right = sum(runner.best(example.content) == example.label for example in held_out)
        metrics |= {"examples": len(training), "held_out": len(held_out), "labels": len(labels)}
        return metrics | {"accuracy": round(right / len(held_out), 6)}

    def load(self, artefact: Path) -> LinearRunner:
        return LinearRunner(artefact)

    def canary(self) -> bytes:
        return b"where can I buy a helmet for my motorcycle?"


class LinearRunner(Runner):
    """Columns' rareness, one weight a column and label, one bias a label."""

    def __init__(self, artefact: Path) -> None:
        import numpy as np

        with np.load(artefact, allow_pickle=False) as arrays:
            self._rareness, self._weights, self._bias = (arrays[name] for name in ("rareness", "weights", "bias"))
            self._labels = tuple(arrays["labels"].tobytes().decode().split("\n"))
        shapes = [array.shape for array in (self._rareness, self._weights, self._bias)]
        wanted = [(COLUMNS,), (COLUMNS, len(self._labels)), (len(self._labels),)]
        if shapes != wanted:
            raise ValueError(f"arrays have the shapes {shapes}, {wanted} expected")

    def decode(self, content: bytes | memoryview) -> dict[int, int]:
        try:
            text = bytes(content).decode()
        except UnicodeDecodeError as error:
            raise RowError(f"not a text in UTF-8: byte {error.start}") from None
        counts = columns(text)
        if not counts:
            raise RowError("no words in the text")
        return counts

    def predict(self, decoded: dict[int, int]) -> np.ndarray:
        import numpy as np

        chosen = np.array(sorted(decoded))  # a fixed order of summation: the same text gives the same bytes
        values = np.log1p(np.array([decoded[column] for column in chosen.tolist()], "f4")) * self._rareness[chosen]
        values /= np.sqrt((values * values).sum())
        scores = 1 / (1 + np.exp(-(values @ self._weights[chosen] + self._bias)))
        return scores / scores.sum()

    def encode(self, predicted: np.ndarray) -> bytes:
        return encode_top(predicted, self._labels, self.parameters["labels"])

    def best(self, content: bytes) -> str | None:
        """The most probable label; None for what is no text."""
        try:
            return self._labels[int(self.predict(self.decode(content)).argmax())]
        except RowError:
            return None


def columns(text: str) -> dict[int, int]:
    """How often each column is hit by the text's words."""
    counts: Counter[int] = Counter()
    for word, count in Counter(WORD.findall(text.lower())).items():
        counts[zlib.crc32(word.encode("utf-8", "surrogatepass")) % COLUMNS] += count
    return counts


def _fit(training: Sequence[Example], labels: list[str], run: TrainingRun) -> dict[str, float]:
    """Trains, writes the artefact, and returns the last epoch's loss. Raises ValueError for fewer than two labels."""
    import numpy as np
    from scipy.sparse import csr_array
    from sklearn.linear_model import SGDClassifier
    from sklearn.metrics import log_loss

    if len(labels) < 2 or any("\n" in label for label in labels):
        raise ValueError("want at least two labels, each on one line")
    rows = [columns(example.content.decode(errors="replace")) for example in training]
    starts = np.cumsum([0, *map(len, rows)]).astype("i4")  # scikit-learn takes no wider indices
    indices = np.array([column for row in rows for column in sorted(row)], "i4")
    counts = np.array([row[column] for row in rows for column in sorted(row)], "f4")
    texts_with = np.bincount(indices, minlength=COLUMNS)
    rareness = (np.log((1 + len(rows)) / (1 + texts_with)) + 1).astype("f4")
    inputs = csr_array((np.log1p(counts) * rareness[indices], indices, starts), (len(rows), COLUMNS))
    lengths = np.sqrt(inputs.multiply(inputs).sum(axis=1))
    inputs.data /= np.repeat(np.maximum(lengths, np.float32(1e-9)), np.diff(starts)).astype("f4")
    targets = np.array([labels.index(str(example.label)) for example in training])

    classifier = SGDClassifier(loss="log_loss", alpha=ALPHA, random_state=np.random.RandomState(run.seed))
    loss = 0.0
    for epoch in range(1, EPOCHS + 1):
        classifier.partial_fit(inputs, targets, classes=np.arange(len(labels)))
        loss = float(log_loss(targets, classifier.predict_proba(inputs)))
        run.report(epoch, EPOCHS, loss=round(loss, 6))
    weights, bias = classifier.coef_, classifier.intercept_
    if len(labels) == 2:  # scikit-learn keeps one row for two labels
        weights, bias = np.vstack([-weights, weights]), np.concatenate([-bias, bias])
    names = np.frombuffer("\n".join(labels).encode(), "u1")
    write_npz(run.artefact, {"rareness": rareness, "weights": weights.T, "bias": bias, "labels": names})
    return {"epochs": EPOCHS, "loss": round(loss, 6)}
