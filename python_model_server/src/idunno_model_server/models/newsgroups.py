"""A linear text classifier, trained in the training phase: on posts to twenty newsgroups, or on a user's texts.

Words are hashed to columns, counted on a logarithmic scale, weighted by inverse document frequency and scaled to
length 1 (TF-IDF); one logistic regression per label then weights the columns (scikit-learn's SGDClassifier). Inference
is a sum over the words of a whole batch in numpy, so that a server that only answers never imports scikit-learn. Each
text's words are added up by themselves and in the order of their columns, so that its answer does not depend on the
batch.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ..array_artefact import load_arrays, save_arrays
from ..errors import RowError, TrainingError
from ..package_data import (
    NEWSGROUPS_TEST,
    newsgroups_file,
    newsgroups_posts,
    newsgroups_training_posts,
    require_train_extra,
)
from .base import TOP_PARAMETERS, Model, Ranking, Runner, encode_ranking, rank

if TYPE_CHECKING:
    import numpy as np

    from ..training_data import Dataset, Example
    from ..training_run import TrainingRun

COLUMNS = 1 << 16
EPOCHS = 5
ALPHA = 1e-5
"""The regularisation strength. Chosen, like the loss, on a part of the training posts."""
HELD_OUT_SHARE = 0.2
WORD = re.compile(r"[^\W\d_]{2,}")
WORDS_KEPT_MAX = 1 << 18
"""Words whose columns are remembered, about 30 MB."""
WORD_CHARACTERS_MAX = 32
"""Longer words are not remembered."""
PRODUCTS_MAX = 1 << 22
"""Products of a weight and a value that are in memory at once, 16 MiB, unless one text has more."""


class NewsgroupsLinear(Model):
    """Text in UTF-8 -> one of the labels that it was trained on."""

    name = "newsgroups-linear"
    description = "linear text classifier, trained on 11,293 posts to 20 newsgroups, or on your own labelled texts"
    platform = "numpy"
    suffix = ".safetensors"
    dataset = "optional"
    parameters = TOP_PARAMETERS
    batch_max = 1024

    def require_sources(self) -> None:
        newsgroups_file(NEWSGROUPS_TEST)
        require_train_extra("scipy", "sklearn")

    def train(self, dataset: Dataset | None, run: TrainingRun) -> Mapping[str, float]:
        """Of a user's dataset, a fifth is held out; the newsgroups come with later posts to test on."""
        training: Dataset | Sequence[Example]
        held_out: Dataset | Sequence[Example]
        if dataset is None:
            training, held_out = list(newsgroups_training_posts()), newsgroups_posts(NEWSGROUPS_TEST)
        else:
            training, held_out = dataset.split(HELD_OUT_SHARE, run.seed)
        labels = sorted({str(example.label) for example in training})
        loss = _fit(training, labels, run)
        runner = self.load(run.artefact)
        correct = sum(runner.best_label(example.content) == example.label for example in held_out)
        return {
            "epochs": EPOCHS,
            "loss": loss,
            "examples": len(training),
            "held_out": len(held_out),
            "labels": len(labels),
            "accuracy": round(correct / len(held_out), 6),
        }

    def load(self, artefact: Path) -> LinearRunner:
        return LinearRunner(artefact)

    def canary(self) -> bytes:
        return b"where can I buy a helmet for my motorcycle?"


class LinearRunner(Runner):
    """Holds the columns' inverse document frequencies, a weight per column and label, and a bias per label."""

    def __init__(self, artefact: Path) -> None:
        loaded = load_arrays(artefact)
        labels = len(loaded.labels)
        loaded.require_shapes({"idf": (COLUMNS,), "weights": (COLUMNS, labels), "bias": (labels,)})
        self._labels = loaded.labels
        self._idf = loaded.arrays["idf"]
        self._weights = loaded.arrays["weights"]
        self._bias = loaded.arrays["bias"]

    def decode(self, content: bytes | memoryview) -> list[int]:
        try:
            text = str(content, "utf-8")
        except UnicodeDecodeError as error:
            raise RowError(f"not UTF-8 text: byte {error.start}") from None
        columns = word_columns(text)
        if not columns:
            raise RowError("the text has no words")
        return columns

    def predict_batch(self, decoded: list[list[int]]) -> list[Ranking]:
        rankings: list[Ranking] = []
        for part in _parts(decoded, PRODUCTS_MAX // len(self._labels)):
            rankings += rank(self._probabilities(part))
        return rankings

    def _probabilities(self, texts: Sequence[list[int]]) -> np.ndarray:
        """[texts, labels]. No text may be empty."""
        import numpy as np

        lengths = np.fromiter(map(len, texts), "i8", len(texts))
        words = np.fromiter(chain.from_iterable(texts), "i8", int(lengths.sum()))
        text_and_column = np.repeat(np.arange(len(texts)) * COLUMNS, lengths) + words
        text_and_column, counts = np.unique(text_and_column, return_counts=True)
        columns = text_and_column % COLUMNS
        text = text_and_column // COLUMNS
        starts = np.searchsorted(text, np.arange(len(texts)))
        values = np.log1p(counts.astype("f4")) * self._idf[columns]
        values /= np.sqrt(np.add.reduceat(values * values, starts))[text]
        products = self._weights[columns]
        products *= values[:, None]
        scores = 1 / (1 + np.exp(-(np.add.reduceat(products, starts) + self._bias)))
        probabilities: np.ndarray = scores / scores.sum(axis=1, keepdims=True)
        return probabilities

    def encode(self, predicted: Ranking) -> bytes:
        return encode_ranking(predicted, self._labels, int(self.parameters["labels"]))

    def best_label(self, content: bytes) -> str | None:
        """The most probable label; None for an input that cannot be answered."""
        try:
            ranking: Ranking = self.predict(self.decode(content))
            return self._labels[ranking.indices[0]]
        except RowError:
            return None


class _WordColumns(dict[str, int]):
    """The column that each word hashes to. Threads share it: a word that two add at once gets the same column."""

    def __missing__(self, word: str) -> int:
        column = zlib.crc32(word.encode("utf-8", "surrogatepass")) % COLUMNS
        if len(word) <= WORD_CHARACTERS_MAX and len(self) < WORDS_KEPT_MAX:
            self[word] = column
        return column


_COLUMNS_OF = _WordColumns()


def word_columns(text: str) -> list[int]:
    """The column of each word, in the order of the text."""
    return list(map(_COLUMNS_OF.__getitem__, WORD.findall(text.lower())))


def _parts(texts: Sequence[list[int]], words_max: int) -> Iterator[Sequence[list[int]]]:
    """Cuts a batch into parts of at most so many words, or of one text."""
    start = 0
    words = 0
    for index, text in enumerate(texts):
        if index > start and words + len(text) > words_max:
            yield texts[start:index]
            start = index
            words = 0
        words += len(text)
    if start < len(texts):
        yield texts[start:]


def _fit(training: Dataset | Sequence[Example], labels: list[str], run: TrainingRun) -> float:
    """Trains, writes the artefact and returns the final loss. Raises TrainingError for fewer than two labels."""
    import numpy as np
    from scipy.sparse import csr_array
    from sklearn.linear_model import SGDClassifier
    from sklearn.metrics import log_loss

    if len(labels) < 2:
        raise TrainingError("the examples must have at least two labels")
    rows = [Counter(word_columns(example.content.decode(errors="replace"))) for example in training]
    starts = np.cumsum([0, *map(len, rows)]).astype("i4")  # scikit-learn takes no wider indices
    indices = np.array([column for row in rows for column in sorted(row)], "i4")
    counts = np.array([row[column] for row in rows for column in sorted(row)], "f4")
    document_counts = np.bincount(indices, minlength=COLUMNS)
    idf = (np.log((1 + len(rows)) / (1 + document_counts)) + 1).astype("f4")
    inputs = csr_array((np.log1p(counts) * idf[indices], indices, starts), (len(rows), COLUMNS))
    lengths = np.sqrt(inputs.multiply(inputs).sum(axis=1))
    inputs.data /= np.repeat(np.maximum(lengths, np.float32(1e-9)), np.diff(starts)).astype("f4")
    targets = np.array([labels.index(str(example.label)) for example in training])

    classifier = SGDClassifier(loss="log_loss", alpha=ALPHA, random_state=np.random.RandomState(run.seed))
    loss = 0.0
    for epoch in range(1, EPOCHS + 1):
        classifier.partial_fit(inputs, targets, classes=np.arange(len(labels)))
        loss = round(float(log_loss(targets, classifier.predict_proba(inputs))), 6)
        run.report(epoch, EPOCHS, loss=loss)
    weights = classifier.coef_
    bias = classifier.intercept_
    if len(labels) == 2:  # scikit-learn keeps one row for two labels
        weights = np.vstack([-weights, weights])
        bias = np.concatenate([-bias, bias])
    save_arrays(run.artefact, {"idf": idf, "weights": weights.T, "bias": bias}, labels)
    return loss
